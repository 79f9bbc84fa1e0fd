"""Streams of tasks: what the rules promise, exactly."""

import re

import numpy as np
import pytest
import torch

from genrep import data as data_sets
from genrep.contracts import DataSpec
from genrep.data.arrays import from_arrays
from genrep.data.batches import InMemory
from genrep.data.binary import Redrawn
from genrep.data.splits import SPLITS, Splits
from genrep.data.streams import (
    by_condition,
    by_task,
    class_incremental,
    dirichlet,
    held_out,
    masses,
    reduced,
    sequence,
    union,
)


def numbered(n=2000, classes=10, seed=0):
    """Every example is its own number, so that it can be found again in a task."""
    random = np.random.RandomState(seed)
    x = np.stack([np.arange(n) // 256, np.arange(n) % 256], 1).astype(np.uint8)
    return from_arrays(x, random.randint(0, classes, n), levels=256)


def numbers(data):
    return (data.x[:, 0].long() * 256 + data.x[:, 1].long()).tolist()


def everything(stream, split):
    return [i for task in stream.tasks for i in numbers(getattr(task, split))]


@pytest.mark.parametrize("split", SPLITS)
def test_plain_streams_use_every_example_exactly_once(split):
    splits = numbered()
    whole = sorted(numbers(getattr(splits, split)))
    for stream in (class_incremental(splits, 5), class_incremental(splits, 3),
                   dirichlet(splits, 5, alpha=5, published=False)):  # fmt: skip
        assert sorted(everything(stream, split)) == whole


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_published_dirichlet_uses_no_example_twice_and_tasks_are_equally_large(alpha):
    splits = numbered(20_000)
    stream = dirichlet(splits, 10, alpha=alpha, seed=3)
    for split in SPLITS:
        found = everything(stream, split)
        assert len(found) == len(set(found))
        assert set(found) <= set(numbers(getattr(splits, split)))
    p = masses(10, 10, alpha=alpha, seed=3)
    assert np.allclose(p.sum(0), 10 / 12)
    counts = np.array(stream.about["class_counts"]["train"])
    sizes = np.bincount(splits.train.y.numpy())
    for t in range(10):
        left = np.maximum(0, sizes - np.floor(p[:, :t] * sizes[:, None]).sum(1))
        assert np.array_equal(counts[t], np.minimum(np.floor(p[:, t] * sizes), left)), "in task order, until exhausted"


def test_published_dirichlet_uses_77_percent_of_the_data():
    """Of equally large classes, at alpha 1 and 10 tasks; the number the published rule implies."""
    shares = [np.minimum(1, masses(10, 10, alpha=1, seed=s).sum(1)).mean() for s in range(400)]
    assert np.mean(shares) == pytest.approx(0.77, abs=0.01)
    many = [dirichlet(numbered(), 10, alpha=1, seed=s).about["used"] for s in (0, 3)]
    assert all(0.6 < used < 10 / 12 for used in many)


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    """E p = 1 / T and Var p = (1/T) (1 - 1/T) / (alpha + 1), for the plain version."""
    p = np.concatenate([masses(10, 5, alpha=2, seed=s, published=False) for s in range(500)])
    assert np.allclose(p.sum(1), 1)
    assert np.allclose(p.mean(0), 0.2, atol=0.02)
    assert np.allclose(p.var(0), 0.2 * 0.8 / 3, rtol=0.1)


def test_streams_repeat_by_seed():
    one, again, other = (dirichlet(numbered(), 4, alpha=3, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(a.train.x, b.train.x) for a, b in zip(one.tasks, again.tasks, strict=True))
    assert one.about["class_counts"] != other.about["class_counts"]


def test_classes_come_in_the_order_asked_for():
    stream = class_incremental(numbered(), 4, order=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert [sorted(set(t.train.y.tolist())) for t in stream.tasks] == [[7, 8, 9], [4, 5, 6], [2, 3], [0, 1]]
    assert [sorted(set(t.test.y.tolist())) for t in stream.tasks] == [[7, 8, 9], [4, 5, 6], [2, 3], [0, 1]]


def test_a_task_leads_to_no_other():
    splits = numbered()
    task = class_incremental(splits, 5).tasks[0].train
    assert task.x.untyped_storage().nbytes() == task.x.nbytes, "a copy, no view of all"
    assert not any(v is splits.train or isinstance(v, type(splits.train)) for v in vars(task).values())


def test_bands_of_a_condition():
    random = np.random.RandomState(0)
    splits = from_arrays(random.randint(0, 9, (900, 4)).astype(np.uint8), random.rand(900, 1) * 50, levels=9)
    stream = by_condition(splits, 3)
    tops = [float(t.train.y.max()) for t in stream.tasks]
    bottoms = [float(t.train.y.min()) for t in stream.tasks]
    assert tops[0] < bottoms[1] < tops[1] < bottoms[2]
    assert max(stream.about["counts"]["train"]) - min(stream.about["counts"]["train"]) <= 1
    assert tops[0] < float(stream.tasks[1].test.y.min())
    assert stream.about["edges"] == pytest.approx([50 / 3, 100 / 3], abs=2), "in the user's units"


def test_sequences_share_classes_by_name():
    a, b = numbered(200, 2, seed=1), numbered(200, 2, seed=2)
    a.about["class_names"], b.about["class_names"] = ["cat", "dog"], ["dog", "eel"]
    stream = sequence(a, b, a)
    assert stream.spec.classes == 3
    assert stream.tasks[1].about["class_names"] == ["cat", "dog", "eel"]
    assert torch.equal(stream.tasks[1].train.y, b.train.y + 1)
    assert torch.equal(stream.tasks[2].train.y, a.train.y)
    assert len(sequence(*class_incremental(data_sets.load("digits"), 2).tasks).tasks) == 2


def test_told_the_task_and_together():
    stream = by_task(class_incremental(numbered(), 5))
    assert stream.spec.classes == 5
    assert all(bool((task.test.y == t).all()) for t, task in enumerate(stream.tasks))
    both = union(stream.tasks[:2], "both")
    assert len(both.train) == len(stream.tasks[0].train) + len(stream.tasks[1].train)
    assert set(both.train.y.tolist()) == {0, 1}


def test_what_would_fit_is_said_where_a_task_is_empty():
    splits = numbered(1000, 10)
    bad = [s for s in range(40) if not _fits(splits, 8, 1.0, s)]
    assert 0 < len(bad) < 40
    with pytest.raises(ValueError, match=f"alpha=1 and seed={bad[-1]}, .* in 8 tasks would give task") as error:
        dirichlet(splits, 8, alpha=1.0, seed=bad[-1])
    seed, alpha = re.search(r"choose seed=(\d+), alpha=(\S+), fewer", str(error.value)).groups()
    dirichlet(splits, 8, alpha=1.0, seed=int(seed))
    dirichlet(splits, 8, alpha=float(alpha), seed=bad[-1])
    assert not any(_fits(splits, 8, 1.0, s) for s in range(int(seed))), "it is the first"


def _fits(splits, tasks, alpha, seed):
    try:
        dirichlet(splits, tasks, alpha=alpha, seed=seed)
    except ValueError:
        return False
    return True


def test_bad_input():
    splits = numbered()
    with pytest.raises(ValueError, match=r"Expected 1 to 10 tasks.* got 11"):
        class_incremental(splits, 11)
    with pytest.raises(ValueError, match="name each class"):
        class_incremental(splits, 2, order=[0, 0, 1])
    for alpha in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="alpha > 0"):
            dirichlet(splits, 3, alpha=alpha)
    with pytest.raises(ValueError, match="would give task 1 0 examples of the train split.* fewer tasks"):
        dirichlet(splits, 40, alpha=0.3, published=False)
    with pytest.raises(ValueError, match="has no labels"):
        dirichlet(from_arrays(np.zeros((50, 4), np.uint8), levels=4), 2)
    with pytest.raises(ValueError, match="has no condition"):
        by_condition(splits, 2)
    with pytest.raises(ValueError, match="Bring images to one shape"):
        sequence(splits, data_sets.load("digits"))


def test_a_class_missing_from_the_test_set_is_named():
    stream = dirichlet(numbered(400, 4), 3, alpha=1, seed=5, published=False)
    for line in stream.about["untested"]:
        _, c, _, _, t, *_ = line.split()
        assert stream.about["class_counts"]["test"][int(t) - 1][int(c)] == 0
    assert stream.about["untested"]


def test_a_fraction_leaves_the_first_task_and_what_is_measured():
    whole = class_incremental(numbered(), 2)
    part, again, other = (reduced(whole, 0.1, seed=s) for s in (0, 0, 1))
    assert [len(t.train) for t in part.tasks] == [len(whole.tasks[0].train), round(0.1 * len(whole.tasks[1].train))]
    assert torch.equal(part.tasks[1].train.x, again.tasks[1].train.x)
    assert not torch.equal(part.tasks[1].train.x, other.tasks[1].train.x)
    rows = {tuple(x.flatten().tolist()) for x in whole.tasks[1].train.x}
    assert all(tuple(x.flatten().tolist()) in rows for x in part.tasks[1].train.x)
    assert part.tasks[1].test is whole.tasks[1].test
    assert part.about["counts"]["train"][1] == len(part.tasks[1].train)
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="fraction"):
            reduced(whole, wrong)


def test_what_is_held_out_is_tested_on_and_never_learnt():
    whole = dirichlet(numbered(), 3, alpha=5, seed=1)
    part, again, other = (held_out(whole, 0.3, seed=s) for s in (0, 0, 1))
    for t, task in enumerate(whole.tasks):
        train, test = numbers(part.tasks[t].train), numbers(part.tasks[t].test)
        assert sorted(train + test) == sorted(numbers(task.train))
        assert len(test) == round(0.3 * len(task.train))
        assert numbers(part.tasks[t].validation) == numbers(task.validation)
        assert numbers(again.tasks[t].test) == test != numbers(other.tasks[t].test)
    assert part.about["counts"]["test"] == [len(task.test) for task in part.tasks]
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError, match="held_out in"):
            held_out(whole, wrong)
    with pytest.raises(ValueError, match="Task 0 has .* would hold 0 of them out"):
        held_out(whole, 1e-4)


def test_held_out_images_that_are_drawn_anew_keep_the_draw_that_is_seen_outside_updates():
    x, y = torch.randint(0, 2, (40, 6), dtype=torch.uint8), torch.arange(40) % 2
    images = Redrawn(x, y, DataSpec((6,), levels=2, classes=2), torch.full((40, 6), 127, dtype=torch.uint8))
    stream = held_out(class_incremental(Splits("binary", images, images, images, {}), 2), 0.5)
    for t, task in enumerate(stream.tasks):
        assert isinstance(task.train, Redrawn)
        assert type(task.test) is InMemory
        rows = {tuple(row) for row in x[y == t].tolist()}
        assert {tuple(row) for row in torch.cat([task.train.x, task.test.x]).tolist()} == rows
