"""Mathematics of the strategies for variational autoencoders."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import distributions as td
from torch.func import functional_call

from genrep import storage
from genrep.continual import loop
from genrep.continual.bayesian import WeightRate, posteriors, randomise
from genrep.continual.binary import SoftTargets
from genrep.continual.coders import Taught, only
from genrep.continual.hypernetwork import Unchanged
from genrep.continual.memory import Counts
from genrep.continual.penalty import loss
from genrep.continual.replay import Memories
from genrep.continual.strategies import build
from genrep.continual.strategies.lifelong_vae import Consistency
from genrep.continual.strategies.lifelong_vaegan import Dreaming
from genrep.continual.strategies.replay_feedback import Head
from genrep.continual.strategy import Setting, ledger, viewed
from genrep.contracts import Batch, Unsupported
from genrep.data.streams import by_task
from genrep.models import build as build_model
from tests.continual.known import QUICK, image_stream, normal, normal_stream, vae

IMAGES = image_stream()
TOLD = by_task(IMAGES)
BATCH = IMAGES.tasks[0].train[torch.arange(16)]


def told_vae(name="vae"):
    torch.manual_seed(0)
    return build_model(name, TOLD.spec, latent=3, width=8, network="dense", conditional=True)


def setting(make=vae, stream=IMAGES):
    return Setting(make, stream.spec, tuple(len(t.train) for t in stream.tasks), 3)


# ---- replay through feedback ---------------------------------------------------------------------------------------


def test_soft_labels_are_cross_entropy():
    model = build("replay_feedback", setting()).model
    x, y = BATCH
    logits = model.inference.label(model.domain.inward(x)).logits
    hard, loss = torch.nn.functional.one_hot(y, 4).float(), SoftTargets("cross_entropy", 2.0, learns=("inference",))
    terms = loss(model, Batch(x, hard))
    torch.testing.assert_close(terms["cross_entropy"], torch.nn.functional.cross_entropy(logits, y, reduction="none"))
    own = loss(model, Batch(x, logits.softmax(1)))["cross_entropy"]
    torch.testing.assert_close(own, td.Categorical(logits=logits).entropy(), msg="least at its own opinion")
    assert loss(model, Batch(x, torch.zeros(16, 4)))["cross_entropy"].abs().sum() == 0, "unknown labels teach nothing"


def test_the_head_does_not_see_the_label_it_tells():
    model = told_vae()
    head, x = Head(model.inference.latent, 3, 2), torch.rand(5, 1, 8, 8)
    assert torch.equal(head(x, y=torch.zeros(5, dtype=torch.int64)).logits, head(x, y=torch.ones(5).long()).logits)
    assert not torch.equal(
        model.inference.latent(x, y=torch.zeros(5).long()).mean, model.inference.latent(x, y=torch.ones(5).long()).mean
    )


def test_replays_carry_the_opinion_of_the_frozen_model():
    strategy = build("replay_feedback", setting(), share=0.5)
    strategy.counts.add(IMAGES.tasks[0].train)
    frozen = copy.deepcopy(strategy.model)
    (phase,) = strategy.learn(1, IMAGES.tasks[1].train)
    mixed = phase.data()
    with torch.no_grad():
        for p in strategy.model.parameters():
            p.add_(1)
    torch.manual_seed(0)
    x, y = mixed[torch.arange(10)]
    assert y.shape == (10, 4)
    torch.testing.assert_close(y.sum(1), torch.ones(10))
    assert torch.equal(y[:5], torch.nn.functional.one_hot(IMAGES.tasks[1].train.y[5:10], 4).float()), "new ones first"
    torch.testing.assert_close(y[5:], frozen.inference.label(x[5:]).probs)


@pytest.mark.slow
def test_feedback_keeps_what_it_could_classify():
    settings = dataclasses.replace(QUICK, steps=150, batch=32, lr=3e-3, ema=0.9)

    def accuracy(steps_of_replay):
        s = loop.run(lambda: build("replay_feedback", setting(), share=steps_of_replay), IMAGES, settings)
        x, y = IMAGES.tasks[0].test[torch.arange(60)]
        return float((s.model.inference.label(s.model.domain.inward(x)).logits.argmax(1) == y).float().mean())

    assert accuracy(0.5) > accuracy(1e-9) + 0.3


# ---- VCL -----------------------------------------------------------------------------------------------------------


def test_weight_rate_is_the_divergence_of_posteriors():
    """In closed form against torch's own and against Monte Carlo; zero where the prior is the posterior."""
    model = normal()
    randomise([model.generative], 0.5)
    with torch.no_grad():
        model.generative.parametrizations["mean"].original.copy_(torch.tensor([1.0, -2.0]))
    rate, (q,) = WeightRate(model.generative, 1.0, 7), posteriors(model.generative)
    rate.start_from(2.0)
    found = rate(model, Batch(torch.zeros(1, 2)))["weights"]
    mine, prior = td.Normal(q.mean, q.stddev), td.Normal(torch.zeros(2), 2 * torch.ones(2))
    torch.testing.assert_close(found, td.kl_divergence(mine, prior).sum() / 7)
    torch.manual_seed(0)
    w = mine.sample((200_000,))
    assert (mine.log_prob(w) - prior.log_prob(w)).sum(1).mean().item() / 7 == pytest.approx(found.item(), rel=0.01)
    rate.start_from(None)
    assert rate(model, Batch(torch.zeros(1, 2)))["weights"].item() == pytest.approx(0, abs=1e-7)


