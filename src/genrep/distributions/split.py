"""A denoising autoencoder with a diffusion model of its noisy examples (DAED; Deja, Kuzina, Trzcinski & Tomczak, 2022).

x_1 ~ p(x_1), the chain x_T -> ... -> x_1 of one network; x_0 ~ p(x_0 | x_1), one pass of another. The first step of the
chain adds as much noise as wanted: q(x_1 | x_0) = N(sqrt(1 - beta_1) x_0, beta_1 I).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.basic import Cells, Gaussian
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.latent import Ancestral, LatentVariable
from genrep.distributions.processes import VariancePreserving
from genrep.distributions.samplers import SAMPLERS, Denoised, SamplerName
from genrep.distributions.schedules import Chain, ScheduleName, named
from genrep.distributions.subchains import steps_to
from genrep.naming import choose


def schedule(name: ScheduleName, steps: int, beta_1: float, levels: int | None = None) -> Tensor:
    """log abar of a chain whose first step has the noise beta_1, shorter by the steps of the whole that it stands for.

    Of `steps` those k go whose abar_k is closest to 1 - beta_1, and one takes their place. linear: beta_2, beta_3, ...
    run evenly over the values of the whole schedule, as in the released code; else they are those of its rest.

    >>> [len(schedule("linear", 500, b)) - 2 for b in (0.001, 0.025, 0.2, 0.3)]  # steps of the generator, as published
    [499, 489, 445, 426]
    """
    whole = named(name, steps, levels)
    replaced = steps_to(whole, beta_1)
    if replaced == steps:
        raise ValueError(
            f"beta_1={beta_1} replaces all {steps} steps: nothing is left to generate. Take a smaller one."
        )
    if name == "linear":
        scale = 1000 / steps
        betas = torch.linspace(0.001 * scale, 0.02 * scale, steps - replaced + 1, dtype=torch.float64)
        increments = torch.log1p(-betas.clamp_max(0.999))[1:]
    else:
        increments = whole.diff()[replaced:]
    first = torch.log1p(-torch.tensor([beta_1], dtype=torch.float64))
    return torch.cat([first.new_zeros(1), torch.cat([first, increments]).cumsum(0)])


class TwoDenoisers(Conditional):
    """denoiser(x_t, t): `last` up to the time of x_1, `others` after it; each example goes through one of them."""

    can_sample = False

    def __init__(self, others: Conditional, last: Conditional, border: float) -> None:
        super().__init__()
        self.others, self.last, self.border = others, last, border
        self.reads_y = others.reads_y

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        mine = t <= self.border + 1e-6
        if bool(mine.all()) or not bool(mine.any()):
            found = (self.last if bool(mine.any()) else self.others)(x, t, y=y)
            assert isinstance(found, Denoised)
            return found
        parts = []
        for part, denoiser in ((mine, self.last), (~mine, self.others)):
            found = denoiser(x[part], t[part], y=None if y is None else y[part])
            assert isinstance(found, Denoised)
            parts.append(found)
        back = torch.cat([mine.nonzero(), (~mine).nonzero()])[:, 0].argsort()
        interpolation = [p.interpolation for p in parts]
        mixed = interpolation[0] if isinstance(interpolation[0], float) else torch.cat(interpolation)[back]
        return Denoised(torch.cat([p.mean for p in parts])[back], mixed)


class NoisyGenerator(Conditional):
    """p(x_1): the steps x_T -> ... -> x_1 of a chain, each of them drawn."""

    def __init__(self, denoiser: Conditional, chain: Chain, shape: tuple[int, ...], levels: int | None) -> None:
        super().__init__()
        self.denoiser, self.chain, self.shape, self.levels = denoiser, chain, shape, levels
        self.reads_y = denoiser.reads_y

    def forward(self, *, y: Tensor | None = None) -> Ancestral:
        diffusion = Diffusion(self.denoiser, self.chain, self.shape, self.levels)

        def draw(n: int) -> Tensor:
            chain = self.chain
            x = torch.randn(n, *self.shape, device=chain.t.device, dtype=chain.t.dtype)
            for k in range(chain.steps, 1, -1):
                found = diffusion.denoise(x, chain.t[k].float().expand(n), y)
                x = chain.reverse(x, found.mean, k, found.interpolation).sample()
            return x

        return Ancestral(draw, None if y is None else len(y))


class DenoisingLikelihood(Conditional):
    """p(x_0 | x_1): a mass over the levels, or a Gaussian density, around what the denoiser makes of x_1."""

    def __init__(self, denoiser: Conditional, chain: Chain, levels: int | None) -> None:
        super().__init__()
        self.denoiser, self.chain, self.levels = denoiser, chain, levels
        self.reads_y, self.measure = denoiser.reads_y, "density" if levels is None else "mass"

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Cells | Gaussian:
        found = self.denoiser(x, self.chain.t[1].float().expand(len(x)), y=y)
        assert isinstance(found, Denoised)
        start = found.mean if self.levels is None else found.mean.clamp(-1, 1)
        step = self.chain.reverse(x, start, 1, found.interpolation)
        return step if self.levels is None else Cells(step.mean, step.log_std, self.levels, "normal")


class Noised(Conditional):
    """q(x_1 | x_0), which nothing learns."""

    can_sample = False

    def __init__(self, process: VariancePreserving, t: float) -> None:
        super().__init__()
        self.process, self.t = process, t

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Gaussian:
        return self.process(x, torch.full((len(x),), self.t, device=x.device))


class DenoisedDiffusion(LatentVariable):
    """The latent variable x_1 with its generator and denoiser; `whole` is the same as one chain with two networks.

    What samples and bounds a diffusion model does so here, too: minus the bound is the sum of -log p(x_0 | x_1) and the
    divergences of the generator's steps (eq. 5.5 of the thesis).
    """

    def __init__(
        self, others: Conditional, last: Conditional, chain: Chain, shape: tuple[int, ...], levels: int | None
    ) -> None:
        super().__init__(
            NoisyGenerator(others, chain, shape, levels),
            DenoisingLikelihood(last, chain, levels),
        )
        self.whole = Diffusion(TwoDenoisers(others, last, float(chain.t[1])), chain, shape, levels)

    def forward(
        self, *, y: Tensor | None = None, sampler: SamplerName = "ancestral", evaluations: int = 0
    ) -> Ancestral:
        """How samples are drawn; the last evaluation is always the denoiser's.

        Args:
            sampler: ancestral draws every step of the generator; ddim, heun and dpm_solver follow the
                probability-flow equation.
            evaluations: Of both networks per sample; 0: all for ancestral, 50 ddim, 39 heun, 20 dpm_solver.
        """
        used = self.evaluations(sampler=sampler, evaluations=evaluations)
        chain = through_first(self.whole.chain, SAMPLERS[sampler].steps(used))
        part = Diffusion(self.whole.denoiser, chain, self.whole.shape, self.whole.levels)
        return part(y=y, sampler=sampler, evaluations=used)

    def evaluations(self, *, sampler: SamplerName = "ancestral", evaluations: int = 0) -> int:
        if SAMPLERS[choose(sampler, SAMPLERS, "sampler")].spaced:
            raise ValueError(f"sampler={sampler} passes by x_1, where the denoiser begins. Take ddim or dpm_solver.")
        if evaluations == 1:
            raise ValueError("Expected at least 2 evaluations: one of the generator, one of the denoiser.")
        return self.whole.evaluations(sampler=sampler, evaluations=evaluations)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        return {"vlb": Way(self.whole.vlb, "lower bound", self.measure)}


def through_first(chain: Chain, steps: int) -> Chain:
    """The chain through x_0, x_1 and steps - 1 later points, evenly taken."""
    if steps == chain.steps:
        return chain
    later = torch.linspace(1, chain.steps, steps, dtype=torch.float64).round().long()
    index = torch.cat([later.new_zeros(1), later])
    return Chain(chain.schedule[index], chain.times[index]).to(chain.t)


class TwoFeatures(nn.Module):
    """(x_t, t) -> {layer: (B, d)} of the network that works at t."""

    def __init__(self, others: nn.Module, last: nn.Module, border: float) -> None:
        super().__init__()
        self.others, self.last, self.border = others, last, border

    def forward(self, x: Tensor, t: Tensor) -> dict[str, Tensor]:
        mine = (t <= self.border + 1e-6)[:, None]
        a, b = self.last(x, t), self.others(x, t)
        return {layer: torch.where(mine, a[layer], b[layer]) for layer in a}
