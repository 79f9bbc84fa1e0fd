"""The loop over tasks: what survives, what does not, and exact resume wherever it is cut."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from genrep import storage
from genrep.continual import loop
from genrep.continual.strategies import build, names, options
from genrep.continual.strategy import Phase, Setting, Strategy, extended, ledger, memory
from genrep.contracts import Objective
from genrep.training.loop import fit
from tests.continual.known import QUICK, image_stream, normal, normal_stream, vae

STREAM = normal_stream()
SETTING = Setting(normal, STREAM.spec, (60, 60, 60))


class Cut(Exception):
    """A process that is killed."""


class Counted(Objective):
    """No penalty, but buffers that a hook changes: they belong to the run."""

    terms = {"nothing": 1.0}

    def __init__(self):
        super().__init__(learns=())
        self.register_buffer("path", torch.zeros(2))
        self.register_buffer("tasks", torch.zeros((), dtype=torch.int64))

    def forward(self, model, batch, player="model"):
        return {"nothing": (0 * model.generative.mean.sum())}


class Tracer(Strategy):
    """Two phases per task, with hooks, a start and a finish that all leave a trace."""

    kept = ("model", "counted")
    cut = (-1, -1, -1)  # task, phase, update

    def __init__(self):
        super().__init__()
        self.model, self.counted = normal(), Counted()

    def learn(self, task, data):
        view = extended(self.model, 0, self.counted)

        def after(phase):
            def hook(step):
                self.counted.path += self.model.generative.mean.grad
                if Tracer.cut == (task, phase, step):
                    raise Cut

            return hook

        def start():
            with torch.no_grad():
                self.model.generative.mean += torch.randn(2) / 10

        def finish():
            self.counted.tasks += 1
            if Tracer.cut == (task, 0, "finish"):
                raise Cut

        first = Phase(view, lambda: data, finish=finish, fit={"after_update": after(0)})
        return [first, Phase(view, lambda: data, start=start, fit={"after_update": after(1), "lr": 0.1})]


@pytest.mark.parametrize("cut", [(0, 0, 3), (1, 0, "finish"), (1, 1, 2), (2, 1, 5)])
def test_resume_is_exact_wherever_it_is_cut(tmp_path, cut):
    settings = dataclasses.replace(QUICK, checkpoint_seconds=0.0)
    whole = loop.run(Tracer, STREAM, settings, folder=tmp_path / "whole")
    Tracer.cut = cut
    try:
        with pytest.raises(Cut):
            loop.run(Tracer, STREAM, settings, folder=tmp_path / "cut")
    finally:
        Tracer.cut = (-1, -1, -1)
    torch.manual_seed(99)
    seen = []
    again = loop.run(Tracer, STREAM, settings, folder=tmp_path / "cut", after=lambda s, t, b: seen.append(t))
    assert seen == list(range(max(0, cut[0] - 1), 3)), "the last finished task is reported again"
    for name, t in storage.state(whole).items():
        assert torch.equal(t, storage.state(again)[name]), name
    assert whole.counted.tasks == 3
    assert whole.counted.path.abs().sum() > 0
    assert not list((tmp_path / "cut").rglob("after*")), "what is done is tidied"
    done = loop.run(Tracer, STREAM, settings, folder=tmp_path / "cut")
    assert torch.equal(done.model.generative.mean, whole.model.generative.mean), "a finished run is only read"


@pytest.mark.parametrize(("steps", "warmup", "rising"), [(30, None, 3), (30, 20, 20), (4, None, 0), (2000, None, 100)])
def test_a_short_phase_is_not_all_warm_up(tmp_path, steps, warmup, rising):
    settings = dataclasses.replace(QUICK, steps=steps, warmup=warmup, log_every=1)
    loop.learn(build("finetune", SETTING), 0, STREAM.tasks[0].train, settings, folder=tmp_path)
    log = (tmp_path / "tasks/000/phase0/log.jsonl").read_text().splitlines()[:150]
    rates = [json.loads(line)["lr"]["model"] for line in log]
    assert rates == pytest.approx([1e-3 * min(1, (n + 1) / (rising + 1)) for n in range(len(log))])


def test_a_run_without_a_folder_is_the_same(tmp_path):
    one, two = (loop.run(Tracer, STREAM, QUICK, folder=f) for f in (None, tmp_path / "run"))
    assert torch.equal(one.model.generative.mean, two.model.generative.mean)


class Thief(Strategy):
    """Tries to carry the data of the first task over: in attributes, closures, views and buffers."""

    found = []

    def __init__(self):
        super().__init__()
        self.model, self.pocket = normal(), nn.Module()
        self.pocket.register_buffer("x", torch.zeros(60, 2))
        self.stolen, self.hidden = [], {}

    def learn(self, task, data):
        Thief.found.append((task, list(self.stolen), dict(self.hidden), self.pocket.x.abs().sum().item()))

        def finish():
            self.stolen.append(data)
            self.hidden["x"] = lambda: data.x
            self.pocket.x.copy_(data.x)
            self.model.extra = data

        return [Phase(self.model, lambda: data, finish=finish)]


def test_old_data_are_out_of_reach():
    Thief.found.clear()
    strategy = loop.run(Thief, STREAM, QUICK)
    assert Thief.found == [(t, [], {}, 0.0) for t in range(3)]
    assert "extra" not in vars(strategy.model)
    assert strategy.pocket.x.abs().sum() == 0


def test_what_is_declared_survives_and_is_counted():
    class Honest(Thief):
        kept = ("model", "pocket")

    Thief.found.clear()
    strategy = loop.run(Honest, STREAM, QUICK)
    assert [pocket > 0 for *_, pocket in Thief.found] == [False, True, True]
    assert torch.equal(strategy.pocket.x, STREAM.tasks[2].train.x)
    assert ledger(strategy) == {"model": 8, "pocket": 60 * 2 * 4}


def test_state_that_grows_is_refused():
    class Growing(Thief):
        kept = ("model", "pocket")

        def learn(self, task, data):
            def finish():
                self.pocket.x = torch.cat([self.pocket.x, data.x])

            return [Phase(self.model, lambda: data, finish=finish)]

    with pytest.raises(ValueError, match=r"expected pocket.x to be \(60, 2\)"):
        loop.run(Growing, STREAM, QUICK)


def test_another_stream_is_refused(tmp_path):
    loop.run(Tracer, normal_stream(2), QUICK, folder=tmp_path)
    with pytest.raises(ValueError, match="another stream"):
        loop.run(Tracer, STREAM, QUICK, folder=tmp_path)
    with pytest.raises(ValueError, match="another seed"):
        loop.run(Tracer, normal_stream(2), dataclasses.replace(QUICK, seed=4), folder=tmp_path)


def test_shared_tensors_count_once():
    strategy = Tracer()
    strategy.view = extended(strategy.model, 0, strategy.counted)
    strategy.kept = ("view", "model")
    assert ledger(strategy) == {"view": 8 + 8 + 8, "model": 0}
    assert len(memory(strategy)) == 3


def test_finetune_is_plain_training():
    """Task after task of `fit`, with the seeds of the positions."""
    stream = image_stream()
    sizes = tuple(len(t.train) for t in stream.tasks)
    found = loop.run(lambda: build("finetune", Setting(vae, stream.spec, sizes)), stream, QUICK)
    plain = vae()
    for t, task in enumerate(stream.tasks):
        fit(plain, task.train, dataclasses.replace(QUICK, seed=loop.phase_seed(QUICK.seed, t, 0)))
    for name, w in storage.state(plain).items():
        assert torch.equal(w, storage.state(found.model)[name]), name


def test_registry():
    assert "finetune" in names()
    assert options("finetune") == {}
    with pytest.raises(ValueError, match="Did you mean 'finetune'"):
        build("fintune", SETTING)
    with pytest.raises(ValueError, match="option of finetune"):
        build("finetune", SETTING, weight=1.0)
