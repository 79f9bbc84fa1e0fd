"""Mixtures of logistic distribution functions as monotone maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genrep.distributions.flows.elementwise import Elementwise, bounded
from genrep.distributions.flows.root import bisect, with_gradient_of


class LogisticMixture(Elementwise):
    """z = exp(a) logit(sum_k w_k sigmoid((x - m_k) / s_k)) + t (Flow++, Ho et al., 2019).

    Of the 3 K + 2 parameters, K give weights (softmax), K means within 4 of the start, K scales, s = exp(2 tanh(raw /
    2)), then a = 3 tanh(raw / 3) and t. The inverse is a quantile of the mixture, which lies between the quantiles of
    its components, and is found by bisection. The means start evenly over [-1, 1].
    """

    start: Tensor

    def __init__(self, components: int = 8) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"Expected at least 1 component, got {components}.")
        self.components, self.size = components, 3 * components + 2
        start = torch.linspace(-1, 1, components) if components > 1 else torch.zeros(1)
        self.register_buffer("start", start, persistent=False)

    def forward(self, x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        weights, means, log_scales, log_scale, shift = self._parameters_of(p)
        odds, log_slope = _log_odds(x, weights, means, log_scales)
        return odds * log_scale.exp() + shift, log_slope + log_scale

    def inverse(self, z: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        weights, means, log_scales, log_scale, shift = self._parameters_of(p)
        target = (z - shift) * (-log_scale).exp()
        quantiles = means + log_scales.exp() * target[..., None]
        f = lambda x: _log_odds(x, weights, means, log_scales)[0]  # noqa: E731
        x = bisect(f, target, quantiles.amin(-1), quantiles.amax(-1))
        if torch.is_grad_enabled():
            odds, log_slope = _log_odds(x, weights, means, log_scales)
            x = with_gradient_of(x, odds, target, log_slope.exp())
        return x, -(_log_odds(x, weights, means, log_scales)[1] + log_scale)

    def _parameters_of(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales (B, *event, K), then a and t (B, *event)."""
        k = self.components
        weights, means, log_scales, rest = p.movedim(1, -1).split([k, k, k, 2], -1)
        log_scale, shift = rest.unbind(-1)
        means = self.start.to(p.dtype) + bounded(means, 4.0)
        return weights.log_softmax(-1), means, bounded(log_scales, 2.0), bounded(log_scale, 3.0), shift


def _log_odds(x: Tensor, weights: Tensor, means: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """log F - log(1 - F) of the mixture and the log of its slope in x, log p - log F - log(1 - F)."""
    u = (x[..., None] - means) * (-log_scales).exp()
    below, above = F.logsigmoid(u), F.logsigmoid(-u)
    log_below, log_above = (weights + below).logsumexp(-1), (weights + above).logsumexp(-1)
    log_density = (weights + below + above - log_scales).logsumexp(-1)
    return log_below - log_above, log_density - log_below - log_above
