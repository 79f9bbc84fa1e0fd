"""Averages of the weights of any length, against the averages themselves."""

import pytest
import torch
from torch import nn

import genrep
from genrep.training.posthoc import LENGTHS, PowerAverages, coefficients, exponent, recombined, write


def profile(length, t):
    """Weights of the updates 1..t: integrals of (g + 1) tau^g / t^(g + 1) over each unit of time."""
    edge = (torch.arange(t + 1, dtype=torch.float64) / t) ** (exponent(length) + 1)
    return edge.diff()


def walked(length=None, steps=400):
    """A parameter that walks at random, and its averages."""
    torch.manual_seed(0)
    net = nn.Linear(3, 1, bias=False).double()
    path, averages = [], PowerAverages(net)
    for _ in range(steps):
        with torch.no_grad():
            net.weight.add_(torch.randn(1, 3, dtype=torch.float64))
        averages.update()
        path.append(net.weight.detach().clone())
        yield averages, path


def test_averages_have_their_profile_and_length():
    averages, path = list(walked())[-1]
    for i, length in enumerate(LENGTHS):
        weights = profile(length, 400)
        expected = torch.einsum("t,tij->ij", weights, torch.stack(path))
        torch.testing.assert_close(averages.tensors()[f"{i}/weight"], expected)
        at = torch.arange(1, 401, dtype=torch.float64) / 400
        mean = (weights * at).sum()
        assert (weights * (at - mean).square()).sum().sqrt().item() == pytest.approx(length, rel=0.02)


@pytest.mark.parametrize("length", [0.05, 0.07, 0.1, 0.15, 0.2])
def test_any_length_is_recombined(tmp_path, length):
    """From twenty snapshots: what an average of that length would have been, within a hundredth of what it moves."""
    for averages, path in walked():  # noqa: B007 -- the path grows
        if averages.updates % 20 == 0:
            write(tmp_path, averages)
    for end in (400, 300):
        expected = torch.einsum("t,tij->ij", profile(length, end), torch.stack(path[:end]))
        found = recombined(tmp_path, length, end)["weight"].double()
        assert (found - expected).abs().max() < 0.01 * torch.stack(path).std()


def test_coefficients_sum_to_one_and_find_themselves():
    members = [(exponent(length), t) for t in (100, 200, 300) for length in LENGTHS]
    found = coefficients(members, members[3])
    assert found == pytest.approx([0, 0, 0, 1, 0, 0], abs=1e-5)
    assert sum(coefficients(members, (exponent(0.2), 300))) == pytest.approx(1)


def test_a_run_keeps_and_continues_them(tmp_path):
    """Cut and continued the averages are those of the run without a cut; the model takes any of them."""
    how = {"options": {"latent": 2, "width": 8}, "snapshot_every": 2, "progress": False, "samples": 0}
    how |= {"precision": "float32", "channels_last": "no"}
    genrep.fit("vae", "digits", steps=3, out=tmp_path / "cut", **how)
    genrep.resume(tmp_path / "cut", steps=8, progress=False, samples=0)
    genrep.fit("vae", "digits", steps=8, out=tmp_path / "whole", **how)
    one, two = (genrep.load(tmp_path / run, average=0.1) for run in ("cut", "whole"))
    last = genrep.load(tmp_path / "whole")
    for (name, a), b, c in zip(one.named_parameters(), two.parameters(), last.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert not torch.equal(a, c), name


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="train with snapshot_every"):
        recombined(tmp_path, 0.1)
    averages = next(walked())[0]
    write(tmp_path, averages)
    with pytest.raises(ValueError, match=r"one of the updates \[1\], got 7"):
        recombined(tmp_path, 0.1, 7)
    for length in (0.0, 0.3, float("nan")):
        with pytest.raises(ValueError, match="length in"):
            recombined(tmp_path, length)