def test_two_tasks_in_turn_are_both_at_once():
    """p(x | w) = N(w, 1), p(w) = N(0, 1): after both tasks q(w) = N(sum x / (n + 1), 1 / (n + 1))."""
    torch.manual_seed(0)
    model, seen = normal(), []
    randomise([model.generative], 1.0)
    for t, task in enumerate(normal_stream(2, 5).tasks):
        x = task.train.x
        seen.append(x)
        rate = WeightRate(model.generative, 1.0, len(x))
        rate.start_from(None if t else 1.0)
        optimiser = torch.optim.Adam(model.parameters(), 0.04)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 800)
        model.train()
        for _ in range(800):
            optimiser.zero_grad()
            total = loss(model, Batch(x)) + rate(model, Batch(x))["weights"]
            total.backward()
            optimiser.step()
            schedule.step()
    every, (q,) = torch.cat(seen), posteriors(model.generative)
    torch.testing.assert_close(q.mean, every.sum(0) / 11, atol=0.05, rtol=0)
    torch.testing.assert_close(q.stddev, torch.full((2,), 11**-0.5), rtol=0.1, atol=0)


def test_one_task_is_a_bayesian_autoencoder():
    """The loss of the phase is E_q(w)[loss of the VAE with weights w] + weight KL(q || N(0, prior_std)) / n."""
    plain, strategy = vae(), build("vcl", setting(), weight=1.0, std=0.1, prior_std=0.5)
    (phase,) = strategy.learn(0, IMAGES.tasks[0].train)
    phase.start()
    objective, view = only(phase.model), phase.model
    view.train()
    torch.manual_seed(0)
    with torch.no_grad():
        mine = torch.stack([objective.total(view(BATCH)) for _ in range(400)])
    names = [n for n, _ in plain.named_parameters() if "likelihood" in n and "layers.0." not in n]
    values, divergence = [], 0.0
    for name in names:
        w = td.Normal(plain.get_parameter(name).detach(), 0.1)
        divergence += td.kl_divergence(w, td.Normal(0.0, 0.5)).sum().item()
    with torch.no_grad():
        for _ in range(400):
            drawn = {n: p + 0.1 * torch.randn_like(p) for n, p in plain.named_parameters() if n in names}
            values.append(only(plain).total(functional_call(plain, drawn, (BATCH,))))
    theirs = torch.stack(values)
    error = math.hypot(float(mine.std()), float(theirs.std())) / 20
    assert float(mine.mean()) == pytest.approx(float(theirs.mean()) + divergence / 120, abs=3 * error)
    assert error < 0.02 * float(mine.mean())


def test_samples_use_the_means_and_tasks_share_the_decoder_alone():
    plain = vae().eval()
    found = loop.run(lambda: build("vcl", setting()), IMAGES, QUICK)
    first = build("vcl", setting()).eval()
    z = torch.randn(4, 3)
    torch.testing.assert_close(first.model_for(1).decode(z), plain.decode(z))
    a, b = (found.model_for(t).generative.likelihood.net.layers for t in range(2))
    assert a[2] is b[2]
    assert a[4] is b[4]
    assert not torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(found.model_for(0).encode(BATCH.x), found.model_for(1).encode(BATCH.x))


# ---- HyperCL -------------------------------------------------------------------------------------------------------


