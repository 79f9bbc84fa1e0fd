"""Latents of a band: normals and bits, with the code of the band beside them, and what each band draws."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep.contracts import Conditional
from genrep.distributions.basic import KL, Bernoulli, Event, Gaussian, kl
from genrep.distributions.latent import Ancestral
from genrep.nets.translator import band_codes

# of the mixtures that bands are fitted with
_EXAMPLES = 10  # at least so many for each component and dimension
_MOST = 10_000  # examples that a fit reads
_RIDGE = 1e-3  # added to variances


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


class BandMixtures(Conditional):
    """p(lambda, code | band) = sum_k w_k N(normals; m_k, S_k) prod_d Bernoulli(bit_d; p_kd), and the code of the band.

    A VAE draws what it has not learnt wherever the codes of the data, on average over the data, are not distributed as
    its prior (Tomczak & Welling, 2018). Fitting their distribution when training has ended mends that (Ghosh et al.,
    2020, section 4), and a band keeps a few numbers for it: K (1 + C + C^2 + D) for C normals, D bits and K components.

    y is the band, (B,) int64; -1 draws one in proportion to the counts of `prior`. Draws are (B, C + D + code), like
    those of BandPrior; there is no density. A band that was not fitted draws N(0, I) and fair bits.
    """

    weights: Tensor
    means: Tensor
    scales: Tensor
    bits: Tensor

    def __init__(self, prior: BandPrior, components: int) -> None:
        super().__init__()
        self.of, bands = (prior,), len(prior.counts)  # in a tuple: the prior is a part of the model
        c, d = prior.latent, prior.binary
        self.register_buffer("weights", torch.eye(1, components).repeat(bands, 1))  # until fitted: N(0, I), fair bits
        self.register_buffer("means", torch.zeros(bands, components, c))
        self.register_buffer("scales", torch.eye(c).repeat(bands, components, 1, 1))  # S = scale scale^T
        self.register_buffer("bits", torch.full((bands, components, d), 0.5))

    @property
    def counts(self) -> Tensor:
        return self.of[0].counts

    def forward(self, *, y: Tensor | None = None) -> Ancestral:
        assert y is not None
        (prior,) = self.of

        def draw(n: int) -> Tensor:
            band = torch.where(y < 0, prior.drawn(n), y) if bool((y < 0).any()) else y
            k = torch.multinomial(self.weights[band], 1)[:, 0]
            noise = torch.randn(n, prior.latent, 1, device=k.device)
            normals = self.means[band, k] + (self.scales[band, k] @ noise)[..., 0]
            return torch.cat([normals, torch.bernoulli(self.bits[band, k]), prior.codes[band]], 1)

        return Ancestral(draw, len(y))

    @torch.no_grad()
    def fit(self, band: int, latents: Tensor) -> None:
        """Fit a band to latents (normals, bits, ...), (N, at least C + D), by expectation maximisation.

        Components are as many as leave ten examples for each of them and each dimension, at least one.
        """
        c, d = self.of[0].latent, self.of[0].binary
        if len(latents) > _MOST:
            latents = latents[torch.randperm(len(latents))[:_MOST]]
        x = latents[:, : c + d].double().cpu().numpy()
        k = max(1, min(self.weights.shape[1], len(x) // (_EXAMPLES * (c + d))))
        seed = int(torch.randint(2**31, ()))
        found = GaussianMixture(k, reg_covar=_RIDGE, init_params="k-means++", random_state=seed)
        with warnings.catch_warnings(), threadpool_limits(1, "blas"):  # its matrices are too small to share
            warnings.simplefilter("ignore", ConvergenceWarning)  # one that still improves draws well enough
            found.fit(x)
        means, covariances = (torch.as_tensor(a) for a in (found.means_, found.covariances_))
        self.weights[band] = 0
        self.weights[band, :k] = torch.as_tensor(found.weights_).to(self.weights)
        self.means[band, :k] = means[:, :c].to(self.means)
        self.scales[band, :k] = torch.linalg.cholesky(covariances[:, :c, :c]).to(self.scales)
        self.bits[band, :k] = means[:, c:].clamp(0, 1).to(self.bits)


class OneBand(Conditional):
    """The prior of one band, or with -1 of all in proportion to their counts, without a condition."""

    def __init__(self, prior: BandPrior | BandMixtures, band: int) -> None:
        super().__init__()
        self.prior, self.band = prior, band

    def forward(self, *, y: Tensor | None = None) -> Distribution:
        like = self.prior.counts
        return Ancestral(lambda n: self.prior(y=torch.full((n,), self.band, device=like.device)).sample(), None)
