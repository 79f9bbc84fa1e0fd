"""Options of metrics reach them; what a metric cannot answer is said; layers, noise and targets of any kind."""

import pytest
import torch

from genrep import data, models
from genrep.contracts import DataSpec
from genrep.data.batches import InMemory
from genrep.evaluation.extractors import extractor
from genrep.evaluation.features import Extractor, encoder
from genrep.evaluation.measure import METRICS, USUAL, Subject, measure, options_of


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def subject_of(name, digits, **options):
    torch.manual_seed(0)
    model = models.build(name, digits.spec, **options)
    return Subject(model, digits, extractor("pca", digits), samples=120, examples=120)


def test_likelihood_methods_by_option(digits):
    s = subject_of("vae", digits, latent=2, width=8)
    weighted = measure(s, ["bits"], method="importance", draws=20)["bits"]
    assert (weighted.protocol["kind"], weighted.protocol["draws"]) == ("importance-weighted bound", 20)
    assert weighted.protocol["monte_carlo_error"] > 0
    bound = measure(s, ["bits"])["bits"]
    assert weighted.value < bound.value + 2 * bound.standard_error
    walked = measure(s, ["bits"], method="annealed", draws=2, temperatures=8, leapfrog=2)["bits"]
    assert walked.protocol["kind"] == "annealed estimate"
    gap = measure(s, ["bidirectional"], draws=2, temperatures=8, leapfrog=2)["annealing_gap"]
    assert gap.value > -3 * gap.standard_error
    with pytest.raises(ValueError, match="option of bits"):
        measure(s, ["bits"], layers="all")
    assert "needs a prior" in measure(subject_of("real_nvp", digits), ["bidirectional"])["bidirectional"]
    seldom = {"bidirectional", "disentanglement", "sinkhorn", "channels", "entropies", "holes"}
    assert set(METRICS) - set(USUAL) == seldom
    assert "draws" in options_of("bits")


def test_probes_of_every_layer_and_noise(digits):
    few = digits._replace(train=InMemory(digits.train.x[:250], digits.train.y[:250], digits.spec))
    s = subject_of("ddpm", few, width=8, timesteps=20)
    found = measure(s, ["probe"], layer="each", noise=(0.0, 0.5))
    linear = [k for k in found if k.startswith("probe[")]
    assert len(linear) >= 4, found
    assert all(found[k].protocol["noise"] in (0.0, 0.5) for k in linear)
    widths = {found[k].protocol["layers"]: found[k].protocol["width"] for k in linear}
    one = next(iter(widths))
    single = measure(s, ["probe"], layer=one)["probe"]
    assert single.value == found[f"probe[{one}, 0]"].value
    assert found[f"probe[{one}, 0]"].value != found[f"probe[{one}, 0.5]"].value
    with pytest.raises(ValueError, match="layer"):
        measure(s, ["probe"], layer="nowhere")
    with pytest.raises(ValueError, match=r"noise levels in \[0, 1\]"):
        measure(s, ["probe"], noise=(2.0,))


def test_representation_and_disentanglement_of_labels(digits):
    s = subject_of("vae", digits, latent=3, width=8)
    found = measure(s, ["representation", "disentanglement"])
    assert {"trustworthiness", "clustering_accuracy", "clustering_information", "mig", "sap"} == set(found)
    assert 0.1 <= found["clustering_accuracy"].value <= 1
    conditional = subject_of("vae", digits, latent=2, width=8, conditional=True)
    assert "computed from the label" in measure(conditional, ["representation"])["representation"]


def conditions():
    """x = A c + noise: a linear code of x predicts the condition."""
    g = torch.Generator().manual_seed(0)
    c = torch.randn(400, 3, generator=g)
    c[:, 2] = 7.0  # a constant says nothing, and is left out
    x = c[:, :2] @ torch.randn(2, 5, generator=g) + 0.05 * torch.randn(400, 5, generator=g)
    spec = DataSpec((5,), condition=3, mean=tuple(x.mean(0).tolist()), std=tuple(x.std(0).tolist()))
    part = {"train": slice(0, 240), "validation": slice(240, 280), "test": slice(280, 400)}
    return data.Splits(name="made", **{k: InMemory(x[p], c[p], spec) for k, p in part.items()}, about={})


def test_probes_of_a_condition_are_regressions():
    splits = conditions()
    torch.manual_seed(0)
    model = models.build("real_nvp", splits.spec)
    s = Subject(model, splits, extractor("columns", splits), samples=100, examples=120)
    found = measure(s, ["probe", "disentanglement", "representation"])
    assert found["probe"].protocol["metric"] == "R2"
    assert found["probe"].value > 0.95
    assert {"disentanglement", "completeness", "informativeness"} <= set(found)
    assert "clustering_accuracy" not in found, "there are no classes"


def test_criticism_in_the_code_of_a_reference(digits):
    s = subject_of("vae", digits, latent=2, width=8)
    found = measure(s, ["criticism"], permutations=99)
    assert found["criticism_p"].value == 0.01, "an untrained model is told apart"
    assert found["criticism"].protocol["features"] == "pca"
    torch.manual_seed(1)
    other = encoder(models.build("autoencoder", digits.spec, width=8))
    again = Subject(s.model, digits, s.extractor, samples=120, examples=120, reference=other)
    seen = measure(again, ["criticism"], permutations=99)["criticism"]
    assert seen.protocol["features"] == "encoder of autoencoder"
    same = Extractor("same", "0", {}, lambda x: torch.zeros(len(x), 3))
    blind = Subject(s.model, digits, s.extractor, samples=120, examples=120, reference=same)
    assert measure(blind, ["criticism"], permutations=99)["criticism_p"].value == 1.0


def test_options_of_annealing_without_annealing_are_refused(digits):
    with pytest.raises(ValueError, match="add method=annealed"):
        measure(digits, ["bits"], temperatures=5)