def test_what_is_written_starts_as_the_model_and_is_what_is_used():
    plain, strategy = vae().eval(), build("hypercl", setting(), chunk=50).eval()
    z = torch.randn(4, 3)
    for t in range(2):
        torch.testing.assert_close(strategy.model_for(t).decode(z), plain.decode(z))
    with torch.no_grad():
        strategy.hyper.body.layers[-1].weight.normal_()
    written = strategy.model_for(1).generative.likelihood.weights()
    assert written.keys() == dict(plain.generative.likelihood.named_parameters()).keys()
    plain.generative.likelihood.load_state_dict(written)
    torch.testing.assert_close(strategy.model_for(1).decode(z), plain.decode(z))
    assert not torch.equal(strategy.model_for(0).decode(z), plain.decode(z)), "each task has a code"


def test_the_penalty_is_zero_where_nothing_changed_and_by_hand_elsewhere():
    strategy = build("hypercl", setting(stream=image_stream(4)), hidden=5, chunk=100)
    hyper = strategy.hyper
    torch.manual_seed(0)
    with torch.no_grad():
        hyper.body.layers[-1].weight.normal_()
    penalty = Unchanged(hyper, 1.0, 3)
    assert penalty(strategy.model, BATCH) == {}, "it has not started"
    penalty.start()
    value = penalty(strategy.model, BATCH)["unchanged"]
    assert value == 0
    assert all(not g.any() for g in torch.autograd.grad(value, list(hyper.body.parameters())))
    before = [hyper(t).detach() for t in range(4)]
    with torch.no_grad():
        hyper.tasks[3].values.add_(1.0)
    assert penalty(strategy.model, BATCH)["unchanged"] == 0, "the code of the new task is free"
    with torch.no_grad():
        hyper.body.layers[-1].weight.add_(0.1)
    by_hand = sum(0.5 * (hyper(t).detach() - before[t]).square().sum().item() for t in range(3)) / 3
    assert penalty(strategy.model, BATCH)["unchanged"].item() == pytest.approx(by_hand, rel=1e-5)


def test_a_large_penalty_keeps_what_earlier_tasks_are_given():
    settings = dataclasses.replace(QUICK, steps=40, lr=1e-2, ema=0.0)
    z = torch.randn(4, 3)

    def moved(weight):
        first = loop.run(lambda: build("hypercl", setting(), weight=weight), _cut(IMAGES, 1), settings)
        both = loop.run(lambda: build("hypercl", setting(), weight=weight), IMAGES, settings)
        return float((first.model_for(0).decode(z).float() - both.model_for(0).decode(z).float()).abs().mean())

    assert moved(1e3) < 0.3 * moved(1e-6)


def _cut(stream, tasks):
    return stream._replace(tasks=stream.tasks[:tasks])


def test_the_size_of_the_network_does_not_depend_on_the_tasks():
    sizes = {n: sum(ledger(build("hypercl", setting(stream=image_stream(n)))).values()) for n in (1, 2, 4)}
    assert sizes[4] - sizes[2] == 2 * (sizes[2] - sizes[1]) == 2 * 16 * 4, "but for a code of 16 numbers each"


# ---- lifelong VAE and VAEGAN ---------------------------------------------------------------------------------------


def test_consistency_is_a_divergence():
    model, teacher = vae(), vae(1)
    x = torch.rand(6, 1, 8, 8)
    z = torch.randn(6, 3)
    assert Consistency(1.0)(model, z, Batch(x), copy.deepcopy(model))["consistency"].abs().max() < 1e-5
    found = Consistency(1.0)(model, z, Batch(x), teacher)["consistency"]
    q, p = (td.Normal(d.mean, d.stddev) for d in (m.inference.latent(x) for m in (model, teacher)))
    torch.testing.assert_close(found, td.kl_divergence(q, p).sum(1))
    torch.testing.assert_close(Dreaming(1.0)(model, z, Batch(x), teacher)["dream"], -q.log_prob(z).sum(1))


def test_without_a_teacher_it_is_the_model_alone_and_with_one_a_share_is_its():
    model = vae()
    taught = Taught(only(model), Consistency(1.0))
    view = viewed(model, taught)
    torch.manual_seed(3)
    mine = view(BATCH)
    torch.manual_seed(3)
    torch.testing.assert_close(mine, model(BATCH))
    counts = Counts(IMAGES.spec)
    counts.add(IMAGES.tasks[0].train)
    taught.taught_by(Memories(model, counts), 0.25)
    terms = view(BATCH)
    assert {k: len(t) for k, t in terms.items()} == {"distortion": 16, "rate": 16, "consistency": 4}
    assert taught.total(terms) > 0
    taught.taught_by(Memories(model, counts), 1e-12)
    assert "consistency" not in view(BATCH)


