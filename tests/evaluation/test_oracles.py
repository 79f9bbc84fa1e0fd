"""Agreement with other libraries, where they compute the same thing."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from genrep.evaluation.calorimeter import wasserstein_1d
from genrep.evaluation.coverage import prdc
from genrep.evaluation.distances import extrapolated_distance
from genrep.evaluation.frechet import plug_in
from genrep.evaluation.kernel import kernel_distance, kernel_distance_subsets, mmd
from genrep.evaluation.scores import _score, ms_ssim, psnr
from genrep.evaluation.spectrum import cosine_power
from genrep.transport.sliced import sliced_wasserstein

REASON = "install the extra `oracles`"


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


X, Y = normal(400, 12, 0), normal(300, 12, 1) * 1.2 + 0.2


def test_frechet_and_kernel_distance_of_torch_fidelity():
    fid = pytest.importorskip("torch_fidelity.metric_fid", reason=REASON)
    kid = pytest.importorskip("torch_fidelity.metric_kid", reason=REASON)
    truth = fid.fid_statistics_to_metric(*(fid.fid_features_to_statistics(t) for t in (X, Y)), verbose=False)
    assert plug_in(real=X, generated=Y) == pytest.approx(truth["frechet_inception_distance"], rel=1e-9)
    how = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}
    x, y = X[:300], Y
    truth = kid.kid_features_to_metric(x, y, **how, kid_subsets=1, kid_subset_size=300, rng_seed=0, verbose=False)
    mean = truth["kernel_inception_distance_mean"]
    assert kernel_distance(real=x, generated=y).value == pytest.approx(mean, rel=1e-9)
    assert kernel_distance_subsets(real=x, generated=y, subsets=2, size=300).value == pytest.approx(mean, rel=1e-9)
    rbf = kid.kid_features_to_metric(
        x, y, kid_kernel="rbf", kid_kernel_rbf_sigma=2.0, kid_subsets=1, kid_subset_size=300, rng_seed=0, verbose=False
    )
    assert mmd(real=x, generated=y, bandwidth=2.0).value == pytest.approx(
        rbf["kernel_inception_distance_mean"], rel=1e-9
    )


def test_prdc_of_prdc():
    rival = pytest.importorskip("prdc", reason=REASON)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = rival.compute_prdc(X.numpy(), Y.numpy(), nearest_k=5)
    found = prdc(real=X, generated=Y, k=5)
    assert {name: e.value for name, e in found._asdict().items()} == pytest.approx(truth)


def test_frechet_and_kernel_distance_of_torchmetrics():
    fid, kid = (pytest.importorskip(f"torchmetrics.image.{name}", reason=REASON) for name in ("fid", "kid"))
    truth = fid._compute_fid(X.mean(0), X.T.cov(), Y.mean(0), Y.T.cov())
    assert plug_in(real=X, generated=Y) == pytest.approx(float(truth), rel=1e-9)
    x = X[: len(Y)]
    assert kernel_distance(real=x, generated=Y).value == pytest.approx(float(kid.poly_mmd(x, Y)), rel=1e-9)


def test_inception_score_of_torchmetrics():
    rival = pytest.importorskip("torchmetrics.image.inception", reason=REASON)
    logits = 2 * X

    class Given(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return logits.float()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory, and of a standard deviation over one split
        metric = rival.InceptionScore(feature=Given(), splits=1)
        metric.update(torch.zeros(len(X), 3, 8, 8, dtype=torch.uint8))
        truth = float(metric.compute()[0])
    assert float(_score(logits.softmax(1))) == pytest.approx(truth, rel=1e-5)


def test_sliced_distance_of_pot():
    rival = pytest.importorskip("ot", reason=REASON)
    theta = torch.nn.functional.normalize(
        torch.randn(50, 12, generator=torch.Generator().manual_seed(3)).double(), dim=1
    )
    truth = rival.sliced_wasserstein_distance(X.numpy(), Y.numpy(), projections=theta.T.numpy()) ** 2
    found = extrapolated_distance(
        lambda a, b: float(sliced_wasserstein(a, b, directions=theta)), X, Y, groups=4, seed=0
    )
    assert float(sliced_wasserstein(X, Y, directions=theta)) == pytest.approx(float(truth), rel=1e-9)
    assert found[0] < float(truth)  # the bias that extrapolation takes away is upwards


def test_psnr_of_scikit_image():
    rival = pytest.importorskip("skimage.metrics", reason=REASON)
    a, b = (np.random.default_rng(s).random((1, 1, 20, 20)) for s in (0, 1))
    truth = rival.peak_signal_noise_ratio(a, b, data_range=1.0)
    assert float(psnr(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(truth, rel=1e-9)


def test_ms_ssim_of_pytorch_msssim():
    rival = pytest.importorskip("pytorch_msssim", reason=REASON)
    g = torch.Generator().manual_seed(0)
    a = torch.nn.functional.interpolate(torch.rand(2, 3, 24, 24, generator=g).double(), size=192, mode="bilinear")
    b = (a + 0.1 * torch.randn(a.shape, generator=g)).clamp(0, 1)
    truth = rival.ms_ssim(a, b, data_range=1.0, size_average=False)
    torch.testing.assert_close(ms_ssim(a, b), truth, rtol=1e-5, atol=0)  # its window is made in float32


def test_wasserstein_of_pot():
    rival = pytest.importorskip("ot", reason=REASON)
    found = wasserstein_1d(X[:, :3], Y[:, :3])
    assert found.tolist() == pytest.approx(list(rival.wasserstein_1d(X[:, :3].numpy(), Y[:, :3].numpy())), rel=1e-9)


def test_cosine_transform_of_scipy():
    x = torch.rand(2, 1, 9, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = dctn(x[:, 0].numpy(), axes=(1, 2), norm="ortho") ** 2
    torch.testing.assert_close(cosine_power(x), torch.from_numpy(truth))
