"""BinPlay: phases that keep what they should."""

import dataclasses
from functools import partial

import pytest
import torch

from genrep import storage
from genrep.continual import loop
from genrep.continual.binary import Assigning, SoftTargets
from genrep.continual.codes import Codes, word_for
from genrep.continual.strategies import build
from genrep.continual.strategies.binplay import BinPlay
from genrep.continual.strategy import Setting, ledger
from genrep.contracts import Batch, DataSpec, Unsupported, seeded
from genrep.data.batches import InMemory, Order
from genrep.data.splits import Splits
from genrep.data.streams import class_incremental
from genrep.models import build as build_model
from tests.continual.known import QUICK, image_stream, vae

IMAGES = image_stream()
SIZES = tuple(len(t.train) for t in IMAGES.tasks)
SMALL = {"assignment": "greedy", "width": 16, "network": "dense", "depth": 1, "bits": 40}


def classifier(spec=IMAGES.spec):
    torch.manual_seed(0)
    return build_model("classifier", spec, width=8, network="dense", embedding=4)


def strategy(stream=IMAGES, **how):
    sizes = tuple(len(t.train) for t in stream.tasks)
    with seeded(3):
        return build("binplay", Setting(lambda: classifier(stream.spec), stream.spec, sizes, 3), **(SMALL | how))


def test_too_few_codes_say_the_least_that_works():
    for examples, bits, least in ((60_000, 20, 26), (257, 18, 19), (1_000_000, 29, 30)):
        with pytest.raises(ValueError, match=f"expected bits >= {least}"):
            Codes(bits, examples)
        Codes(least, examples)
    with pytest.raises(ValueError, match="3 bits are too few for 9 tasks: expected at least 4"):
        Codes(40, 9, tasks=9, task_bits=3)
    with pytest.raises(ValueError, match="expected bits >= 18"):
        strategy(bits=17)
    assert word_for(sum(SIZES)) == 8


# ---- assignment ----


def test_an_epoch_takes_every_code_once():
    """Over batches that cross the borders of epochs, at any size of batch."""
    data = IMAGES.tasks[0].train
    subject = strategy()
    objective = subject.local.objectives[1]
    assert isinstance(objective, Assigning)
    objective.codes = (subject.codes_of(torch.arange(len(data))),)
    objective.training = True
    for batch in (7, 50, len(data)):
        objective.taken.zero_()
        order = Order(len(data), batch=batch, seed=1)
        given = [objective.choose(torch.randn(batch, 40), objective.codes[0]) for _ in map(order, range(3 * len(data)))]
        for epoch in torch.cat(given).split(len(data))[:3]:
            assert len(epoch.unique()) == len(data)


@pytest.mark.parametrize("cut", [(0, 0, 1), (0, 1, 3), (0, 2, 1), (1, 1, 2), (1, 2, 5), (1, 3, 1)])
def test_resume_is_exact_in_every_phase(cut, tmp_path, monkeypatch):
    settings = dataclasses.replace(QUICK, steps=24, checkpoint_seconds=0)
    whole = storage.state(loop.run(strategy, IMAGES, settings))
    fit = loop.training.fit
    position = [-1]

    def cut_short(model, data, how, **more):
        position[0] += 1
        if position[0] == 4 * cut[0] + cut[1]:
            fit(model, data, dataclasses.replace(how, steps=cut[2], horizon=how.steps), **more)
            raise KeyboardInterrupt
        return fit(model, data, how, **more)

    monkeypatch.setattr(loop.training, "fit", cut_short)
    with pytest.raises(KeyboardInterrupt):
        loop.run(strategy, IMAGES, settings, folder=tmp_path)
    monkeypatch.setattr(loop.training, "fit", fit)
    again = storage.state(loop.run(strategy, IMAGES, settings, folder=tmp_path))
    for name, t in whole.items():
        assert torch.equal(t, again[name]), name


def test_steps_of_a_task_are_shared(monkeypatch):
    taken = []
    fit = loop.training.fit
    monkeypatch.setattr(loop.training, "fit", lambda m, d, s, **k: taken.append(s.steps) or fit(m, d, s, **k))
    loop.run(strategy, IMAGES, dataclasses.replace(QUICK, steps=20))
    assert [sum(taken[:4]), sum(taken[4:])] == [20, 20]
    taken.clear()
    loop.run(lambda: strategy(assignment="semantic"), IMAGES, dataclasses.replace(QUICK, steps=20))
    assert len(taken) == 4
    assert sum(taken) == 40
    with pytest.raises(ValueError, match="at least 4 steps"):
        loop.run(strategy, IMAGES, dataclasses.replace(QUICK, steps=3))