def test_the_pairs_of_a_teacher_belong_together():
    model = vae().eval()
    counts = Counts(IMAGES.spec)
    counts.add(IMAGES.tasks[0].train)
    z, old = Memories(model, counts).coded(5)
    assert torch.equal(old.x, model.decode(z))
    assert old.x.dtype == torch.uint8


def test_a_critic_learns_from_what_the_teacher_draws():
    strategy = build("lifelong_vaegan", Setting(lambda: told_vae("vae_gan"), TOLD.spec, (120, 120)), share=0.5)
    strategy.counts.add(TOLD.tasks[0].train)
    (phase,) = strategy.learn(1, TOLD.tasks[1].train)
    phase.start()
    view, batch = phase.model, TOLD.tasks[1].train[torch.arange(16)]
    assert only(view).turns == ("critic", "model")
    assert view.learnable(0, "critic").keys() == {n for n, _ in view.named_parameters() if "critic" in n}
    assert "dream" not in view(batch, player="critic")
    terms = view(batch)
    assert terms["dream"].shape == (8,)
    encoder = list(view.inference.parameters())
    assert any(g is not None and g.any() for g in torch.autograd.grad(terms["dream"].sum(), encoder, allow_unused=True))


# ---- all -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["replay_feedback", "vcl", "hypercl", "curl", "lifelong_vae", "lifelong_vaegan"])
def test_what_a_model_lacks_is_named(name):
    def of(model, **options):
        return Setting(lambda: build_model(model, IMAGES.spec, **options), IMAGES.spec, (120, 120))

    with pytest.raises(Unsupported, match=f"Strategy {name} needs a model that can sample"):
        build(name, of("classifier"))
    with pytest.raises(Unsupported, match=f"Strategy {name} needs a model with a Gaussian posterior"):
        build(name, of("swae"))
    with pytest.raises(Unsupported, match=f"Strategy {name} needs a model of one stage"):
        build(name, of("two_stage_vae"))
    if name == "lifelong_vaegan":
        with pytest.raises(Unsupported, match="set model=vae_gan"):
            build(name, of("vae"))
    else:
        with pytest.raises(Unsupported, match=f"Strategy {name} needs a model of one player"):
            build(name, of("vae_gan"))


def test_bad_options_are_refused():
    for name, how in (
        ("vcl", {"std": 0.0}),
        ("vcl", {"prior_std": -1.0}),
        ("vcl", {"weight": 0.0}),
        ("hypercl", {"weight": 0.0}),
        ("hypercl", {"chunk": 0}),
        ("curl", {"components": 0}),
        ("curl", {"share": 1.0}),
        ("lifelong_vae", {"weight": -1.0}),
        ("replay_feedback", {"share": 1.0}),
        ("replay_feedback", {"weight": 0.0}),
    ):
        with pytest.raises(ValueError, match="Expected"):
            build(name, setting(), **how)


@pytest.mark.parametrize("name", ["vcl", "hypercl", "curl", "lifelong_vae", "replay_feedback"])
def test_resume_inside_a_task_is_exact(name, tmp_path, monkeypatch):
    """Cut after the third update of the second task."""
    settings = dataclasses.replace(QUICK, checkpoint_seconds=0.0)

    def strategy():
        return build(name, Setting(told_vae, TOLD.spec, (120, 120), 3), **({"poor": 10} if name == "curl" else {}))

    whole = loop.run(strategy, TOLD, settings)
    from genrep.training.trainer import Trainer

    update, calls = Trainer.update, []

    def cut(self):
        calls.append(1)
        if len(calls) == QUICK.steps + 4:
            raise RuntimeError("cut")
        return update(self)

    monkeypatch.setattr(Trainer, "update", cut)
    with pytest.raises(RuntimeError, match="cut"):
        loop.run(strategy, TOLD, settings, folder=tmp_path)
    monkeypatch.setattr(Trainer, "update", update)
    again = loop.run(strategy, TOLD, settings, folder=tmp_path)
    for key, t in storage.state(whole).items():
        assert torch.equal(t, storage.state(again)[key]), key
