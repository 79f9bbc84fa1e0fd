"""Codebooks against the published recurrence, revival, and one table on two processes."""

import copy
import tempfile

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from genrep.nets.codebook import Codebook, Embedded
from genrep.nets.masked import GatedNetwork


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


def test_codes_are_the_nearest_entries():
    table, z = Codebook(7, 3).double(), torch.randn(4, 3, 2, 5, dtype=torch.float64)
    distance = torch.cdist(z.movedim(1, -1).reshape(-1, 3), table.vectors)
    assert torch.equal(table.codes(z).flatten(), distance.argmin(1))
    back = table.look_up(table.codes(z))
    assert back.shape == z.shape
    assert torch.equal(table.codes(back), table.codes(z))


def test_moving_averages_are_the_published_ones():
    """N_k and m_k of van den Oord et al. (2017), appendix A.1, from zero, with e_k = m_k / N_k where a z chose it."""
    table = Codebook(5, 2, decay=0.9, revive=0.0).double()
    n, m, e = torch.zeros(5).double(), torch.zeros(5, 2).double(), table.vectors.clone()
    for _ in range(6):
        z = torch.randn(40, 2, 3, dtype=torch.float64)
        table.observe(z)
        flat = z.movedim(1, -1).reshape(-1, 2)
        chosen = torch.cdist(flat, e).argmin(1)
        for k in range(5):
            mine = flat[chosen == k]
            n[k] = 0.9 * n[k] + 0.1 * len(mine)
            m[k] = 0.9 * m[k] + 0.1 * mine.sum(0)
        e = torch.where(n[:, None] > 0, m / n[:, None], e)
        torch.testing.assert_close(table.vectors, e)
    torch.testing.assert_close(table.frequency, n / 120)


def test_unused_entries_start_again_at_encodings():
    table = Codebook(32, 2, decay=0.5).double()
    z = 100 + torch.randn(200, 2, dtype=torch.float64)
    table.observe(z)  # the table begins on the data
    assert torch.cdist(table.vectors, z).amin(1).max() < 2
    table.vectors[:16] = -1e3
    for _ in range(8):
        table.observe(z)
    assert (table.vectors > 90).all()
    assert table.codes(z).unique().numel() > 24


def test_without_revival_they_stay_where_they_are():
    table = Codebook(32, 2, decay=0.5, revive=0.0)
    table.vectors[:16] = -1e3
    table.frequency.fill_(1 / 32)
    for _ in range(300):
        table.observe(torch.randn(50, 2))
    assert (table.vectors[:16] == -1e3).all()
    assert table.vectors.isfinite().all()


def test_a_learnt_table_is_revived_but_not_averaged():
    table = Codebook(8, 2, "gradient", revive=0.0)
    before = table.vectors.detach().clone()
    table.observe(torch.randn(50, 2))
    assert torch.equal(table.vectors, before)
    table = Codebook(8, 2, "gradient")
    z = torch.randn(50, 2)
    table.observe(z)
    assert table.vectors.requires_grad
    assert torch.cdist(table.vectors, z).amin(1).max() < 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 1, "width": 2}, "at least 2 entries"),
        ({"size": 4, "width": 0}, "width >= 1"),
        ({"size": 4, "width": 2, "decay": 1.0}, r"in \[0, 1\)"),
        ({"size": 4, "width": 2, "revive": -0.1}, r"in \[0, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Codebook(**arguments)


def _observe(rank, place, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(rank)
    table = torch.load(f"{folder}/table", weights_only=False)
    for z in torch.load(f"{folder}/batches")[rank]:
        table.observe(z)
    torch.save((table.vectors, table.frequency), f"{folder}/{place}{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_one_table():
    """Both end with what one process finds on their batches joined."""
    table = Codebook(6, 2, decay=0.8).double()
    table.frequency.fill_(1 / 6)
    batches = torch.randn(2, 4, 30, 2, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(copy.deepcopy(table), f"{folder}/table")
        torch.save(batches, f"{folder}/batches")
        processes.spawn(_observe, ("of", folder), nprocs=2)
        found = [torch.load(f"{folder}/of{rank}") for rank in range(2)]
    for z in batches.transpose(0, 1).flatten(1, 2):
        table.observe(z)
    for vectors, frequency in found:
        torch.testing.assert_close(vectors, table.vectors)
        torch.testing.assert_close(frequency, table.frequency)


def test_codes_are_read_as_categories_one_pixel_at_a_time():
    """Embedded in a PixelCNN, the walk gives the features of the whole pass, and no pixel sees itself."""
    net = Embedded(GatedNetwork(4, 8, 2, 3, stem=3), levels=5, width=4).double()
    codes = torch.randint(5, (2, 1, 3, 4))
    x = codes.double() / 2 - 1
    whole, step = net(x).flatten(2), net.walk(2, 3, 4)
    previous = torch.zeros(2, 1, dtype=torch.float64)
    for i, pixel in enumerate(x.flatten(2).unbind(2)):
        torch.testing.assert_close(step(previous), whole[:, :, i])
        previous = pixel
    x[:, :, 1, 2] = -x[:, :, 1, 2] + 0.5
    changed = (net(x).flatten(2) != whole).any(1).any(0).nonzero().flatten()
    assert changed.min() == 1 * 4 + 2 + 1