def trained(task, **how):
    """A strategy that has learnt the tasks before, the phases of this one, and what it recalled before."""
    stream = IMAGES
    subject = strategy(**how)
    for t in range(task):
        kept = learnt(subject, t, stream)
        subject = loop.revived(lambda: strategy(**how), kept, "cpu")
    return subject, subject.learn(task, stream.tasks[task].train)


@torch.no_grad()
def recall(subject, n):
    return subject.coder.decode(subject.codes_of(torch.arange(n)))


def every(data):
    """All of a Data, computed one way and the other."""
    due = data[torch.arange(len(data)).flip(0)]
    data.expect(len(data))
    found = data[torch.arange(len(data))]
    torch.testing.assert_close(due.x.flip(0).float(), found.x.float(), atol=1.0, rtol=0)  # of 255 levels
    torch.testing.assert_close(due.y.flip(0), found.y, atol=1e-3, rtol=0)
    return found


def learnt(subject, task, stream):
    loop.learn(subject, task, stream.tasks[task].train, dataclasses.replace(QUICK, steps=40))
    return loop.survived(subject)


def test_old_pairs_come_from_the_decoder_as_it_was():
    """Of earlier tasks (code, frozen decoder's output) is learnt, of this one (code, image), each number once."""
    subject, phases = trained(1, assignment="order")
    before, codes = recall(subject, SIZES[0]), subject.codes_of(torch.arange(SIZES[0]))
    assert len(phases) == 2
    phases[0].start()
    with torch.no_grad():
        for p in subject.coder.parameters():
            p.add_(1.0)  # training goes on: what was recalled stays
    assert len(phases[0].data()) == sum(SIZES), "uniform over numbers: as many pairs as there are numbers"
    pairs = every(phases[0].data())
    assert torch.equal(pairs.x[: SIZES[0]], before)
    assert torch.equal(pairs.y[: SIZES[0]].float(), codes)
    assert torch.equal(pairs.x[SIZES[0] :], IMAGES.tasks[1].train.x)
    assert len(pairs.y.unique(dim=0)) == sum(SIZES)


@pytest.mark.parametrize("assignment", ["greedy", "semantic"])
def test_images_stand_with_their_codes_and_labels(assignment):
    subject, phases = trained(0, assignment=assignment, new="original")
    loop.learn(subject, 0, IMAGES.tasks[0].train, dataclasses.replace(QUICK, steps=12))
    data, place = IMAGES.tasks[0].train, subject.place[: SIZES[0]]
    assert torch.equal(place.sort().values, torch.arange(SIZES[0]))
    found = every(subject.learn(0, data)[-1].data())
    assert torch.equal(found.x[place], data.x)
    assert torch.equal(found.y[place].argmax(1), data.y)
    assert torch.equal(found.y.sum(1), torch.ones(SIZES[0]))
    assert len(phases) == (4 if assignment == "greedy" else 2)


def test_soft_targets_are_those_of_the_frozen_classifier():
    subject, phases = trained(1, assignment="order")
    loop._fit(phases[0], loop._settings(QUICK, phases[0], 1, 0), None, progress=False)
    expected = subject.model.inference.label(subject.model.domain.inward(recall(subject, SIZES[0]))).logits.softmax(1)
    examples = every(phases[1].data())
    torch.testing.assert_close(examples.y[: SIZES[0]], expected.detach())
    lazy = phases[1].data()
    with torch.no_grad():
        for p in subject.model.parameters():
            p.mul_(2.0)
    torch.testing.assert_close(every(lazy).y[: SIZES[0]], expected.detach())
    _, others = trained(1, assignment="order", targets="hard")
    others[0].start()
    assert set(every(others[1].data()).y.unique().tolist()) == {0.0, 1.0}


def test_soft_cross_entropy_and_squared_error():
    model = classifier()
    x = IMAGES.tasks[0].train.x[:6]
    logits = model.inference.label(model.domain.inward(x)).logits
    y = torch.nn.functional.one_hot(torch.tensor([0, 1, 2, 3, 0, 0]), 4).float()
    y[5] = 0  # an unknown label
    found = SoftTargets("cross_entropy")(model, Batch(x, y))["cross_entropy"]
    expected = torch.nn.functional.cross_entropy(logits[:5], y[:5].argmax(1), reduction="none")
    torch.testing.assert_close(found[:5], expected)
    assert found[5] == 0
    squared = SoftTargets("squared_error")(model, Batch(x, y))["squared_error"]
    torch.testing.assert_close(squared[:5], (logits.softmax(1) - y).square().sum(1)[:5])
    assert squared[5] == 0
    mine = SoftTargets("cross_entropy")(model, Batch(x, logits.softmax(1)))["cross_entropy"]
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(mine, entropy)  # least, where the targets are its own


