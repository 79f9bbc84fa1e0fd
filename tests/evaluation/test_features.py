"""Extractors: named, hashed, kept, refused where they do not fit."""

import pytest
import torch

from genrep import data, storage
from genrep.contracts import DataSpec, Unsupported
from genrep.data.batches import InMemory
from genrep.data.splits import Splits
from genrep.evaluation.calorimeter import channels
from genrep.evaluation.extractors import extractor, principal_axes
from genrep.evaluation.features import encoder, fingerprint, own, reference_features
from genrep.models import build


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GENREP_CACHE", str(tmp_path))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def table(n=200):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1])
    return data.from_arrays(x)


def test_lenet_is_trained_once_and_is_good(digits, tmp_path):
    first = extractor("auto", digits)
    assert first.name == "lenet"
    assert first.about["test_accuracy"] > 0.96
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    again = extractor("lenet", digits)
    assert again.hash == first.hash
    assert file.stat().st_mtime_ns == stamp, "it was trained again"
    x = digits.test[torch.arange(5)].x
    torch.testing.assert_close(first(x), again(x))
    assert first(x).shape == (5, 84)


@pytest.mark.slow
def test_a_damaged_file_is_named_and_made_anew(digits, tmp_path):
    before = extractor("lenet", digits)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="made anew"):
        assert extractor("lenet", digits).hash == before.hash


def test_stale_features_are_never_used(digits, tmp_path):
    """Other data of the same name make another key."""
    x, y = digits.train.x.clone(), digits.train.y
    x[0, 0, 0, 0] += 1
    changed = digits._replace(train=InMemory(x, y, digits.spec))
    assert fingerprint(changed) != fingerprint(digits)
    fewer = digits._replace(train=InMemory(digits.train.x[:-1], y[:-1], digits.spec))
    assert fingerprint(fewer) != fingerprint(digits)


def test_pca_features_have_the_variances_of_the_data(digits):
    """The components are uncorrelated over the training split, with the largest eigenvalues of its covariance."""
    found = extractor("pca", digits)
    f = found(digits.train.x).double()
    covariance = f.T.cov()
    off = covariance - covariance.diag().diag()
    assert off.abs().max() < 1e-4 * covariance.diag().max()
    flat = (digits.train.x.flatten(1).double() / 8 - 1).T.cov()
    largest = torch.linalg.eigvalsh(flat)[-f.shape[1] :]
    torch.testing.assert_close(covariance.diag(), largest, rtol=1e-3, atol=1e-6)


def test_leading_axes_of_many_columns_are_those_of_a_singular_value_decomposition():
    x = torch.randn(60, 2100, generator=torch.Generator().manual_seed(0)).double()
    centred = x - x.mean(0)
    variances, axes = principal_axes(centred, 10)
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    torch.testing.assert_close(variances, singular[:10].flip(0).square() / 59)
    torch.testing.assert_close((axes * rows[:10].flip(0).T).sum(0).abs(), torch.ones(10).double())
    assert (axes.sum(0) >= 0).all()


