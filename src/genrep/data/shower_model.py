"""A parametrised simulator of particle showers in a calorimeter of 44 x 44 fibres; formulas, not particle transport.

It is NOT Geant4, and nothing measured on it says anything of a detector. It is a stand-in with the same interface as
the response of the ALICE Zero Degree Calorimeter, where the laws that a model must learn are known. A particle with
mass m, charge q, energy E (GeV), momentum (GeV) and vertex (cm) flies along its momentum to the face of the calorimeter
at z = 0, which covers |x|, |y| < 3.52 cm. There:

  depth      dE/dt = E b (b t)^(a - 1) e^(-b t) / Gamma(a), the gamma profile (Longo & Sestili, 1975; Particle Data
             Group, Passage of particles through matter, electromagnetic cascades), t in radiation lengths X0. Each
             shower has its own ln T and ln a, a normal pair, T = (a - 1) / b its maximum, with
             <ln T> = ln(ln y - 0.812), s = 1 / (-1.4 + 1.26 ln y), <ln a> = ln(0.81 + (0.458 + 2.26 / Z) ln y),
             s = 1 / (-0.58 + 0.86 ln y), correlation 0.705 - 0.023 ln y, y = E / E_c (Grindhammer & Peters, 1993,
             homogeneous media). Photons start 1 X0 later, as their t_max is ln y + 0.5 and that of electrons ln y - 0.5
             (PDG). Energy beyond the depth of the calorimeter is lost.
  hadrons    (m > 0.1 GeV) their maximum lies at 0.2 ln E + 0.7 interaction lengths (Fabjan & Gianotti, 2003), after a
             start that is exponential with a length of one of them. The electromagnetic fraction is
             f = 1 - (E / E0)^(k - 1), k = 0.82, E0 = 1 GeV for mesons and 2.6 GeV for baryons (Groom, 2007; Wigmans,
             2000), with fluctuations of 0.2 (1 - f), and the rest of the energy is seen with h / e = 0.3.
  width      f(r) = p 2 r Rc^2 / (r^2 + Rc^2)^2 + (1 - p) 2 r Rt^2 / (r^2 + Rt^2)^2 (Grindhammer & Peters, 1993); for
             electromagnetic showers with their Rc, Rt and p at the mean depth of the shower, in Moliere radii; hadrons
             have three times the Rc and Rt.
  light      a fibre gives Poisson(photoelectrons per GeV x pitch^2 x the energy density at its centre), so
             that light depends on where between fibres a narrow core falls, by one or two per cent.

Of the constants only the material's and those of the readout are nominal, chosen for a tungsten alloy with fibres.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

CONDITIONS = ("mass", "charge", "energy", "px", "py", "pz", "vx", "vy", "vz")
FIBRES = 44


class Calorimeter(NamedTuple):
    """What the showers develop in; lengths in cm, energies in GeV."""

    pitch: float = 0.16  # between fibres
    depth: float = 100.0
    radiation_length: float = 0.5
    interaction_length: float = 12.0
    moliere: float = 1.2
    critical: float = 0.0082
    charge_number: float = 74.0
    photoelectrons: float = 60.0  # per GeV deposited by an electromagnetic shower
    hadronic: float = 0.3  # h / e


class Shower(NamedTuple):
    """What is drawn for each particle before any fibre is looked at, each (N,)."""

    visible: Tensor  # GeV that give light, within the depth of the calorimeter, at any distance from the axis
    x: Tensor  # where the axis of the shower is at its mean depth, cm
    y: Tensor
    core: Tensor  # Rc, cm
    tail: Tensor  # Rt, cm
    share: Tensor  # p, of the core


def longitudinal(energy: Tensor, calorimeter: Calorimeter) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means and standard deviations of ln T and ln a, and their correlation, for electromagnetic showers."""
    z = calorimeter.charge_number
    log_y = (energy / calorimeter.critical).log()
    mean_t, mean_a = (log_y - 0.812).log(), (0.81 + (0.458 + 2.26 / z) * log_y).log()
    return mean_t, 1 / (-1.4 + 1.26 * log_y), mean_a, 1 / (-0.58 + 0.86 * log_y), 0.705 - 0.023 * log_y


def lateral(energy: Tensor, depth: Tensor, calorimeter: Calorimeter) -> tuple[Tensor, Tensor, Tensor]:
    """Rc and Rt in Moliere radii and p, at a depth in units of that of the maximum."""
    z, log_e = calorimeter.charge_number, energy.log()
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * depth
    k1, k2 = 0.659 - 0.00309 * z, 0.645
    tail = k1 * ((-2.59 * (depth - k2)).exp() + ((0.3585 + 0.0421 * log_e) * (depth - k2)).exp())
    p1, p2, p3 = 2.632 - 0.00094 * z, 0.401 + 0.00187 * z, 1.313 - 0.0686 * log_e
    bent = (p2 - depth) / p3
    return core, tail, (p1 * (bent - bent.exp()).exp()).clamp(0, 1)


def em_fraction(energy: Tensor, baryon: Tensor) -> Tensor:
    """Mean electromagnetic fraction of a hadronic shower, 1 - (E / E0)^(k - 1) with k = 0.82."""
    scale = torch.where(baryon, 2.6, 1.0)
    return (1 - (energy / scale) ** (0.82 - 1)).clamp(0, 1)


