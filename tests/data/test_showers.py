"""The shower simulator against its own formulas, its speed, and the format of responses and particles."""

import math
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from genrep.data import load
from genrep.data import shower_model as model
from genrep.data.showers import from_responses
from genrep.evaluation.calorimeter import channels

C = model.Calorimeter()


def beam(n, kind, energy, slope=0.0, vx=0.0, vz=-10.0):
    """n particles alike."""
    mass, charge = model._KINDS[model.KINDS.index(kind)].tolist()
    p = math.sqrt(energy**2 - mass**2)
    pz = p / math.sqrt(1 + slope**2)
    return torch.tensor([[mass, charge, energy, slope * pz, 0.0, pz, vx, 0.0, vz]]).expand(n, -1)


def developed(n, kind, energy, calorimeter=C, **how):
    return model.develop(beam(n, kind, energy, **how), torch.Generator().manual_seed(0), calorimeter)


@pytest.mark.parametrize("energy", [10.0, 100.0, 400.0])
def test_longitudinal_laws_are_those_of_the_paper(energy):
    """Containment in a calorimeter of 20 X0 is E[P(a, b t)] over the normal pair (ln T, ln a), by quadrature."""
    short = C._replace(depth=20 * C.radiation_length)
    found = developed(20_000, "electron", energy, short).visible / energy
    mt, st, ma, sa, rho = (float(v) for v in model.longitudinal(torch.tensor(energy), C))
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    one, two = np.meshgrid(nodes, nodes)
    a = np.exp(ma + sa * (rho * one + math.sqrt(1 - rho**2) * two)).clip(1.1)
    inside = stats.gamma.cdf((a - 1) / np.exp(mt + st * one) * 20, a)
    expected = (np.outer(weights, weights) * inside).sum() / (2 * np.pi)
    assert found.mean().item() == pytest.approx(expected, abs=3e-3)
    assert 0.5 < expected < 1


def test_profile_is_near_the_particle_data_groups():
    """The maximum of an electron's shower at ln(E / E_c) - 0.5 X0 within 0.5 X0; deeper by ln 10 for ten times E."""
    for energy in (10.0, 100.0, 1000.0):
        mean_t, std_t, *_ = model.longitudinal(torch.tensor(energy), C)
        mean = math.exp(float(mean_t) + 0.5 * float(std_t) ** 2)
        assert mean == pytest.approx(math.log(energy / C.critical) - 0.5, abs=0.5)


@pytest.mark.parametrize("kind", ["photon", "pion"])
def test_containment_is_the_integral_of_the_lateral_profile(kind):
    """Of a shower in the middle: the density integrated over the square of the face, by quadrature."""
    shower = developed(1, kind, 50.0)
    core, tail, share = (float(t) for t in (shower.core, shower.tail, shower.share))

    def density(y, x):
        r2 = (x - float(shower.x)) ** 2 + (y - float(shower.y)) ** 2
        ring = lambda r: r**2 / (math.pi * (r2 + r**2) ** 2)  # noqa: E731
        return share * ring(core) + (1 - share) * ring(tail)

    half = model.FIBRES * C.pitch / 2
    exact, _ = integrate.dblquad(density, -half, half, -half, half, epsabs=1e-6)
    found = float(model.expected(shower).sum()) / (float(shower.visible) * C.photoelectrons)
    assert found == pytest.approx(exact, abs=0.015 if kind == "photon" else 2e-3)  # a narrow core between fibres
    assert 0.5 < exact < 1


def test_light_is_poisson():
    """Each fibre's variance is its mean; the sum's relative variance is that of the shower plus 1 / mean light."""
    shower = developed(1, "electron", 20.0)
    mean = model.expected(shower)
    torch.manual_seed(0)
    light = torch.poisson(mean.expand(4000, -1, -1))
    torch.testing.assert_close(light.mean(0), mean[0], atol=0.6, rtol=0.05)
    bright = mean[0] > 5
    assert (light.var(0)[bright] / mean[0][bright]).mean().item() == pytest.approx(1, abs=0.02)
    beam_of = beam(3000, "electron", 20.0)
    generator = torch.Generator().manual_seed(1)
    exact = model.expected(model.develop(beam_of, generator)).sum((1, 2))
    total = model.simulate(beam_of, seed=2).sum((1, 2))
    assert total.mean().item() == pytest.approx(exact.mean().item(), rel=5e-3)
    assert total.var().item() == pytest.approx((exact.var() + exact.mean()).item(), rel=0.12)


def test_response_of_hadrons_follows_groom():
    """Mean response per GeV over that of electrons, f + (1 - f) h / e with f = 1 - (E / E0)^-0.18; it rises with E."""
    deep = C._replace(depth=1e5)
    ratios = []
    for energy in (20.0, 200.0):
        for kind, scale in (("pion", 1.0), ("neutron", 2.6)):
            f = 1 - (energy / scale) ** -0.18
            found = developed(20_000, kind, energy, deep).visible.mean().item() / energy
            assert found == pytest.approx(f + (1 - f) * C.hadronic, abs=0.01)
            ratios.append(found)
    assert ratios[2] > ratios[0] > ratios[1]


