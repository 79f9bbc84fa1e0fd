from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from genrep.evaluation.bits import bits_per_dimension, log_mean_exp
from genrep.evaluation.calorimeter import channel_error, channel_wasserstein, channels, wasserstein_1d
from genrep.evaluation.scores import absolute_error, inception_score, ms_ssim, psnr
from genrep.evaluation.spectrum import cosine_power, radial_power, spectral_gap


def images(n: int, side: int, seed: int, channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_inception_score_from_one_to_the_number_of_classes():
    sure = torch.eye(10, dtype=torch.float64).repeat(100, 1)
    best = inception_score(sure, splits=2, seed=1)
    assert best.value == pytest.approx(10, rel=0.01)
    assert inception_score(torch.full((100, 10), 0.1)).value == pytest.approx(1.0, abs=1e-6)
    collapsed = torch.eye(10, dtype=torch.float64)[:1].repeat(100, 1)
    assert inception_score(collapsed).value == pytest.approx(1.0)
    two = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).double().repeat(5000, 1)
    truth = math.exp(math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    assert inception_score(two).value == pytest.approx(truth, rel=1e-3)


def test_inception_score_refuses_logits():
    with pytest.raises(ValueError, match="row 0 does not"):
        inception_score(torch.randn(100, 10))
    bad = torch.full((100, 10), 0.1)
    bad[7] = math.nan
    with pytest.raises(ValueError, match="row 7"):
        inception_score(bad)


def test_error_and_psnr_closed_form():
    x, y = torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.1)
    assert absolute_error(x, y).tolist() == pytest.approx([0.1, 0.1])
    assert psnr(x, y).tolist() == pytest.approx([20.0, 20.0], abs=1e-5)
    assert psnr(255 * x, 255 * y, top=255).tolist() == pytest.approx([20.0, 20.0], abs=1e-5)
    assert psnr(x, x).tolist() == [math.inf, math.inf]
    with pytest.raises(ValueError, match="image 1 of the second"):
        absolute_error(x, torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), 2.0)]))


def test_ms_ssim_bounds_and_constant_images():
    x = images(3, 28, 0)
    torch.testing.assert_close(ms_ssim(x, x), torch.ones(3).double())
    noisy = [float(ms_ssim(x, (1 - a) * x + a * images(3, 28, 1)).mean()) for a in (0.1, 0.3, 0.6)]
    assert noisy == sorted(noisy, reverse=True)
    # constant images: every contrast is one, so only the luminance of the last scale is left, to its weight
    a, b, c1 = 0.2, 0.6, 0.01**2
    weights = (0.0448, 0.2856)  # 28 x 28 leaves two scales
    truth = ((2 * a * b + c1) / (a**2 + b**2 + c1)) ** (weights[1] / sum(weights))
    found = ms_ssim(*(torch.full((1, 1, 28, 28), v, dtype=torch.float64) for v in (a, b)))
    assert float(found) == pytest.approx(truth, rel=1e-9)
    torch.testing.assert_close(ms_ssim(255 * x, 255 * x.flip(3), top=255), ms_ssim(x, x.flip(3)))
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ms_ssim(images(1, 8, 0), images(1, 8, 1))


def test_calorimeter_channels_count_each_fibre_once():
    shower = images(3, 44, 0)
    found = channels(shower)
    torch.testing.assert_close(found.sum(1), shower.sum((1, 2, 3)))
    one = torch.zeros(4, 44, 44)
    one[0, 0, 0], one[1, 21, 23], one[2, 43, 1], one[3, 0, 1] = 1, 2, 3, 4  # corners of quadrants, and an odd fibre
    assert channels(one).argmax(1).tolist() == [0, 1, 2, 4]
    assert channels(one).sum(1).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="logarithm"):
        channels(-one)


def test_wasserstein_is_scipys_and_shifts_are_exact():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(37, 2, generator=g).double(), torch.randn(50, 2, generator=g).double()
    truth = [stats.wasserstein_distance(a[:, c].numpy(), b[:, c].numpy()) for c in range(2)]
    assert wasserstein_1d(a, b).tolist() == pytest.approx(truth, rel=1e-9)
    assert wasserstein_1d(a, a + 3).tolist() == pytest.approx([3.0, 3.0])


def test_channel_distances():
    g = torch.Generator().manual_seed(0)
    real, shift = torch.randn(400, 5, generator=g).double(), torch.tensor([0.0, 1.0, 0.0, 0.0, 5.0])
    found = channel_wasserstein(real=real, generated=real + shift)
    assert [e.value for e in found.per_channel] == pytest.approx(shift.tolist(), abs=1e-9)
    assert found.pooled.value == pytest.approx(6 / 5, abs=1e-9)  # a shift up in order: pooled means part by its mean
    assert channel_error(real=real, generated=real + shift).value == pytest.approx(6 / 5)
    with pytest.raises(ValueError, match="399 for 400"):
        channel_error(real=real, generated=real[1:])


def test_radial_power_of_a_wave_noise_and_a_constant():
    rows = torch.arange(16, dtype=torch.float64)
    wave = (2 * math.pi * 3 * rows / 16).cos().view(1, 1, 1, 16).expand(2, 1, 16, 16)
    found = radial_power(wave)
    assert found.argmax(1).tolist() == [3, 3]
    assert float(found[0].sum() - found[0, 3]) == pytest.approx(0, abs=1e-20)
    noise = torch.randn(500, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(radial_power(noise).mean(0), torch.ones(9).double(), atol=0.1, rtol=0)
    assert radial_power(torch.full((2, 1, 8, 8), 2.0))[0, 0] == pytest.approx(4 * 64)


def test_cosine_transform_keeps_energy():
    x = images(3, 12, 0, 3)
    torch.testing.assert_close(cosine_power(x).sum((1, 2)), x.mean(1).square().sum((1, 2)))


def test_spectral_gap_of_twice_the_amplitude_and_of_blur():
    g = torch.Generator().manual_seed(0)
    x, y = (torch.randn(300, 1, 16, 16, dtype=torch.float64, generator=g) for _ in range(2))
    found = spectral_gap(real=x, generated=2 * x)
    assert found.radial.value == pytest.approx(math.log10(4), rel=1e-9)
    assert found.cosine.value == pytest.approx(math.log10(4), rel=1e-9)
    null = spectral_gap(real=x, generated=y).radial
    blurred = spectral_gap(real=x, generated=torch.nn.functional.avg_pool2d(y, 3, 1, 1))
    assert blurred.radial.value > 5 * null.value
    assert float(blurred.generated[-1] / blurred.real[-1]) < 0.2  # what is missing is at high frequencies


def test_bits_of_known_masses():
    p = torch.tensor([0.5, 0.25, 0.25]).double()
    x = torch.tensor([0] * 50 + [1] * 25 + [2] * 25)
    found = bits_per_dimension(p[x].log(), 1)
    assert found.value == pytest.approx(1.5, rel=1e-12)  # the entropy in bits
    assert found.standard_error == pytest.approx(0.5 / 99**0.5, rel=1e-6)
    draws = bits_per_dimension(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)).double() * 4, 2)
    truth = 4 / (2 * math.log(2)) / (200 * 16) ** 0.5
    assert draws.protocol["monte_carlo_error"] == pytest.approx(truth, rel=0.05)
    with pytest.raises(ValueError, match="example 1 has -inf"):
        bits_per_dimension(torch.tensor([0.0, -math.inf]), 1)


def test_log_mean_exp_does_not_overflow():
    assert float(log_mean_exp(torch.tensor([1000.0, 1000.0, -math.inf, -math.inf]).double())) == pytest.approx(
        1000 - math.log(2)
    )
