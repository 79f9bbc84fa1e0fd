"""Binary codes that are unique, and assignments that are matchings."""

import numpy as np
import pytest
import torch

from genrep.continual.assignment import by_tree, distances, match, match_all, match_free
from genrep.continual.codes import Codes, multiplier, odd_primes
from tests.continual.known import image_stream

IMAGES = image_stream()


# ---- codes ----


def packed(codes):
    """A number for each code, if it has at most 63 bits; else its bits as bytes."""
    bits = np.packbits((codes > 0).numpy(), axis=1)
    return np.ascontiguousarray(bits).view(f"V{bits.shape[1]}")[:, 0]


def test_a_word_tells_two_to_the_m_numbers_apart():
    """Exhaustively for every m that up to 10^6 examples need, and every prime of a code of 1,000 bits."""
    primes = odd_primes(1000)
    for m in range(1, 21):
        number = torch.arange(2**m)
        for prime in primes[: 1000 // m] if m < 14 else primes[: 200 // m]:
            word = number * multiplier(prime, m) % 2**m
            assert int(word.bincount(minlength=2**m).max()) == 1, (m, prime)


@pytest.mark.parametrize(
    ("bits", "examples", "task_code", "task_bits"),
    [
        (200, 60_000, "prefix", 10),
        (200, 60_000, "appended", 10),
        (1000, 4_096, "prefix", 10),
        (20, 1_000_000, "none", 0),
        (45, 1_000_000, "prefix", 10),
        (30, 1_000_000, "appended", 10),
        (9, 257, "none", 0),
        (8, 256, "none", 0),
        (1, 1, "none", 0),
        (12, 3, "prefix", 3),
    ],
)
def test_codes_are_unique(bits, examples, task_code, task_bits):
    """As they are given out, packed: over all numbers, whatever their tasks are."""
    codes = Codes(bits, examples, tasks=5, task_code=task_code, task_bits=task_bits)
    number = torch.arange(examples)
    found = packed(codes(number, number * 5 // examples))
    assert len(np.unique(found)) == examples
    few = codes(number[:7], torch.zeros(len(number[:7]), dtype=torch.int64))
    assert few.shape[1] == bits
    assert set(few.unique().tolist()) <= {-1.0, 1.0}


def test_every_number_of_examples_gets_the_shortest_word():
    """Codes for N examples are those for 2^m cut off, so that N = 2^m for every m proves all N up to 2^20."""
    for examples in (1, 2, 3, 255, 256, 257, 65_536, 65_537, 10**6):
        codes = Codes(64, examples, task_code="none")
        assert 2**codes.word >= examples
        assert codes.word == 1 or 2 ** (codes.word - 1) < examples
        assert codes.multipliers == Codes(64, 2**codes.word, task_code="none").multipliers


def test_codes_against_the_formula():
    """The bits of i 3^floor(m ln 2 / ln 3) mod 2^m, written out, behind those of the task."""
    codes = Codes(20, 256, tasks=3, task_bits=4)
    assert codes.multipliers == [243, 125]
    for i, t in ((0, 0), (1, 2), (200, 1)):
        expected = f"{t * 9 % 16:04b}{i * 243 % 256:08b}{i * 125 % 256:08b}"
        assert "".join(str(int(b > 0)) for b in codes(torch.tensor([i]), torch.tensor([t]))[0]) == expected
    released = Codes(18, 256, tasks=3, task_code="appended")
    expected = f"{7 * 243 % 256:08b}{2 * 307 % 1024:010b}"
    assert "".join(str(int(b > 0)) for b in released(torch.tensor([7]), torch.tensor([2]))[0]) == expected


@pytest.mark.parametrize("task_code", ["prefix", "appended"])
def test_tasks_have_codes_of_their_own(task_code):
    codes = Codes(30, 1024, tasks=1024, task_code=task_code)
    task = torch.arange(1024)
    assert len(np.unique(packed(codes(torch.zeros_like(task), task)))) == 1024


def test_large_numbers_do_not_overflow():
    codes = Codes(31, 2**31, task_code="none")
    i = 2**31 - 1
    expected = f"{i * multiplier(3, 31) % 2**31:031b}"
    found = codes(torch.tensor([i]), torch.tensor([0]))[0]
    assert "".join(str(int(b > 0)) for b in found) == expected


def step_by_step(cost):
    """The greedy matching, in plain words."""
    left, chosen = list(range(cost.shape[1])), []
    for row in cost.tolist():
        best = min(left, key=row.__getitem__)
        left.remove(best)
        chosen.append(best)
    return chosen


def test_matchings():
    generator = torch.Generator().manual_seed(0)
    for rows, columns in ((1, 1), (5, 5), (12, 30), (40, 40)):
        for _ in range(5):
            cost = torch.rand(rows, columns, generator=generator)
            greedy, exact = match(cost, "greedy"), match(cost, "exact")
            assert greedy.tolist() == step_by_step(cost)
            assert len(set(exact.tolist())) == rows
            totals = [float(cost[torch.arange(rows), chosen].double().sum()) for chosen in (greedy, exact)]
            assert totals[0] >= totals[1] - 1e-9
    trap = torch.tensor([[0.0, 1.0], [0.0, 9.0]])  # greedy: 0 + 9; exact: 1 + 0
    assert match(trap, "greedy").tolist() == [0, 1]
    assert match(trap, "exact").tolist() == [1, 0]


@pytest.mark.parametrize("how", ["greedy", "exact"])
def test_what_is_taken_is_not_given_again(how):
    codes = Codes(12, 9, task_code="none")(torch.arange(9), torch.zeros(9, dtype=torch.int64))
    taken = torch.tensor([1, 0, 1, 0, 0, 1, 0, 0, 1], dtype=torch.bool)
    before = taken.clone()
    z = torch.randn(4, 12, generator=torch.Generator().manual_seed(1))
    chosen = match_free(z, codes, taken, how)
    assert not before[chosen].any()
    assert len(chosen.unique()) == 4
    assert taken.tolist() == [bool(b) or i in chosen for i, b in enumerate(before)]
    first = distances(z[:1], codes).masked_fill(before, torch.inf).argmin()
    assert how == "exact" or chosen[0] == first


def test_matching_a_whole_task():
    generator = torch.Generator().manual_seed(0)
    codes = Codes(40, 300, task_code="none")(torch.arange(300), torch.zeros(300, dtype=torch.int64))
    z = torch.randn(300, 40, generator=generator)
    totals = {}
    for how in ("greedy", "exact"):
        torch.manual_seed(0)
        chosen = match_all(z, codes, how)
        assert torch.equal(chosen.sort().values, torch.arange(300))
        totals[how] = float(distances(z, codes)[torch.arange(300), chosen].sum())
    assert totals["greedy"] >= totals["exact"]
    torch.testing.assert_close(distances(z, codes), torch.cdist(z, codes).square(), rtol=1e-4, atol=1e-3)


def test_a_tree_gives_near_examples_near_codes():
    torch.manual_seed(0)
    centres = torch.randn(8, 10) * 5
    kind = torch.arange(400) % 8
    x = centres[kind] + torch.randn(400, 10)
    number = torch.arange(100, 500)
    place = by_tree(x, number, 9)
    assert torch.equal(place.sort().values, torch.arange(400)), "a matching"
    codes = Codes(90, 500, task_code="none")(number, torch.zeros_like(number))
    near = torch.cdist(x, x)
    for given, least in ((place, 0.3), (torch.randperm(400), None)):
        found = torch.corrcoef(torch.stack([near.flatten(), torch.cdist(codes[given], codes[given]).flatten()]))[0, 1]
        assert (found > least) if least else abs(found) < 0.1
    same = (kind[:, None] == kind) & ~torch.eye(400, dtype=torch.bool)
    mine = codes[place]
    apart = (mine[:, None] != mine).float().mean(2)
    assert apart[same].mean() < 0.8 * apart[~same].mean()


def test_a_tree_cuts_along_the_first_component():
    """On a line the lowest digit of the number says which half an example is in, the next which quarter."""
    x = torch.tensor([3.0, -1.0, 7.0, 2.0, -5.0, 9.0, 0.0, 4.0])[:, None]
    place = by_tree(x, torch.arange(8), 3)
    rank = x[:, 0].argsort().argsort()
    assert len({(int(r) >= 4, int(p) % 2) for r, p in zip(rank, place, strict=True)}) == 2
    assert len({(int(r) // 2, int(p) % 4) for r, p in zip(rank, place, strict=True)}) == 4