def test_only_decoder_classifier_and_counters_are_kept():
    subject, _ = trained(0)
    decoder = sum(p.nbytes for p in subject.coder.generative.parameters())
    base = sum(p.nbytes for p in subject.model.parameters())
    assert ledger(subject) == {"model": base, "coder.generative": decoder, "numbers": 8 * len(SIZES)}
    kept = learnt(subject, 0, IMAGES)
    assert not any("inference.latent" in name for name in kept), "the encoder goes"
    images = {IMAGES.tasks[0].train.x[0].numpy().tobytes()}
    assert not any(row.numpy().tobytes() in images for t in kept.values() if t.ndim == 4 for row in t)
    again = loop.revived(strategy, kept, "cpu")
    assert isinstance(again, BinPlay)
    assert again.numbers.counts.tolist() == [SIZES[0], 0]
    assert torch.equal(recall(again, 9), recall(subject, 9))
    assert torch.equal(again.recalled(0, 5), recall(subject, 5))


@pytest.mark.parametrize("decoder", ["adjust", "anew", "local"])
def test_where_the_decoder_starts(decoder):
    subject, phases = trained(1, decoder=decoder)
    before = storage.state(subject.coder.generative)["likelihood.net.layers.0.weight"].detach().clone()
    with seeded(3):
        start = storage.state(subject._autoencoder().generative)["likelihood.net.layers.0.weight"].detach()
    phases[0].start()
    with torch.no_grad():
        for p in subject.local.generative.parameters():
            p.fill_(0.5)
    phases[1].start()
    phases[2].start()
    now = storage.state(subject.coder.generative)["likelihood.net.layers.0.weight"].detach()
    expected = {"adjust": before, "anew": start, "local": torch.full_like(before, 0.5)}[decoder]
    assert torch.equal(now, expected)


def test_the_same_seed_gives_the_same_weights():
    runs = [loop.run(strategy, IMAGES, QUICK) for _ in range(2)]
    for name, t in storage.state(runs[0]).items():
        assert torch.equal(t, storage.state(runs[1])[name]), name


@pytest.mark.slow
def test_it_remembers_what_fine_tuning_forgets():
    """Four classes in two tasks, with noise: after the second, the first is recalled and still told apart."""
    settings = dataclasses.replace(QUICK, steps=400, batch=32)
    stream, found = image_stream(), {}

    def model():
        torch.manual_seed(0)
        return build_model("classifier", IMAGES.spec, width=64, network="dense", embedding=32)

    for name in ("finetune", "binplay"):
        how = SMALL | {"width": 128} if name == "binplay" else {}
        setting = Setting(model, stream.spec, SIZES, 3)
        done = loop.run(partial(build, name, setting, **how), stream, settings)
        test = stream.tasks[0].test
        logits = done.model.inference.label(done.model.domain.inward(test.x)).logits
        found[name] = float((logits.argmax(1) == test.y).float().mean())
    assert found["finetune"] < 0.6
    assert found["binplay"] > 0.9


def test_vectors_and_colours():
    torch.manual_seed(0)
    for shape, levels in (((3,), None), ((3, 9, 8), 256)):
        spec = DataSpec(shape, levels, classes=2, mean=(1.0,) * 3 if levels is None else (), std=(2.0,) * 3)
        spec = spec if levels is None else spec._replace(std=())
        parts = []
        for n in (40, 10, 10):
            x = torch.randn(n, *shape) * 2 + 1 if levels is None else torch.randint(0, 256, (n, *shape)).byte()
            parts.append(InMemory(x, torch.arange(n) % 2, spec))
        stream = class_incremental(Splits("any", *parts, {"class_names": ["a", "b"]}), 2)
        done = loop.run(partial(strategy, stream, network="auto", width=8, depth=1), stream, QUICK)
        assert recall(done, 40).shape == (40, *shape)
        assert recall(done, 40).dtype == stream.tasks[0].train.x.dtype


def test_what_it_refuses():
    with pytest.raises(Unsupported, match="Strategy binplay needs a model that can classify"):
        build("binplay", Setting(vae, IMAGES.spec, SIZES))
    with pytest.raises(ValueError, match="labels"):
        build("binplay", Setting(classifier, IMAGES.spec._replace(classes=0), SIZES))
    for how, message in (
        ({"encoder_share": 0.6, "decoder_share": 0.5}, "a rest for the classifier"),
        ({"assignment": "semantic", "decoder": "local"}, "needs an encoder"),
        ({"assignment": "gredy"}, "assignment"),
        ({"weight": 0.0}, "weight > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            strategy(**how)
