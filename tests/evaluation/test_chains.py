"""The analyses of chains where their answers are known."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import genrep
import genrep.interface.analyses
import genrep.interface.commands
from genrep.contracts import Conditional, DataSpec, Inference, Model, Unsupported
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.domains import domain_for
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import Denoised
from genrep.distributions.schedules import Chain, cosine
from genrep.evaluation import chain_figures
from genrep.evaluation.chains import (
    bound_terms,
    decisions,
    reconstruction,
    same_shape,
    signal_to_noise,
    switching_point,
)
from genrep.evaluation.noise_probes import attribute_map, probe_map
from genrep.objectives.denoising import Denoising
from genrep.objectives.timesteps import Uniform

SPEC = DataSpec((1, 8, 8), levels=5, classes=2)


class Knowing(Conditional):
    """Says that x_0 is a given image, wherever x_t is."""

    def __init__(self, image):
        super().__init__()
        self.image = nn.Parameter(image)

    def forward(self, x, t, *, y=None):
        return Denoised(self.image.expand_as(x))


class Bright(nn.Module):
    """Features by layer: the mean of x_t, and noise that tells nothing."""

    def forward(self, x, t):
        return {"mean": x.mean((1, 2, 3))[:, None].repeat(1, 2), "nothing": torch.randn(len(x), 2)}


def model_of(image, steps=40):
    torch.manual_seed(0)
    chain = Chain(cosine(steps))
    process = VariancePreserving(chain)
    diffusion = Diffusion(Knowing(image), chain, SPEC.shape, SPEC.levels)
    inference = Inference(process=process, features=Bright())
    return Model(SPEC, diffusion, inference, Denoising(Uniform(steps)), domain=domain_for(SPEC))


def images(n, level):
    return torch.full((n, 1, 8, 8), level, dtype=torch.uint8)


def test_signal_to_noise_is_its_formula():
    """Images of level 4 (1 inside) and 3 (1/2 inside): log abar / (1 - abar) plus the mean of 0 and log 1/4."""
    model = model_of(torch.zeros(1, 1, 8, 8))
    found = signal_to_noise(model, torch.cat([images(3, 4), images(3, 3)]))
    log = model.generative.chain.schedule
    expected = (log - (-torch.expm1(log)).log())[1:] + math.log(0.25) / 2
    torch.testing.assert_close(found.mean, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.change, expected.diff(), atol=1e-4, rtol=1e-3)
    assert found.std[0].item() == pytest.approx(math.log(4) / 2, abs=1e-5)
    assert (found.change < 0).all()


@pytest.mark.parametrize("way", ["estimate", "chain"])
def test_reconstruction_by_a_denoiser_that_knows_one_image(way):
    """Its own image comes back without error; another comes back as that image."""
    model = model_of(torch.ones(1, 1, 8, 8))
    own = reconstruction(model, images(4, 4), (2, 20, 40), way=way)
    other = reconstruction(model, images(4, 2), (2, 20, 40), way=way)
    assert own.absolute.shape == (3, 4)
    assert own.absolute.max() == 0
    torch.testing.assert_close(other.absolute, torch.full((3, 4), 0.5, dtype=torch.float64))
    assert own.similarity.min() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"steps in 1..40, got \[41\]"):
        reconstruction(model, images(2, 1), (41,))


def test_curves_part_where_they_do():
    """Own error 0, foreign error t - 0.3 with noise: more than 0.1 apart from t = 0.4 on."""
    torch.manual_seed(0)
    t = torch.linspace(0.05, 1, 20)
    own = 0.05 * torch.randn(20, 300)
    foreign = (t - 0.3)[:, None] + 0.05 * torch.randn(20, 300)
    found = switching_point(t, own, foreign, margin=0.1)
    assert found.low < 0.4 < found.high
    assert found.t == pytest.approx(0.4, abs=0.02)
    assert found.high - found.low < 0.06
    assert math.isnan(switching_point(t, own, own).t)


def test_bound_terms_add_up_to_the_bound():
    model, x = model_of(torch.zeros(1, 1, 8, 8)), images(300, 2)
    terms = bound_terms(model, x)
    assert terms.shape == (41,)
    bound = model.log_likelihood(x).value.mean().item()
    assert -terms.sum().item() == pytest.approx(bound, rel=1e-3)


def test_decisions_follow_the_estimates():
    """A classifier of brightness; the denoiser has made up its mind from the start."""
    model = model_of(torch.ones(1, 1, 8, 8))

    def classify(x):
        bright = x.float().mean((1, 2, 3)) / 4
        return torch.stack([1 - bright, bright], 1)

    found = decisions(model, classify, 5, evaluations=10)
    assert found.probabilities.shape == (10, 5, 2)
    assert found.t[0] == 1
    assert (found.t.diff() < 0).all()
    assert (found.agreement == 1).all()
    assert (found.confidence == 1).all()


def test_probes_find_what_is_there_and_noise_hides_it():
    """Bright and dark images: read from the mean, not from the layer that tells nothing, and not at the chain's end."""
    torch.manual_seed(1)
    y = torch.arange(120) % 2
    x = (images(120, 1) + 2 * y.view(-1, 1, 1, 1)).to(torch.uint8)
    model = model_of(torch.zeros(1, 1, 8, 8))
    found = probe_map(model, (x[:80], y[:80]), (x[80:], y[80:]), (0.0, 1.0))
    assert found.layers == ["mean", "nothing"]
    assert found.values[0, 0] == 1
    assert found.values[0, 1] < 0.8
    assert found.values[1].max() < 0.8
    marks = torch.stack([y, torch.zeros_like(y), 1 - y], 1)
    areas = attribute_map(model, (x[:80], marks[:80]), (x[80:], marks[80:]), ["a", "b", "c"], (0.0,), layer="mean")
    assert areas.values[[0, 2], 0].tolist() == [1, 1]
    assert math.isnan(areas.values[1, 0])
    with pytest.raises(ValueError, match="one of the layers"):
        attribute_map(model, (x, marks), (x, marks), ["a", "b", "c"], layer="head")
    assert chain_figures.heat_map(found, "accuracy").axes


