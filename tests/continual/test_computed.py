"""Data that a frozen part computes: no more of them than a phase asks for, and the same both ways."""

import pytest
import torch

from genrep import models
from genrep.continual import loop
from genrep.continual.computed import Computed
from genrep.continual.strategy import Phase
from genrep.contracts import Batch, DataSpec
from genrep.training.settings import Settings

SPEC = DataSpec((3,), mean=(0.0,) * 3, std=(1.0,) * 3)
QUICK = Settings(steps=5, batch=8, accumulate=2, device="cpu", precision="float32", channels_last="no")


def counting(n):
    """Examples that say their number, and the numbers that were computed."""
    asked = []

    def make(index):
        asked.extend(index.tolist())
        return Batch(index[:, None].float().expand(-1, 3), index)

    return Computed(n, make, SPEC), asked


@pytest.mark.parametrize(("n", "computed"), [(1000, 80), (81, 80), (80, 80), (16, 16)])
def test_a_phase_computes_what_it_asks_for_or_each_once(n, computed):
    data, asked = counting(n)
    loop._fit(Phase(models.build("vae", SPEC, width=8), lambda: data), QUICK, None, progress=False)
    assert len(asked) == computed
    assert len(set(asked)) == min(n, computed), "no example comes twice within an epoch"


def test_a_batch_is_as_large_as_there_are_examples_at_most():
    data, asked = counting(6)
    loop._fit(Phase(models.build("vae", SPEC, width=8), lambda: data), QUICK, None, progress=False)
    assert asked == list(range(6))


def test_what_was_computed_is_found_by_its_number():
    data, _ = counting(3000)
    index = torch.tensor([2999, 0, 5, 1024])
    due = data[index]
    data.expect(3000)
    assert torch.equal(data[index].x, due.x)
    assert data[index].y.tolist() == due.y.tolist() == index.tolist()
