"""Latents of a band: normals and bits, with the code of the band beside them, and what each band draws."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Conditional
from genrep.distributions.basic import KL, Bernoulli, Event, Gaussian, kl
from genrep.distributions.latent import Ancestral
from genrep.nets.translator import band_codes


def relaxed_bits(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """sigmoid((l + log u - log(1 - u)) / T) with u uniform: above 1/2 with probability sigmoid(l), whatever T.

    The two-way Gumbel-softmax with the logits (l, 0). Jang et al. (2017); Maddison et al. (2017).
    """
    u = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    return ((logits + u.logit()) / temperature).sigmoid()


class Band(Event):
    """(lambda, code): C independent normals, D independent bits of the given logits, and K digits that are known.

    With a `temperature` the bits of rsample are relaxed and rounded, with the gradient of the relaxed ones; without,
    they are drawn. log_prob and KL are those of normals and bits; the code has probability one.
    """

    has_rsample = True

    def __init__(
        self,
        normal: Gaussian,
        bits: Bernoulli,
        code: Tensor,
        temperature: Tensor | None = None,
        *,
        batched: bool = True,
    ) -> None:
        self.normal, self.bits, self.code, self.temperature = normal, bits, code, temperature
        super().__init__(self._joined(normal.mean, bits.logits, code), batched)

    @staticmethod
    def _joined(normal: Tensor, bits: Tensor, code: Tensor) -> Tensor:
        return torch.cat([normal, bits.to(normal), code.to(normal)], -1)

    @property
    def mean(self) -> Tensor:
        """The means of the normals, and the likelier value of each bit: a mean of bits is no latent of the band."""
        return self._joined(self.normal.mean, self.bits.logits > 0, self.code)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        normal, logits = self.normal.rsample(sample_shape), self.bits.logits
        logits = logits.expand(*sample_shape, *logits.shape)
        if self.temperature is None:
            bits = torch.bernoulli(logits.sigmoid())
        else:
            soft = relaxed_bits(logits, self.temperature)
            bits = (soft > 0.5).to(soft) + (soft - soft.detach())
        return self._joined(normal, bits, self.code.expand(*sample_shape, *self.code.shape))

    def log_prob(self, value: Tensor) -> Tensor:
        normal, bits, _ = value.split((*self.widths, self.code.shape[-1]), -1)
        return self.normal.log_prob(normal) + self.bits.log_prob(bits)

    @property
    def widths(self) -> tuple[int, int]:
        return self.normal.mean.shape[-1], self.bits.logits.shape[-1]


def bernoulli_kl(q: Bernoulli, p: Bernoulli) -> Tensor:
    """KL(q || p) = sum_d sigmoid(l_d) (l_d - m_d) + softplus(m_d) - softplus(l_d) for logits l of q, m of p; (B,)."""
    one, other = q.logits, p.logits.expand_as(q.logits)
    return (one.sigmoid() * (one - other) + F.softplus(other) - F.softplus(one)).sum(-1)


def _band_band(q: Band, p: Band) -> Tensor:
    rate = kl(q.normal, p.normal)
    assert rate is not None
    return rate + bernoulli_kl(q.bits, p.bits)


KL[(Band, Band)] = _band_band


class BandHead(Conditional):
    """q(lambda | x) from a network with outputs (B, 2, C + D): means and log standard deviations of C normals; the last
    D means are the logits of bits, and what stands beside them is not used. y says which band the code is of.

    In train mode bits are relaxed, at a temperature that falls geometrically from `warmest` to `coldest` over
    `annealing` passes, which are counted in a buffer.
    """

    codes: Tensor
    passes: Tensor

    def __init__(
        self,
        net: nn.Module,
        binary: int,
        bands: int = 1,
        *,
        conditional: bool = False,
        warmest: float = 1.0,
        coldest: float = 0.5,
        annealing: int = 500,
    ) -> None:
        super().__init__()
        self.net, self.binary, self.reads_y = net, binary, conditional
        self.warmest, self.coldest, self.annealing = warmest, coldest, annealing
        self.register_buffer("codes", band_codes(bands), persistent=False)
        self.register_buffer("passes", torch.zeros(()))

    @property
    def temperature(self) -> Tensor:
        return self.warmest * (self.coldest / self.warmest) ** (self.passes / self.annealing).clamp_max(1)

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Band:
        mean, log_std = self.net(x).float().unbind(1)
        split = mean.shape[1] - self.binary
        normal = Gaussian(mean[:, :split], log_std[:, :split].clamp(-10, 10))
        code = _codes(self.codes, y if self.reads_y else None, len(x))
        temperature = None
        if self.training:
            temperature = self.temperature
            self.passes += 1
        return Band(normal, Bernoulli(mean[:, split:]), code, temperature)


def _codes(codes: Tensor, y: Tensor | None, n: int) -> Tensor:
    """(n, K): the code of each band, zeros for an unknown one, the first band's where y is not read."""
    if y is None:
        return codes[0].expand(n, -1)
    return torch.where((y < 0)[:, None], 0.0, codes[y.clamp_min(0)])


class BandPrior(Conditional):
    """p(lambda, code | band): standard normals, bits with the probabilities of the band, and its code.

    y is the band; -1 draws one in proportion to `counts`, the examples each band has. Where there is but one band, y
    is not read.
    """

    codes: Tensor
    counts: Tensor
    logits: Tensor

    def __init__(self, latent: int, binary: int, bands: int = 1, *, conditional: bool = False) -> None:
        super().__init__()
        self.latent, self.binary, self.reads_y = latent, binary, conditional
        self.register_buffer("codes", band_codes(bands), persistent=False)
        self.register_buffer("counts", torch.ones(bands, dtype=torch.int64))
        if binary:
            self.logits = nn.Parameter(torch.zeros(bands, binary))
        else:
            self.register_buffer("logits", torch.zeros(bands, 0), persistent=False)

    def forward(self, *, y: Tensor | None = None) -> Band:
        if not self.reads_y or y is None:
            zero = self.logits.new_zeros(self.latent)
            return Band(Gaussian(zero, zero, batched=False), Bernoulli(self.logits[0], batched=False), self.codes[0],
                        batched=False)  # fmt: skip
        known = torch.where(y < 0, self.drawn(len(y)), y) if bool((y < 0).any()) else y
        zero = self.logits.new_zeros(len(y), self.latent)
        return Band(Gaussian(zero, zero), Bernoulli(self.logits[known]), self.codes[known])

    def drawn(self, n: int) -> Tensor:
        """n bands in proportion to their counts, (n,) int64, from the global generator."""
        return torch.multinomial(self.counts.float(), n, replacement=True)

    @torch.no_grad()
    def set(self, band: int, probability: Tensor, count: int) -> None:
        """What a band has learnt: the mean probability of each of its bits, and of how many examples."""
        self.counts[band] = count
        if self.binary:
            self.logits[band] = probability.clamp(1e-4, 1 - 1e-4).logit().to(self.logits)


class OneBand(Conditional):
    """The prior of one band, or with -1 of all in proportion to their counts, without a condition."""

    def __init__(self, prior: BandPrior, band: int) -> None:
        super().__init__()
        self.prior, self.band = prior, band

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        like = self.prior.counts
        return Ancestral(lambda n: self.prior(y=torch.full((n,), self.band, device=like.device)).sample(), None)