def test_what_does_not_fit_is_refused(tmp_path):
    model = model_of(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"shape \(1, 8, 8\), as the model's, got \(1, 9, 8\) from other"):
        same_shape(model, torch.zeros(2, 1, 9, 8, dtype=torch.uint8), "other")
    with pytest.raises(Unsupported, match="needs a chain"):
        signal_to_noise(genrep.models.build("vae", SPEC), images(2, 1))
    with pytest.raises(ValueError, match="Unknown analysis 'snrr'. Did you mean 'snr'"):
        genrep.interface.analyses.analyse(tmp_path, ["snrr"])


@pytest.mark.slow
def test_a_run_is_analysed_by_a_command(tmp_path, capsys):
    run, how = tmp_path / "run", {"width": 8, "timesteps": 20}
    genrep.fit("ddpm", "digits", steps=4, out=run, options=how, snapshot_every=2, samples=0, progress=False)
    argv = [str(run), "--what", "snr,vlb,reconstruction", "--examples", "20"]
    genrep.interface.commands.get("analyse")(argv)
    assert "figure:" in capsys.readouterr().out
    rows = json.loads((run / "analyses" / "vlb.json").read_text())["rows"]
    assert [row[0] for row in rows] == ["after 2 updates", "after 4 updates", "at the end"]
    for name in ("snr", "vlb", "reconstruction"):
        assert (run / "analyses" / f"{name}.png").stat().st_size > 1000
        assert (run / "analyses" / f"{name}.json").exists()
    with pytest.raises(ValueError, match="name some"):
        genrep.interface.commands.get("analyse")([str(run), "--what", "switching"])
    np.save(other := tmp_path / "other.npy", np.arange(40 * 81, dtype=np.uint8).reshape(40, 9, 9))
    with pytest.raises(ValueError, match="as the model's"):
        genrep.interface.commands.get("analyse")([str(run), "--what", "switching", "--foreign", str(other)])