def test_showers_lie_where_particles_fly():
    """The centre of light of a photon is vertex + slope x (distance to the face + mean depth), here by its mean."""
    found = model.simulate(beam(400, "photon", 200.0, slope=0.02, vx=-0.8, vz=-20.0), seed=0).mean(0)
    side = (torch.arange(44) - 21.5) * C.pitch
    row, column = (found.sum(1) @ side / found.sum()).item(), (found.sum(0) @ side / found.sum()).item()
    assert row == pytest.approx(0, abs=0.01)
    assert -0.42 < column < -0.2  # -0.8 + 0.02 (20 + 5..6 cm) = -0.3, drawn to the middle by what leaks


def test_the_seed_decides_and_bad_particles_are_named():
    y = model.particles(20, seed=3)
    torch.testing.assert_close(model.simulate(y, seed=1), model.simulate(y, seed=1))
    assert not torch.equal(model.simulate(y, seed=1), model.simulate(y, seed=2))
    energy, momentum = y[:, 2].double(), y[:, 3:6].double()
    torch.testing.assert_close(energy.square(), momentum.square().sum(1) + y[:, 0].double().square(), rtol=1e-5, atol=0)
    for column, value in (("energy", 0.01), ("pz", -1.0), ("vz", 2.0)):
        bad = y.clone()
        bad[4, model.CONDITIONS.index(column)] = value
        with pytest.raises(ValueError, match="particle 4 has others"):
            model.simulate(bad)
    with pytest.raises(ValueError, match=r"Expected particles \(N, 9\)"):
        model.simulate(y[:, :8])


@pytest.mark.slow
def test_ten_thousand_showers_take_a_second():
    y = model.particles(2000, seed=0)
    model.simulate(y[:500])
    start = time.process_time()
    model.simulate(y)
    assert 2000 / (time.process_time() - start) > 5_000  # a third to a half of what an idle core does


def test_the_set():
    splits = load("showers")
    assert splits.spec.shape == (1, 44, 44)
    assert splits.spec.levels is None
    assert splits.spec.condition == 9
    assert splits.about["condition"] == list(model.CONDITIONS)
    x, y = splits.test[torch.arange(50)]
    counts = x.expm1()
    torch.testing.assert_close(counts, counts.round(), atol=2e-3, rtol=1e-5)
    assert channels(counts.clamp_min(0)).shape == (50, 5)
    assert y.shape == (50, 9)


def test_responses_and_particles_of_a_user(tmp_path):
    rng = np.random.RandomState(0)
    y = rng.rand(60, 9).astype(np.float32)
    y[:, 1] = 1  # one charge only
    np.savez(tmp_path / "zdc.npz", responses=rng.poisson(3.0, (60, 44, 44)), particles=y)
    splits = load(tmp_path / "zdc.npz")
    assert splits.spec.shape == (1, 44, 44)
    assert splits.spec.condition == 8
    assert "constant, left out: charge" in splits.about["inferred"]
    assert float(splits.train.x.expm1().mean()) == pytest.approx(3, abs=0.05)
    with pytest.raises(ValueError, match="takes no label="):
        load(tmp_path / "zdc.npz", label="mass")
    for responses, particles, message in (
        (-np.ones((20, 4, 4)), y[:20], "at least zero"),
        (np.ones((20, 5, 4)), y[:20], "even sides"),
        (np.ones((20, 4, 4)), y[:19], "a row of particles for each of 20"),
        (np.full((20, 4, 4), np.nan), y[:20], "not finite"),
        (np.ones((20, 4, 4)), np.ones((20, 2)), "constant"),
    ):
        with pytest.raises(ValueError, match=message):
            from_responses(responses, particles)


@pytest.mark.skipif("GENREP_DATA" not in os.environ, reason="GENREP_DATA is not set: no files of data sets")
def test_real_showers_pass_through_the_format(tmp_path):
    """51 positrons of Geant4, the middle layer of CaloGAN: the light grows with the energy, as in the simulator."""
    file = np.load(Path(os.environ["GENREP_DATA"]) / "calogan_sample" / "calogan_positron_51events.npz")
    np.savez(tmp_path / "real.npz", responses=file["layer_1"], particles=file["energy"])
    splits = load(tmp_path / "real.npz")
    assert splits.spec.shape == (1, 12, 12)
    x, y = splits.train[torch.arange(len(splits.train))]
    total = channels(x.expm1().clamp_min(0)).sum(1)
    truth = file["layer_1"].astype(np.float64)
    assert float(total.max()) == pytest.approx(truth.sum((1, 2)).max(), rel=1e-4)
    assert np.corrcoef(total.numpy(), y[:, 0].numpy())[0, 1] > 0.9
