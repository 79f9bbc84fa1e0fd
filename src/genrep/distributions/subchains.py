"""Parts of a chain: its beginning, its beginning joined into one step, and walks along either."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genrep.distributions.diffusion import Diffusion
from genrep.distributions.samplers import SAMPLERS, Denoised, SamplerName
from genrep.distributions.schedules import Chain
from genrep.naming import choose

Watch = Callable[[Tensor, Tensor], None]  # x_t and its times (B,), before the network reads them


def until(chain: Chain, k: int) -> Chain:
    """The chain x_0, ..., x_k: the first k of its steps."""
    if not 1 <= k <= chain.steps:
        raise ValueError(f"Expected 1 to {chain.steps} steps, got {k}.")
    return Chain(chain.schedule[: k + 1], chain.times[: k + 1]).to(chain.t)


def joined(chain: Chain, k: int) -> Chain:
    """The chain x_0, x_k, x_(k+1), ..., x_T: its first k steps are one. k = 1 is the chain itself."""
    if not 1 <= k <= chain.steps:
        raise ValueError(f"Expected to join 1 to {chain.steps} steps, got {k}.")
    index = torch.cat([torch.zeros(1, dtype=torch.int64), torch.arange(k, chain.steps + 1)])
    return Chain(chain.schedule[index], chain.times[index]).to(chain.t)


def steps_to(schedule: Tensor, beta_1: float) -> int:
    """The step k >= 1 whose abar_k is closest to 1 - beta_1, for a schedule log abar (T + 1,)."""
    if not 0 < beta_1 < 1:
        raise ValueError(f"Expected 0 < beta_1 < 1, the noise of the first step, got {beta_1}.")
    return int((schedule[1:].exp() - (1 - beta_1)).abs().argmin()) + 1


def walked(
    diffusion: Diffusion,
    chain: Chain,
    start: Tensor,
    y: Tensor | None = None,
    sampler: SamplerName = "ancestral",
    watch: Watch | None = None,
) -> Tensor:
    """x_0 from start = x_n at the end of `chain`, whose times are those of the diffusion's network."""
    found, plain = SAMPLERS[choose(sampler, SAMPLERS, "sampler")], diffusion.along(chain, y)

    def denoise(x: Tensor, k: int | Tensor) -> Denoised:
        if watch is not None:
            watch(x, (chain.t[k] if isinstance(k, int) else diffusion.chain.time_of(k)).float().expand(len(x)))
        return plain(x, k)

    return found.walk(denoise, start, chain)
