"""The order of training: every example once per epoch, and nothing but (seed, rank, step) decides."""

import pytest
import torch

from genrep.contracts import DataSpec
from genrep.data import InMemory, Order, Subset, batch_indices


@pytest.mark.parametrize(("size", "batch", "world"), [(12, 3, 2), (10, 3, 1), (10, 4, 3), (7, 7, 2), (5, 1, 1)])
def test_every_epoch_is_a_partition_over_ranks_and_steps(size, batch, world):
    epochs = 6
    steps = -(-epochs * size // (batch * world))
    ranks = [Order(size, batch=batch, rank=r, world=world, seed=3) for r in range(world)]
    sequence = torch.cat([order(step) for step in range(steps) for order in ranks])
    for e in range(epochs):
        assert sequence[e * size : (e + 1) * size].sort().values.tolist() == list(range(size)), f"epoch {e}"


def test_a_batch_depends_on_seed_rank_and_step_only():
    walked = Order(100, batch=32, rank=1, world=2, seed=5)
    in_order = [walked(step) for step in range(20)]
    for step in (19, 0, 7, 7, 3, 18):
        assert torch.equal(walked(step), in_order[step])
        assert torch.equal(batch_indices(step, rank=1, world=2, batch=32, size=100, seed=5), in_order[step])
    torch.manual_seed(99)
    torch.rand(3)
    assert torch.equal(Order(100, batch=32, rank=1, world=2, seed=5)(11), in_order[11])


def test_order_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Order(50, batch=7)(12)
    assert torch.equal(before, torch.get_rng_state())


def test_epochs_and_seeds_are_permuted_differently():
    first = [torch.stack([Order(50, batch=50, seed=s)(e) for e in range(4)]) for s in range(4)]
    flat = torch.cat(first)
    assert len({tuple(row.tolist()) for row in flat}) == 16
    # (seed, epoch) and (epoch, seed) must not be the same stream
    assert not torch.equal(first[1][2], first[2][1])


def test_positions_are_uniform_over_epochs():
    # each example is first in its epoch about equally often: chi-square with 9 degrees of freedom
    order = Order(10, batch=10, seed=0)
    counts = torch.bincount(torch.stack([order(e)[0] for e in range(2000)]), minlength=10).double()
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # p = 0.001


def test_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="Expected a batch of 1 to 4 examples, as many as the data has, got 5"):
        Order(4, batch=5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"batch": 0}, "batch of 1 to 4"),
        ({"batch": 1, "rank": 2, "world": 2}, "rank in"),
        ({"batch": 1, "seed": -1}, "seed >= 0"),
    ],
)
def test_impossible_orders_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        Order(4, **how)


def test_negative_step_is_refused():
    with pytest.raises(ValueError, match="step >= 0"):
        Order(4, batch=2)(-1)


def test_memory_and_views_give_the_examples_asked_for():
    x, y = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2), torch.arange(6)
    data = InMemory(x, y, DataSpec((1, 2, 2), levels=256, classes=6))
    batch = data[torch.tensor([4, 0, 4])]
    assert torch.equal(batch.x, x[[4, 0, 4]])
    assert batch.y is not None
    assert batch.y.tolist() == [4, 0, 4]
    view = Subset(Subset(data, torch.tensor([5, 3, 1])), torch.tensor([2, 0]))
    found = view[torch.tensor([0, 1])].y
    assert found is not None
    assert found.tolist() == [1, 5]
    assert len(view) == 2
    assert view.spec == data.spec
    moved = data.to("cpu")
    assert moved.x.data_ptr() == x.data_ptr()
