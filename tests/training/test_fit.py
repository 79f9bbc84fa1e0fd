"""The training loop: exact resume, average, schedules, health checks."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from genrep import storage
from genrep.contracts import Batch, Conditional, DataSpec, Inference, Model, Objective
from genrep.data.batches import InMemory
from genrep.distributions.basic import Gaussian, Point
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import build
from genrep.training import checkpoint, measure
from genrep.training.average import Average
from genrep.training.loop import fit, restored
from genrep.training.measure import candidates, fastest
from genrep.training.settings import Settings
from genrep.training.trainer import Mode, Trainer

FLOAT32 = Mode()
QUICK = Settings(steps=12, batch=8, warmup=2, log_every=5, precision="float32", channels_last="no", device="cpu")


def digits(n=64, classes=0):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(0, 17, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, classes, (n,), generator=generator) if classes else None
    return InMemory(x, y, DataSpec((1, 8, 8), levels=17, classes=classes))


def small_vae(seed=0):
    torch.manual_seed(seed)
    return build("vae", digits().spec, latent=3, width=8)


class Normal(Conditional):
    """p(x) = N(mean, 1) with a learnt mean; and an unused parameter when asked for."""

    def __init__(self, unused=False):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(2))
        if unused:
            self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, *, y=None):
        return Gaussian(self.mean, torch.zeros(2), batched=False)


class Likelihood(Objective):
    terms = {"nll": 1.0}

    def forward(self, model, batch, player="model"):
        return {"nll": -model.generative().log_prob(batch.x)}


class Duel(Objective):
    """Two players on a saddle: the critic climbs what the model descends."""

    terms = {"model": 1.0, "critic": 1.0}
    turns = ("critic", "model")

    def __init__(self):
        super().__init__(learns=("generative",))
        self.critic = nn.Linear(2, 1)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.learns = {"model": ("generative",), "critic": ("objective.critic",)}

    def forward(self, model, batch, player="model"):
        if self.training:
            self.seen += len(batch.x)
        fake = model.generative().rsample((len(batch.x),))
        gap = self.critic(fake).mean() - self.critic(batch.x).mean()
        if player == "model":
            return {"model": -gap}
        return {"critic": gap + sum(p.square().sum() for p in self.critic.parameters())}


def normal_data(n=256):
    return InMemory(torch.randn(n, 2, generator=torch.Generator().manual_seed(2)) + 1.5, None, DataSpec((2,)))


def duel():
    torch.manual_seed(0)
    return Model(DataSpec((2,)), Normal(), Inference(), Duel())


def state_and_log(folder):
    _, stored = checkpoint.newest(folder / "checkpoints")
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return stored, [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]


def assert_same_run(a, b):
    (one, log_one), (two, log_two) = state_and_log(a), state_and_log(b)
    assert one.tensors.keys() == two.tensors.keys()
    for name, t in one.tensors.items():
        assert torch.equal(t, two.tensors[name]), name
    assert log_one == log_two
    assert {**one.about, "settings": 0} == {**two.about, "settings": 0}


@pytest.mark.parametrize("make", [small_vae, duel])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_is_exact(tmp_path, make, accumulate):
    """2 N updates equal N updates, a new process' worth of state, and N more: bit for bit, with the log."""
    data = digits() if make is small_vae else normal_data()
    settings = dataclasses.replace(QUICK, accumulate=accumulate, validate_every=4, horizon=24, schedule="cosine")
    longer = dataclasses.replace(settings, steps=24)
    fit(make(), data, longer, folder=tmp_path / "whole", validation=data)
    fit(make(), data, settings, folder=tmp_path / "parts", validation=data)
    torch.manual_seed(99)  # whatever happens in between
    other = make()
    fit(other, data, longer, folder=tmp_path / "parts", resume=True, validation=data)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_interruption_writes_a_checkpoint_and_continues_exactly(tmp_path):
    script = f"""
import sys, pathlib; sys.path[:0] = {sys.path!r}
import dataclasses
from tests.training.test_fit import digits, small_vae, QUICK, fit
fit(small_vae(), digits(), dataclasses.replace(QUICK, steps=4000), folder=pathlib.Path({str(tmp_path / "cut")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "cut" / "log.jsonl"
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) > 2)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    path, stored = checkpoint.newest(tmp_path / "cut" / "checkpoints")
    done = stored.about["step"]
    assert done > 10
    longer = dataclasses.replace(QUICK, steps=done + 7, horizon=4000)
    fit(small_vae(5), digits(), longer, folder=tmp_path / "cut", resume=True)
    fit(small_vae(), digits(), longer, folder=tmp_path / "whole")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "took too long"
        time.sleep(0.02)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is a signal of POSIX")
def test_a_killed_run_continues_exactly(tmp_path):
    script = f"""
