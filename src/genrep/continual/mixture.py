"""Latent spaces with a component for each kind of data, of which more come into use as data ask for them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from genrep.continual.replay import Memories, replayed
from genrep.contracts import Batch, Conditional, Model, Objective, Terms
from genrep.distributions.basic import Event, Gaussian, kl
from genrep.distributions.heads import GaussianHead
from genrep.distributions.priors import Mixture
from genrep.nets.condition import encode_condition
from genrep.objectives.autoencoding import inside

_NONE = -1e4  # log-weight of a component that is not in use


class Mixtures(Event):
    """For each of a batch sum_k w_k N(mean_k, std_k): mean and log_std (B, K, D), log_weight (B, K), normalised here.

    A draw is differentiable in means and deviations, not in weights.
    """

    has_rsample = True

    def __init__(self, mean: Tensor, log_std: Tensor, log_weight: Tensor) -> None:
        super().__init__(mean[:, 0], batched=True)
        self.each_mean, self.each_log_std, self.log_weight = mean, log_std, log_weight.log_softmax(1)

    @property
    def mean(self) -> Tensor:
        return (self.log_weight.exp().unsqueeze(2) * self.each_mean).sum(1)

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        n = torch.Size(sample_shape).numel()
        chosen = torch.multinomial(self.log_weight.exp().detach(), n, replacement=True)  # (B, n)
        index = chosen.unsqueeze(2).expand(-1, -1, self.each_mean.shape[2])
        mean, log_std = self.each_mean.gather(1, index), self.each_log_std.gather(1, index)
        drawn = mean + log_std.exp() * torch.randn_like(mean)
        return drawn.transpose(0, 1).reshape(*sample_shape, *drawn.shape[::2])

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, D) -> (B,)."""
        n, k, d = self.each_mean.shape
        each = Gaussian(self.each_mean.reshape(n * k, d), self.each_log_std.reshape(n * k, d))
        at = value.unsqueeze(1).expand(n, k, d).reshape(n * k, d)
        return (each.log_prob(at).view(n, k) + self.log_weight).logsumexp(1)