def test_columns_of_a_table_are_standard():
    splits = table()
    f = extractor("auto", splits)(splits.train.x)
    torch.testing.assert_close(f.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(f.std(0, unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


def test_what_does_not_fit_is_refused(digits):
    with pytest.raises(ValueError, match="are for images"):
        extractor("lenet", table())
    with pytest.raises(ValueError, match="are for tables"):
        extractor("columns", digits)
    unlabelled = Splits("x", *(InMemory(s.x, None, digits.spec._replace(classes=0)) for s in digits[1:4]), {})
    with pytest.raises(ValueError, match="need labels"):
        extractor("lenet", unlabelled)
    assert extractor("auto", unlabelled).name == "pca"
    with pytest.raises(ValueError, match="Expected features of shape"):
        own("mine", lambda x: x, digits.spec)


def test_own_features_are_hashed_by_what_they_say():
    spec = DataSpec((4,))
    one, two = own("a", lambda x: x, spec), own("a", lambda x: 2 * x, spec)
    assert one.hash != two.hash
    assert one.hash == own("b", lambda x: x, spec).hash


def test_encoder_of_a_model():
    model = build("vae", DataSpec((1, 8, 8), levels=17), latent=5, width=8)
    assert encoder(model)(torch.zeros(3, 1, 8, 8, dtype=torch.uint8)).shape == (3, 5)


def test_reference_features_are_kept_under_what_they_are(digits, tmp_path):
    calls = []
    base = extractor("random", digits)
    counted = base._replace(function=lambda x: calls.append(len(x)) or base.function(x))
    x = digits.test.x[:20]
    first = reference_features(counted, x, split="test", data="digits")
    torch.testing.assert_close(reference_features(counted, x, split="test", data="digits"), first)
    assert calls == [20], "the second call computed again"
    changed = x.clone()
    changed[7, 0, 3, 3] = (int(x[7, 0, 3, 3]) + 1) % 17
    others = (
        (counted, changed, {"split": "test", "data": "digits"}),
        (counted, x, {"split": "train", "data": "digits"}),
        (counted._replace(hash="other"), x, {"split": "test", "data": "digits"}),
        (counted._replace(about={"preprocessing": "other"}), x, {"split": "test", "data": "digits"}),
    )
    for n, (how, examples, said) in enumerate(others, 2):
        reference_features(how, examples, **said)
        assert len(calls) == n, "a stale file was used"
    reference_features(counted._replace(kept=False), x, split="test", data="digits")
    assert len(calls) == 6, "what a hash does not say all of is never kept"


@pytest.mark.parametrize("fault", ["cut", "of something else"])
def test_damaged_or_foreign_features_are_named_and_made_anew(digits, tmp_path, fault):
    found, x = extractor("random", digits), digits.test.x[:20]
    first = reference_features(found, x, split="test")
    (file,) = tmp_path.glob("features-*")
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:-40])
    else:
        storage.save(file, {"features": torch.zeros(20, 84)}, {"examples": "others"})
    with pytest.warns(UserWarning, match="made anew"):
        torch.testing.assert_close(reference_features(found, x, split="test"), first)
    torch.testing.assert_close(reference_features(found, x, split="test"), first)  # and without a warning


def test_channels_undo_the_logarithm():
    energy = torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 50
    shown = data.from_arrays(energy.log1p().numpy().repeat(20, 0))
    found = extractor("channels:log1p", shown)
    torch.testing.assert_close(found(energy.log1p()), channels(energy).float(), rtol=1e-4, atol=1e-3)
    assert float(found(-torch.ones(1, 1, 6, 6)).abs().max()) == 0  # no energy below zero
    assert "energies below zero" in found.protocol["preprocessing"]
    with pytest.raises(ValueError, match="channels:log1p"):
        extractor("channels:log10", shown)


def test_names_and_what_stands_behind_a_colon(digits):
    assert extractor("pca:5", digits)(digits.test.x[:3]).shape == (3, 5)
    assert extractor("pca:5", digits).hash != extractor("pca:6", digits).hash
    given = own("mine", lambda x: x.float().flatten(1), digits.spec)
    assert extractor(given, digits) is given
    model = build("vae", digits.spec, latent=5, width=8)
    assert extractor("own", digits, model)(digits.test.x[:3]).shape == (3, 5)
    for name, said in (
        ("pca:x", "number of components"),
        ("lenet:3", "nothing behind a colon"),
        ("own", "several models"),
        ("lenett", "Did you mean 'lenet'"),
        ("inception", "need a weight file"),
    ):
        with pytest.raises(ValueError, match=said):
            extractor(name, digits)
    with pytest.raises(Unsupported, match="no spatial map"):
        extractor("pca", digits).maps(digits.test.x[:3])
    with pytest.raises(Unsupported, match="do not classify"):
        extractor("pca", digits).probabilities(digits.test.x[:3])