import sys, pathlib; sys.path[:0] = {sys.path!r}
import dataclasses
from tests.training.test_fit import digits, small_vae, QUICK, fit
settings = dataclasses.replace(QUICK, steps=100000, checkpoint_seconds=0.05)
fit(small_vae(), digits(), settings, folder=pathlib.Path({str(tmp_path / "cut")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    wait_for(lambda: len(list((tmp_path / "cut" / "checkpoints").glob("0*.safetensors"))) == 2)
    process.kill()
    process.wait()
    done = checkpoint.newest(tmp_path / "cut" / "checkpoints")[1].about["step"]
    longer = dataclasses.replace(QUICK, steps=done + 7, horizon=100000)
    fit(small_vae(5), digits(), longer, folder=tmp_path / "cut", resume=True)
    fit(small_vae(), digits(), longer, folder=tmp_path / "whole")
    assert_same_run(tmp_path / "cut", tmp_path / "whole")


def test_truncated_checkpoint_is_named_and_the_previous_one_used(tmp_path):
    settings = dataclasses.replace(QUICK, checkpoint_seconds=0.0)
    fit(small_vae(), digits(), settings, folder=tmp_path / "run")
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged"):
        path, stored = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert stored.about["step"] == 11
    fit(small_vae(), digits(), QUICK, folder=tmp_path / "whole")
    with pytest.warns(UserWarning, match="Going back"):
        fit(small_vae(3), digits(), QUICK, folder=tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_checkpoint_of_another_model_is_refused(tmp_path):
    fit(small_vae(), digits(), QUICK, folder=tmp_path)
    with pytest.raises(ValueError, match="does not fit this model"):
        fit(duel(), normal_data(), QUICK, folder=tmp_path, resume=True)


def test_learns_the_mean_and_samples_use_the_average():
    """The averaged mean comes to the data's; with decay 0 the live weights stay."""
    data, model = normal_data(), Model(DataSpec((2,)), Normal(), Inference(), Likelihood())
    outcome = fit(model, data, dataclasses.replace(QUICK, steps=400, lr=0.05, batch=64, ema=0.98))
    torch.testing.assert_close(model.generative.mean.detach(), data.x.mean(0), atol=0.05, rtol=0)
    assert outcome.log[-1]["terms"]["nll"] < outcome.log[0]["terms"]["nll"]
    assert not model.training


def test_average_is_its_definition():
    module = nn.Linear(1, 1, bias=False)
    average = Average(module, 0.9)
    expected = module.weight.item()
    for n in range(30):
        with torch.no_grad():
            module.weight.fill_(float(n))
        average.update()
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    assert average.weights[0].item() == pytest.approx(expected, rel=1e-5)
    with average.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 29


def test_accumulated_batches_equal_one_large_batch():
    """Without noise, two accumulated batches give the update of their union, here of all data."""
    data = normal_data(32)
    whole, parts = (Model(DataSpec((2,)), Normal(), Inference(), Likelihood()) for _ in range(2))
    fit(whole, data, dataclasses.replace(QUICK, batch=32), mode=FLOAT32)
    fit(parts, data, dataclasses.replace(QUICK, batch=16, accumulate=2), mode=FLOAT32)
    torch.testing.assert_close(whole.generative.mean, parts.generative.mean)


def test_every_player_moves_only_its_own_parameters():
    trainer = Trainer(duel(), normal_data(), QUICK.resolved(duel(), 256), FLOAT32)
    before = {k: t.detach().clone() for k, t in storage.state(trainer.model).items()}
    trainer.update()
    after = storage.state(trainer.model)
    moved = {k for k, t in after.items() if not torch.equal(t, before[k])}
    assert moved == {"objectives.0.critic.weight", "objectives.0.critic.bias", "objectives.0.seen"} - (
        set()
        if not torch.equal(before["objectives.0.critic.bias"], after["objectives.0.critic.bias"])
        else {"objectives.0.critic.bias"}
    )
    before = {k: t.detach().clone() for k, t in after.items()}
    trainer.update()
    assert {k for k, t in storage.state(trainer.model).items() if not torch.equal(t, before[k])} == {
        "generative.mean",
        "objectives.0.seen",
    }


def test_parameters_that_no_gradient_reaches_are_named():
    model = Model(DataSpec((2,)), Normal(unused=True), Inference(), Likelihood())
    with pytest.raises(ValueError, match="No gradient reached generative.unused in 100 updates"):
        fit(model, normal_data(), dataclasses.replace(QUICK, steps=101))


def test_a_term_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path):
    class Breaks(Likelihood):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, model, batch, player="model"):
            self.count += 1
            terms = super().forward(model, batch, player)
            return {"nll": terms["nll"] / (self.count < 9)}

    model = Model(DataSpec((2,)), Normal(), Inference(), Breaks())
    settings = dataclasses.replace(QUICK, steps=30, log_every=3, checkpoint_seconds=0.0)
    with pytest.raises(FloatingPointError, match="Update 8: nll became inf"):
        fit(model, normal_data(), settings, folder=tmp_path, mode=FLOAT32)
    stored = checkpoint.newest(tmp_path / "checkpoints")[1]
    assert stored.about["step"] == 8
    assert all(t.isfinite().all() for t in stored.tensors.values())


def test_patience_stops_and_keeps_the_best_weights():
    """Held-out data far from the training data: the loss there only grows, so the first weights are the best."""
    data = normal_data()
    away = InMemory(data.x - 9, None, data.spec)
    model = Model(DataSpec((2,)), Normal(), Inference(), Likelihood())
    settings = dataclasses.replace(QUICK, steps=200, lr=0.05, validate_every=5, patience=3, ema=0.0)
    outcome = fit(model, data, settings, validation=away, mode=FLOAT32)
    assert outcome.stopped_early
    assert outcome.steps == 20
    losses = [r["validation"] for r in outcome.log if "validation" in r]
    assert losses == sorted(losses)
    held_out = -model.generative().log_prob(away.x).mean().item()
    assert held_out == pytest.approx(losses[0], rel=1e-5)


def test_best_weights_are_kept_without_stopping():
    data = normal_data()
    away = InMemory(data.x - 9, None, data.spec)
    model = Model(DataSpec((2,)), Normal(), Inference(), Likelihood())
    settings = dataclasses.replace(QUICK, steps=40, lr=0.05, validate_every=5, keep_best=True)
    outcome = fit(model, data, settings, validation=away, mode=FLOAT32)
    assert outcome.steps == 40
    assert not outcome.stopped_early
    losses = [r["validation"] for r in outcome.log if "validation" in r]
    assert -model.generative().log_prob(away.x).mean().item() == pytest.approx(min(losses), rel=1e-5)


def test_last_weights_count_when_they_are_the_best(tmp_path):
    """Held-out data like the training data: what is learnt after the last measurement on the way is not thrown away."""
    data = normal_data()
    settings = dataclasses.replace(QUICK, steps=47, lr=0.02, batch=64, validate_every=40, keep_best=True, ema=0.0)
    models = [Model(DataSpec((2,)), Normal(), Inference(), Likelihood()) for _ in range(2)]
    fit(models[0], data, settings, validation=data, folder=tmp_path, mode=FLOAT32)
    fit(models[1], data, dataclasses.replace(settings, validate_every=0, keep_best=False), mode=FLOAT32)
    assert torch.equal(models[0].generative.mean, models[1].generative.mean)
    vae = small_vae()
    fit(
        vae,
        digits(),
        dataclasses.replace(settings, batch=8),
        validation=digits(),
        folder=tmp_path / "vae",
        mode=FLOAT32,
    )
    assert checkpoint.newest(tmp_path / "vae" / "checkpoints")[1].about["last_is_best"]
    loaded, _ = restored(tmp_path / "vae", lambda recipe, spec: small_vae(7))
    assert all(torch.equal(t, storage.state(vae)[k]) for k, t in storage.state(loaded).items())


def test_rates():
    settings = Settings(steps=100, warmup=9, schedule="cosine", horizon=109)
    assert settings.rate(0) == pytest.approx(0.1)
    assert settings.rate(9) == pytest.approx(1.0)
    assert settings.rate(59) == pytest.approx(0.5)
    assert settings.rate(109) == settings.rate(500) == pytest.approx(0.0)
    falling = Settings(steps=140, warmup=0, schedule="exponential", horizon=140)
    assert [falling.rate(k) for k in (0, 1, 70, 140, 500)] == pytest.approx([0.98**e for e in (0, 1, 70, 140, 140)])
    assert Settings(warmup=9).rate(10**6) == 1.0
    assert math.isclose(Settings(warmup=0).rate(0), 1.0)


def test_measuring_leaves_no_trace():
    model, data = small_vae(), digits()
    before = {k: t.detach().clone() for k, t in storage.state(model).items()}
    settings = QUICK.resolved(model, 64)
    random = torch.random.get_rng_state()
    speed = fastest(model, data, settings, budget=0.05)
    assert speed.seconds > 0
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(t, before[k]) for k, t in storage.state(model).items())
    auto = dataclasses.replace(settings, precision="auto", channels_last="auto")
    assert candidates(model, auto)[0] == FLOAT32
    fit(model, data, dataclasses.replace(auto, steps=3))


def test_nothing_is_measured_where_one_arithmetic_is_left(monkeypatch):
    monkeypatch.delattr(measure, "fastest")
    fit(small_vae(), digits(), dataclasses.replace(QUICK, precision="float32", channels_last="no", steps=2))
    monkeypatch.setattr(measure, "candidates", lambda *_: [FLOAT32, FLOAT32])
    with pytest.raises(NameError, match="fastest"):
        fit(small_vae(), digits(), dataclasses.replace(QUICK, steps=2))


def test_global_noise_is_left_alone():
    random = torch.random.get_rng_state()
    fit(Model(DataSpec((2,)), Normal(), Inference(), Likelihood()), normal_data(), QUICK)
    assert torch.equal(random, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps >= 1"),
        ({"lr": 0.0}, "lr > 0"),
        ({"lr": float("nan")}, "lr"),
        ({"ema": 1.0}, "ema in"),
        ({"patience": 2}, "set validate_every"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Settings(**settings)


def test_what_does_not_fit_the_data_or_machine_is_refused():
    model = Model(DataSpec((2,)), Normal(), Inference(), Likelihood())
    with pytest.raises(ValueError, match="batch of at most 256"):
        fit(model, normal_data(), dataclasses.replace(QUICK, batch=257))
    with pytest.raises(ValueError, match="no device 'cuda:7'"):
        fit(model, normal_data(), dataclasses.replace(QUICK, device="cuda:7"))
    with pytest.raises(ValueError, match="needs held-out data"):
        fit(model, normal_data(), dataclasses.replace(QUICK, validate_every=3))


def test_point_generator_has_a_batch_like_any():
    """A likelihood that is a point, under a prior: what a generator of an adversarial model is."""

    class Double(Conditional):
        def forward(self, z, *, y=None):
            return Point(2 * z)

    model = Model(DataSpec((2,)), LatentVariable(StandardNormal(2), Double()), Inference(), Duel())
    assert model.sample(5, seed=1).shape == (5, 2)
    assert torch.equal(model.sample(5, seed=1), model.sample(5, seed=1))
    assert Batch(torch.zeros(1)).y is None