class Components(Conditional):
    """p(z | y) = sum_k p(k | y) N(m_k, s_k), p(k | y) by counts; `active` of at most K are in use.

    What a component must hold to count as well described: `level` and `spread` of the bound on the last task.
    """

    active: Tensor
    counts: Tensor
    level: Tensor
    spread: Tensor

    def __init__(self, latent: int, components: int, labels: int) -> None:
        super().__init__()
        self.mean, self.log_std = (nn.Parameter(torch.zeros(components, latent)) for _ in range(2))
        self.reads_y = labels > 0
        self.register_buffer("active", torch.ones((), dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(max(labels, 1), components))
        self.register_buffer("level", torch.zeros(()))
        self.register_buffer("spread", torch.zeros(()))

    @property
    def capacity(self) -> int:
        return len(self.mean)

    def masked(self, log_weight: Tensor) -> Tensor:
        """(..., K), with nothing left for components that are not in use."""
        return log_weight.masked_fill(torch.arange(self.capacity, device=log_weight.device) >= self.active, _NONE)

    def log_weights(self, y: Tensor | None, n: int) -> Tensor:
        """log p(k | y), (n, K), with one example added to each count."""
        total = self.counts.sum(0).expand(n, -1)
        if self.reads_y and y is not None:
            total = torch.where((y >= 0).unsqueeze(1), self.counts[y.clamp_min(0)], total)
        return self.masked((total + 1).log())

    def forward(self, *, y: Tensor | None = None) -> Event:
        if self.reads_y:
            assert y is not None
            n = len(y)
            return Mixtures(self.mean.expand(n, -1, -1), self.log_std.expand(n, -1, -1), self.log_weights(y, n))
        return Mixture(self.mean, self.log_std, self.log_weights(None, 1)[0])

    @torch.no_grad()
    def draw(self, n: int, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Components (n,) and codes (n, D)."""
        k = torch.multinomial(self.log_weights(y, n).softmax(1), 1)[:, 0]
        return k, Gaussian(self.mean[k], self.log_std[k]).sample()


class Assigned(Conditional):
    """q(z | x) = sum_k q(k | x) N(m_k(x), s_k(x)) on the network of a Gaussian posterior, a linear head for each k.

    Every head starts as the identity, so that with one component q is the posterior that it is built on.
    """

    def __init__(self, posterior: GaussianHead, prior: Components) -> None:
        super().__init__()
        width, k = 2 * prior.mean.shape[1], prior.capacity
        self.net, self.condition_width, self.reads_y = posterior.net, posterior.condition_width, posterior.reads_y
        self.prior = (prior,)  # in a tuple: a part of the generative model
        self.heads = nn.Parameter(torch.eye(width).repeat(k, 1, 1))
        self.biases = nn.Parameter(torch.zeros(k, width))
        self.label = nn.Linear(width, k)

    def parts(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Means and log standard deviations (B, K, D), and log q(k | x), (B, K)."""
        c = encode_condition(y, self.condition_width, x) if self.reads_y else None
        h = self.net(x, c).float().flatten(1)
        mean, log_std = (torch.einsum("bi,kij->bkj", h, self.heads) + self.biases).chunk(2, 2)
        return mean, log_std.clamp(-10, 10), self.prior[0].masked(self.label(h)).log_softmax(1)

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> Mixtures:
        return Mixtures(*self.parts(x, y))


class Bound(NamedTuple):
    """Terms for each example (B, A) of each of the A components in use, and log q(k | x)."""

    distortion: Tensor
    rate: Tensor
    log_label: Tensor
    mean: Tensor  # of q(z | x, k), (B, A, D)

    def terms(self, weights: Tensor) -> Terms:
        """Means over components under weights (B, A), and sum_k w_k log w_k + log A, their divergence from uniform."""
        return {
            "distortion": (weights * self.distortion).sum(1),
            "rate": (weights * self.rate).sum(1),
            "component": math.log(weights.shape[1]) - torch.special.entr(weights).sum(1),
        }


def bound(model: Model, x: Tensor, y: Tensor | None, only: Tensor | None = None) -> Bound:
    """The terms for each component in use, or with `only` (B,) for that component alone, with A = 1 there."""
    latent, prior = cast(Assigned, model.inference.latent), cast(Components, model.generative.get_submodule("prior"))
    mean, log_std, log_label = latent.parts(x, y)
    n, (_, _, d) = int(prior.active), mean.shape
    chosen = torch.arange(n, device=x.device).expand(len(x), -1) if only is None else only.unsqueeze(1)
    index = chosen.unsqueeze(2).expand(-1, -1, d)
    a = chosen.shape[1]
    q = Gaussian(mean.gather(1, index).flatten(0, 1), log_std.gather(1, index).flatten(0, 1))
    p = Gaussian(prior.mean[chosen].flatten(0, 1), prior.log_std[chosen].flatten(0, 1))
    wide = x.repeat_interleave(a, 0)
    given = None if y is None else y.repeat_interleave(a, 0)
    said = model.generative.get_submodule("likelihood")(q.rsample(), y=given)
    divergence = kl(q, p)
    assert divergence is not None
    return Bound(
        -said.log_prob(wide).view(-1, a), divergence.view(-1, a), log_label.gather(1, chosen), q.mean.view(-1, a, d)
    )


class Gathered(nn.Module):
    """What examples that no component describes well have in common: sums over them, since the last expansion."""

    count: Tensor
    label: Tensor
    first: Tensor
    second: Tensor
    since: Tensor
    newest: Tensor

    def __init__(self, prior: Components) -> None:
        super().__init__()
        k, d = prior.mean.shape
        for name, shape in (("count", ()), ("label", (k,)), ("first", (d,)), ("second", (d,)), ("since", ())):
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("newest", torch.full((), -1))

    def add(self, label: Tensor, z: Tensor) -> None:
        """q(k | x), (n, A), and codes (n, D)."""
        self.count += len(z)
        self.label[: label.shape[1]] += label.sum(0)
        self.first += z.sum(0)
        self.second += z.square().sum(0)

    def clear(self, newest: int = -1) -> None:
        """Begin again; `newest`: the component that came into use just now."""
        for t in self.buffers():
            t.zero_()
        self.newest.fill_(newest)


class Unsupervised(Objective):
    """sum_k q(k | x) [-log p(x | z_k) + beta KL(q(z | x, k) || p(z | k))] + KL(q(k | x) || uniform).

    On draws of the teacher, whose component k is known, -log p(x | z_k) + beta KL_k - log q(k | x) (Rao et al., 2019).
    In train mode it gathers new examples whose bound lies `deviations` below that of the last task; for `wait` updates
    after a component came into use for them, they count as that component's, and its label is learnt.
    """

    probation = 2**31  # with one component there is no label to learn, so its gradient may come late or never

    def __init__(self, prior: Components, weights: dict[str, float], deviations: float, wait: int) -> None:
        self.terms = {"distortion": weights["distortion"], "rate": weights["rate"], "component": 1.0, "label": 1.0}
        super().__init__()
        self.gathered, self.deviations, self.wait = Gathered(prior), deviations, wait
        self.teacher: tuple[Memories, float] | tuple[()] = ()  # in a tuple: no part of the phase's model

    def taught_by(self, memories: Memories, share: float) -> None:
        self.teacher = (memories, share)

    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        k = replayed(self.teacher[1], len(batch.x)) if self.teacher else 0
        x, y = inside(model, Batch(batch.x[k:])), None if batch.y is None else batch.y[k:]
        new = self._new(model, x, y) if len(x) else {}
        old = self._replayed(model, k) if k else {}
        none = x.new_zeros(len(x) + k).split([len(x), k])  # a term that a part lacks is zero there
        return {key: torch.cat([new.get(key, none[0]), old.get(key, none[1])]) for key in {**new, **old}}

    def _new(self, model: Model, x: Tensor, y: Tensor | None) -> Terms:
        found = bound(model, x, y)
        terms = found.terms(found.log_label.exp())
        if not self.training:
            return terms
        g, prior = self.gathered, cast(Components, model.generative.get_submodule("prior"))
        g.since += 1
        if not prior.spread > 0:  # before the second task nothing tells what is poor
            return terms
        with torch.no_grad():
            value = -sum(self.weights[key] * t for key, t in terms.items())
            poor = value < prior.level - self.deviations * prior.spread
            best = found.log_label[poor].argmax(1)
            g.add(found.log_label[poor].exp(), found.mean[poor, best])
        if not 0 <= g.newest or g.since > self.wait:
            return terms
        newest = int(g.newest)  # it came into use for such examples, so for a while they are its own
        own = {key: torch.where(poor, t, terms[key]) for key, t in found.terms(one_hot(newest, found)).items()}
        return own | {"label": torch.where(poor, -found.log_label[:, newest], 0.0)}

    def _replayed(self, model: Model, n: int) -> Terms:
        assert self.teacher
        memories = self.teacher[0]
        y, generative = memories.labels(n), cast(Any, memories.model.generative)
        with torch.no_grad():
            k, z = generative.prior.draw(n, y)
            x = inside(model, Batch(memories.model.domain.outward(generative.likelihood(z, y=y).mean)))
        found = bound(model, x, y, only=k)
        return {"distortion": found.distortion[:, 0], "rate": found.rate[:, 0], "label": -found.log_label[:, 0]}


def one_hot(component: int, found: Bound) -> Tensor:
    """All weight on one component, (B, A)."""
    weights = torch.zeros_like(found.log_label)
    weights[:, component] = 1
    return weights


@torch.no_grad()
def expand(prior: Components, latent: Assigned, gathered: Gathered) -> None:
    """A new component: heads and label as of the one that the gathered were given to, its prior around their codes."""
    parent, new = int(gathered.label.argmax()), int(prior.active)
    mean = gathered.first / gathered.count
    variance = gathered.second / gathered.count - mean.square()
    prior.mean[new], prior.log_std[new] = mean, 0.5 * variance.clamp_min(1e-4).log()
    for t in (latent.heads, latent.biases, latent.label.weight, latent.label.bias):
        t[new] = t[parent]
    prior.active += 1
    gathered.clear(new)
