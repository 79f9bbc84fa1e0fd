"""The experiment on bits beside normals: its numbers are those of their definitions."""

import pytest
import torch

from genrep import data, models
from genrep.contracts import seeded
from genrep.data.streams import class_incremental
from genrep.interface.experiments import kind
from genrep.interface.experiments.binary_latents import Codes, codes, off_normal
from genrep.training.loop import fit
from genrep.training.settings import Settings

SMALL = {"network": "dense", "width": 32}
STREAM = {"stream": "class", "tasks": 5}


def test_off_normal_of_quantiles_is_zero_and_of_a_shift_the_shift():
    at = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    z = torch.special.ndtri(at)[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    found = off_normal(torch.stack([z, z + 0.7, 2 * z], 1))
    assert found[:2].tolist() == pytest.approx([0, 0.7], abs=1e-9)
    assert found[2] == pytest.approx((2 / torch.pi) ** 0.5, rel=0.01)  # E |2 z - z|


def test_told_is_one_where_a_latent_tells_the_class_and_none_where_it_says_nothing():
    first = torch.arange(100) < 40
    told = Codes(torch.zeros(100, 1), torch.zeros(100, 1), first).told(
        torch.stack([first.float(), -first.float(), torch.zeros(100), (torch.arange(100) % 2).float()], 1)
    )
    assert told.tolist() == pytest.approx([1, 1, 0, 0], abs=1e-9)


def test_a_bit_tells_two_classes_apart():
    """Bits that start as coin tosses are made constant instead: then no bit tells more than 0.2."""
    splits = class_incremental(data.load("digits"), 5).tasks[0]
    with seeded(0):
        model = models.build("multiband_vae", splits.spec, likelihood="bernoulli", **SMALL)
    fit(model, splits.train, Settings(steps=200, batch=64, precision="float32"))
    found = codes(model, splits, 0)
    assert found.told(found.bits).max() > 0.6


def test_a_run_has_a_row_for_each_model_and_goes_on(tmp_path):
    how = {"steps": 5, "samples": 100}
    models = [{"label": f"{d} bits", "model": "multiband_vae", "binary": d, **SMALL} for d in (2, 0)]
    said = {"data": "digits", "stream": STREAM, "models": models}

    def run(said):
        return kind("binary_latents").run(said, how, seed=0, folder=tmp_path, progress=False)

    found = run(said)
    assert [row[0] for row in found["rows"]] == ["real data", "2 bits", "0 bits"]
    assert float(found["rows"][0][-1].split()[0]) < 0.1  # the classifier is sure of zeros and ones
    assert found["rows"][2][3] == "–"
    assert all((tmp_path / path).stat().st_size > 500 for path in found["pictures"].values())
    assert run(said) == found
    with pytest.raises(ValueError, match="rows of multiband_vae, got vae"):
        run({**said, "models": [{"label": "vae", "model": "vae", **SMALL}]})
