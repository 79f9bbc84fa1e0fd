"""Each strategy's mathematics."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from genrep import storage
from genrep.continual import loop
from genrep.continual.memory import Counts, Examples
from genrep.continual.penalty import PathIntegral, Quadratic, fisher, loss, parameters
from genrep.continual.replay import Memories, Mixed, replay_share
from genrep.continual.strategies import build, names
from genrep.continual.strategies.agem import project
from genrep.continual.strategies.lwf import soft_cross_entropy
from genrep.continual.strategy import Setting, ledger
from genrep.contracts import Batch, DataSpec, Unsupported
from genrep.data.batches import InMemory
from genrep.data.streams import by_task, union
from genrep.models import build as build_model
from genrep.training.loop import fit
from tests.continual.known import QUICK, image_stream, normal, normal_stream, part, vae

IMAGES = image_stream()
TOLD = by_task(IMAGES)


def told_vae():
    torch.manual_seed(0)
    return build_model("vae", TOLD.spec, latent=3, width=8, network="dense", conditional=True)


def told_vae_gan():
    torch.manual_seed(0)
    return build_model("vae_gan", TOLD.spec, latent=3, width=8, network="dense", conditional=True)


def classifier():
    torch.manual_seed(0)
    return build_model("classifier", IMAGES.spec, width=8, network="dense", embedding=4)


def setting(make=vae, stream=IMAGES):
    return Setting(make, stream.spec, tuple(len(t.train) for t in stream.tasks), 3)


@pytest.mark.parametrize("name", names())
def test_every_strategy_learns_a_stream_and_repeats_itself(name, tmp_path):
    """Cut between tasks and gone on, it is the same to the bit; what it keeps is counted."""
    make, stream = (classifier, IMAGES) if name in ("lwf", "gdumb", "binplay") else (told_vae, TOLD)
    make = told_vae_gan if name == "lifelong_vaegan" else make
    extra = {"size": 40} if name in ("gdumb", "buffer", "agem") else {}

    def strategy():
        return build(name, setting(make, stream), **extra)

    whole = loop.run(strategy, stream, QUICK)
    first = dataclasses.replace(QUICK)
    with pytest.raises(RuntimeError, match="cut"):
        loop.run(strategy, stream, first, folder=tmp_path, after=cut)
    again = loop.run(strategy, stream, QUICK, folder=tmp_path)
    for key, t in storage.state(whole).items():
        assert torch.equal(t, storage.state(again)[key]), key
    assert sum(ledger(whole).values()) > 0


def cut(strategy, task, kept):
    raise RuntimeError("cut")


def test_fisher_of_a_linear_gaussian_model():
    """p(x) = N(theta, 1): d log p / d theta = x - theta, so F = mean (x - theta)^2, 1 at the truth."""
    model, data = normal(), part(0.0, 4000)
    found = fisher(model, data, 4000)[0]
    torch.testing.assert_close(found, data.x.square().mean(0), rtol=1e-4, atol=1e-4)
    assert torch.allclose(found, torch.ones(2), atol=0.1)
    with torch.no_grad():
        model.generative.mean += 2
    torch.testing.assert_close(fisher(model, data, 4000)[0], (data.x - 2).square().mean(0), rtol=1e-4, atol=1e-4)


def test_penalties_of_all_tasks_are_one():
    """The sum of quadratics has the gradient of the kept one, everywhere; and the values differ by a constant."""
    model = normal()
    penalty = Quadratic(model, 3.0)
    tasks = [
        (torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0])),
        (torch.tensor([0.5, 0.0]), torch.tensor([-1.0, 4.0])),
    ]
    for f, at in tasks:
        with torch.no_grad():
            model.generative.mean.copy_(at)
        penalty.add(model, [f])
    gaps = []
    for point in (torch.tensor([0.3, -2.0]), torch.tensor([5.0, 1.0])):
        with torch.no_grad():
            model.generative.mean.copy_(point)
        explicit = sum(3.0 * f * (point - at) for f, at in tasks)
        torch.testing.assert_close(penalty.gradients(model)[0], explicit)
        value = 3.0 * penalty(model, Batch(torch.zeros(1, 2)))["penalty"]
        (grad,) = torch.autograd.grad(value, parameters(model))
        torch.testing.assert_close(grad, explicit)
        gaps.append(value.item() - sum(1.5 * float((f * (point - at).square()).sum()) for f, at in tasks))
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-4)


def test_online_importance_decays():
    model = normal()
    penalty = Quadratic(model, 1.0)
    for f in (1.0, 2.0):
        penalty.decay_and_move(model, [torch.full((2,), f)], 0.5)
    assert torch.equal(penalty.importance.tensors[0], torch.full((2,), 2.5))


def test_path_integral_is_the_fall_of_the_loss():
    """For small steps on a quadratic, with and without a penalty that pulls elsewhere."""
    for importance in (0.0, 2.0):
        model, data = normal(), part(2.0, 60)
        penalty = Quadratic(model, 1.0)
        penalty.decay_and_move(model, [torch.full((2,), importance)])
        path = PathIntegral(model, penalty)
        path.begin()
        whole, mean = Batch(data.x), model.generative.mean
        before = loss(model, whole).item()
        for step in range(2000):
            mean.grad = torch.autograd.grad(loss(model, whole), mean)[0] + penalty.gradients(model)[0]
            path.before_update(step)
            with torch.no_grad():
                mean -= 1e-3 * mean.grad
            path.after_update(step)
        fall = before - loss(model, whole).item()
        assert fall > 0.5
        assert float(path.path.tensors[0].sum()) == pytest.approx(fall, rel=5e-3)
        moved = mean.detach().square() + 0.1
        torch.testing.assert_close(path.importance(0.1)[0], path.path.tensors[0].clamp_min(0) / moved)


def test_a_penalty_holds_weights_where_they_were():
    """With a large weight nothing moves that mattered; with a tiny one it is fine-tuning."""
    stream = normal_stream(2, 60)
    settings = dataclasses.replace(QUICK, steps=150, lr=0.05, ema=0.0)

    def mean(name, **how):
        return loop.run(lambda: build(name, setting(normal, stream), **how), stream, settings).model.generative.mean

    free = mean("finetune")
    for name in ("ewc", "online_ewc", "si"):
        held = mean(name, weight=1e4)
        assert torch.all(held < 0.5), "near the first task, whose mean is 0"
        torch.testing.assert_close(mean(name, weight=1e-6), free, rtol=1e-3, atol=1e-3)
    one = mean("ewc", weight=1.0)  # F = 1 + noise: the optimum lies between the tasks
    assert torch.all((one > 0.3) & (one < 0.8))
    assert torch.all(free > 0.8)


def test_projection():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        g, r = ([torch.randn(n, generator=generator) for n in (3, 5)] for _ in range(2))
        inner = sum(float((a * b).sum()) for a, b in zip(g, r, strict=True))
        old = [t.clone() for t in g]
        project(g, r)
        after = sum(float((a * b).sum()) for a, b in zip(g, r, strict=True))
        if inner >= 0:
            assert all(torch.equal(a, b) for a, b in zip(g, old, strict=True))
        else:
            assert after == pytest.approx(0, abs=1e-5)
            change = [a - b for a, b in zip(g, old, strict=True)]
            ratios = torch.cat([c / b for c, b in zip(change, r, strict=True)])
            assert torch.allclose(ratios, ratios[:1].expand(8), rtol=1e-3), "along the reference only"


def numbered(start, n):
    x = torch.arange(start, start + n)[:, None]
    return InMemory(x, x[:, 0] % 3, DataSpec((1,), levels=2**16, classes=3))


def test_reservoir_is_uniform():
    """Over many runs every example of two tasks is stored equally often: chi-square over 60 examples, 10 slots."""
    counts, runs = np.zeros(60), 1500
    torch.manual_seed(0)
    for _ in range(runs):
        memory = Examples(DataSpec((1,), levels=2**16, classes=3), 10)
        memory.reservoir(numbered(0, 25))
        memory.reservoir(numbered(25, 35))
        stored = memory.data().x[:, 0].numpy()
        assert len(set(stored)) == 10
        assert torch.equal(memory.data().y, memory.data().x[:, 0] % 3), "labels stay with their examples"
        counts[stored] += 1
    variance = (10 / 60) * (50 / 60) * runs  # of one count; they sum to a constant, so 59 degrees
    statistic = ((counts - runs / 6) ** 2).sum() / variance * 59 / 60
    assert stats.chi2.sf(statistic, 59) > 0.01


def test_memory_stays_balanced():
    memory = Examples(DataSpec((1,), levels=2**16, classes=3), 12)
    torch.manual_seed(0)
    x = torch.arange(100)[:, None]
    memory.balance(InMemory(x, torch.zeros(100, dtype=torch.int64), memory.spec))
    assert memory.data().y.tolist() == [0] * 12
    memory.balance(InMemory(x + 100, (torch.arange(100) > 90).long(), memory.spec))
    assert memory.data().y.bincount().tolist() == [6, 6]
    memory.balance(InMemory(x + 200, torch.full((100,), 2), memory.spec))
    assert memory.data().y.bincount(minlength=3).tolist() == [4, 4, 4]
    assert memory.data().x[memory.data().y == 2].min() >= 200
    assert len(set(memory.data().x[:, 0].tolist())) == 12


def test_replayed_share_is_exact_on_average():
    data = part(0.0, 64)
    mixed = Mixed(data, lambda k: Batch(torch.full((k, 2), 1e3)), share := replay_share(0.0, 30, 70))
    assert share == 0.3
    torch.manual_seed(0)
    counts = [int((mixed[torch.arange(7)].x[:, 0] == 1e3).sum()) for _ in range(2000)]
    assert set(counts) == {2, 3}
    assert np.mean(counts) == pytest.approx(2.1, abs=0.04)


def test_memories_are_frozen_and_draw_labels_as_seen():
    model, counts = told_vae(), Counts(TOLD.spec)
    counts.add(TOLD.tasks[0].train)
    memories = Memories(model, counts)
    torch.manual_seed(1)
    before = memories.examples(5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    counts.add(TOLD.tasks[1].train)
    torch.manual_seed(1)
    assert torch.equal(memories.examples(5).x, before.x)
    assert set(memories.examples(50).y.tolist()) == {0}, "only of tasks that were learnt"
    assert set(Memories(model, counts).examples(50).y.tolist()) == {0, 1}
    soft = memories.means(4)
    assert soft.x.is_floating_point()
    assert not any(p.requires_grad for p in memories.model.parameters())


def test_joint_training_after_the_last_task_is_training_on_the_union():
    found = loop.run(lambda: build("joint", setting()), IMAGES, QUICK)
    plain = vae()
    fit(plain, union(IMAGES.tasks, "all").train, dataclasses.replace(QUICK, seed=loop.phase_seed(QUICK.seed, 1, 0)))
    for key, w in storage.state(plain).items():
        assert torch.equal(w, storage.state(found.model)[key]), key
    data = union(IMAGES.tasks, "all").train
    assert ledger(found)["memory"] == data.nbytes + 16, "and the two counters"


def test_cumulative_goes_on():
    found = loop.run(lambda: build("cumulative", setting()), IMAGES, QUICK)
    plain = vae()
    for t in range(2):
        data = union(IMAGES.tasks[: t + 1], "so far").train
        fit(plain, data, dataclasses.replace(QUICK, seed=loop.phase_seed(QUICK.seed, t, 0)))
    assert all(torch.equal(w, storage.state(found.model)[k]) for k, w in storage.state(plain).items())


def test_separate_models_do_not_meet():
    found = loop.run(lambda: build("separate", setting()), IMAGES, QUICK)
    plain = vae()
    fit(plain, IMAGES.tasks[0].train, dataclasses.replace(QUICK, seed=loop.phase_seed(QUICK.seed, 0, 0)))
    assert all(torch.equal(w, storage.state(found.model_for(0))[k]) for k, w in storage.state(plain).items())
    assert ledger(found)["models"] == 2 * sum(t.nbytes for t in storage.state(plain).values())


def test_distillation_is_cross_entropy_and_least_at_the_teacher():
    told, said = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    by_hand = -4 * ((told / 2).softmax(1) * (said / 2).log_softmax(1)).sum(1)
    torch.testing.assert_close(soft_cross_entropy(told, said, 2.0), by_hand)
    assert (soft_cross_entropy(told, told, 2.0) < soft_cross_entropy(told, said, 2.0)).all()
    hard = 1e3 * torch.nn.functional.one_hot(torch.tensor([1, 2, 0]), 4).double()
    entropy = torch.nn.functional.cross_entropy(said, torch.tensor([1, 2, 0]), reduction="none")
    torch.testing.assert_close(soft_cross_entropy(hard, said, 1.0), entropy)


def test_what_a_model_cannot_is_refused_with_its_name():
    for name, make, what in (("lwf", vae, "classify"), ("replay", classifier, "sample"),
                             ("replay_distill", classifier, "sample")):  # fmt: skip
        with pytest.raises(Unsupported, match=f"Strategy {name} needs a model that can {what}"):
            build(name, setting(make))
    dcgan = Setting(lambda: build_model("dcgan", IMAGES.spec), IMAGES.spec, (120, 120))
    for name in ("ewc", "si", "agem", "online_ewc"):
        with pytest.raises(Unsupported, match=f"Strategy {name} needs a model of one player"):
            build(name, dcgan)
    with pytest.raises(ValueError, match="these data have no labels"):
        build("gdumb", Setting(normal, DataSpec((2,)), (60,)))
    for name, how in (("ewc", {"weight": 0.0}), ("replay", {"share": 1.0}), ("buffer", {"size": 0})):
        with pytest.raises(ValueError, match="Expected"):
            build(name, setting(), **how)