def develop(particles: Tensor, generator: torch.Generator, calorimeter: Calorimeter = Calorimeter()) -> Shower:  # noqa: B008
    """The shower of each particle (N, 9), columns as in CONDITIONS."""
    mass, charge, energy, px, py, pz, vx, vy, vz = _checked(particles).unbind(1)
    normal = lambda: torch.randn(len(energy), generator=generator)  # noqa: E731
    mean_t, std_t, mean_a, std_a, rho = longitudinal(energy, calorimeter)
    one, two = normal(), normal()
    log_t, log_a = mean_t + std_t * one, mean_a + std_a * (rho * one + (1 - rho.square()).sqrt() * two)
    a = log_a.exp().clamp_min(1.1)
    hadron, photon = mass > 0.1, (mass == 0) & (charge == 0)
    interaction = calorimeter.interaction_length / calorimeter.radiation_length
    longest = torch.where(hadron, (0.2 * energy.log() + 0.7) * interaction, log_t.exp())  # depth of the maximum, in X0
    start = torch.where(
        hadron, torch.empty_like(energy).exponential_(generator=generator) * interaction, photon.float()
    )
    room = (calorimeter.depth / calorimeter.radiation_length - start).clamp_min(0)
    contained = torch.special.gammainc(a, (a - 1) / longest * room)
    fraction = em_fraction(energy, mass > 0.5)
    fraction = torch.where(hadron, (fraction + 0.2 * (1 - fraction) * normal()).clamp(0, 1), 1.0)
    seen = fraction + (1 - fraction) * calorimeter.hadronic
    mean_depth = a / (a - 1)  # in units of the maximum's
    core, tail, share = lateral(energy, mean_depth, calorimeter)
    wide = calorimeter.moliere * torch.where(hadron, 3.0, 1.0)
    along = -vz + (start + mean_depth * longest) * calorimeter.radiation_length
    return Shower(
        energy * contained * seen, vx + px / pz * along, vy + py / pz * along, core * wide, tail * wide, share
    )


def expected(shower: Shower, calorimeter: Calorimeter = Calorimeter()) -> Tensor:  # noqa: B008
    """Mean photoelectrons of every fibre, (N, 44, 44): rows along y, columns along x."""
    side = (torch.arange(FIBRES) - (FIBRES - 1) / 2) * calorimeter.pitch
    across, down = (side - shower.x[:, None]).square()[:, None, :], (side - shower.y[:, None]).square()[:, :, None]
    square = across + down
    light = shower.visible * calorimeter.photoelectrons * calorimeter.pitch**2 / math.pi

    def cloud(radius: Tensor, weight: Tensor) -> Tensor:
        r2 = radius.square()
        return (light * weight * r2)[:, None, None] * (square + r2[:, None, None]).square().reciprocal_()

    return cloud(shower.core, shower.share).add_(cloud(shower.tail, 1 - shower.share))


def simulate(particles: Tensor, *, seed: int = 0, batch: int = 512, calorimeter: Calorimeter = Calorimeter()) -> Tensor:  # noqa: B008
    """Photoelectrons of every fibre, (N, 44, 44) float32 whole numbers, for particles (N, 9) as in CONDITIONS.

    Raises ValueError for an energy below the mass or below 0.1 GeV, and for particles that fly away from the face.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.poisson(expected(develop(part, generator, calorimeter), calorimeter), generator=generator)
        for part in torch.as_tensor(particles, dtype=torch.float32).split(batch)
    ]
    return torch.cat(parts)


def _checked(particles: Tensor) -> Tensor:
    if particles.ndim != 2 or particles.shape[1] != len(CONDITIONS):
        raise ValueError(f"Expected particles (N, 9) with {', '.join(CONDITIONS)}, got {tuple(particles.shape)}.")
    mass, energy, pz, vz = (particles[:, CONDITIONS.index(c)] for c in ("mass", "energy", "pz", "vz"))
    wrong = ~((energy >= mass) & (energy >= 0.1) & (mass >= 0) & (pz > 0) & (vz <= 0))
    if wrong.any():
        raise ValueError(
            f"Expected energy >= mass >= 0, energy >= 0.1 GeV, pz > 0 and vz <= 0 (before the face), but particle "
            f"{int(wrong.nonzero()[0])} has others."
        )
    return particles


_KINDS = torch.tensor([[0.0, 0.0], [0.000511, -1], [0.13957, 1], [0.93827, 1], [0.93957, 0]])  # mass, charge
KINDS = ("photon", "electron", "pion", "proton", "neutron")


def particles(n: int, *, seed: int = 0) -> Tensor:
    """n particles (N, 9): five kinds alike, energy from 5 to 500 GeV evenly in its logarithm, aimed near the centre.

    Directions are normal with 10 mrad a plane, vertices even over |x|, |y| < 1.5 cm and -30 < z < -5 cm.
    """
    g = torch.Generator().manual_seed(seed)
    mass, charge = _KINDS[torch.randint(0, len(_KINDS), (n,), generator=g)].T
    energy = 5 * 100 ** torch.rand(n, generator=g)
    slope = 0.01 * torch.randn(2, n, generator=g)
    momentum = (energy.double().square() - mass.double().square()).sqrt()
    pz = (momentum / (1 + slope.double().square().sum(0)).sqrt()).float()
    vx, vy = 3 * torch.rand(2, n, generator=g) - 1.5
    vz = -5 - 25 * torch.rand(n, generator=g)
    return torch.stack([mass, charge, energy, slope[0] * pz, slope[1] * pz, pz, vx, vy, vz], 1)
