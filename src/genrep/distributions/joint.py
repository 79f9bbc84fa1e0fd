"""A diffusion model and a classifier that share one encoder (Deja, Trzcinski & Tomczak, 2023).

The U-Net's encoder gives feature maps h = e(x_t, t), its decoder the estimate of x_0 from h, and a head logits of
p(y | h) from the mean of every map over its pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from genrep.contracts import Conditional, Inference, Way
from genrep.distributions.diffusion import Denoiser, Diffusion
from genrep.distributions.latent import Ancestral
from genrep.distributions.samplers import Denoised, SamplerName
from genrep.naming import choose
from genrep.nets.unet import Encoded, UNet, pooled

GuidanceName = Literal["none", "features", "classifier"]
USUAL_SCALE = {"none": 0.0, "features": 150.0, "classifier": 1.0}


class JointLabel(Conditional):
    """p(y | x_t, t) = softmax(head(pooled maps of the encoder)); label(x) is that of the data, t = 0."""

    measure = "mass"
    can_sample = False

    def __init__(self, net: UNet, head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head

    def forward(self, x: Tensor, t: Tensor | None = None, *, y: Tensor | None = None) -> Categorical:
        return self.of(self.net.encode(x, torch.zeros(len(x), device=x.device) if t is None else t))

    def of(self, encoded: Encoded) -> Categorical:
        """From what the encoder left, so that one pass serves denoiser and classifier."""
        logits = self.head(torch.cat(list(pooled(encoded).values()), 1)).float()
        return Categorical(logits=logits, validate_args=False)


def log_probability(label: Categorical, y: Tensor) -> Tensor:
    """log p(y), (B,): of labels (B,), 0 where -1 says that any will do, or of soft labels (B, C)."""
    if y.is_floating_point():
        return (y * label.logits).sum(1)
    return label.logits.gather(1, y.clamp_min(0)[:, None])[:, 0] * (y >= 0)


class FeatureGuided(Conditional):
    """A denoiser whose maps are moved towards the class: x_0 from h + scale grad_h log p(y | h).

    Algorithm 1 of Deja et al. (2023), with the sign that their words ask for: printed is a minus. Only the head is
    differentiated, so a step costs one network evaluation.
    """

    reads_y, can_sample = True, False

    def __init__(self, denoiser: Denoiser, label: JointLabel, scale: float) -> None:
        super().__init__()
        self.denoiser, self.label, self.scale = denoiser, label, scale

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        assert y is not None
        net = self.label.net
        moved = self.moved(net.encode(x, t), y)
        return self.denoiser.read(x, net.decode(moved), t)

    def moved(self, encoded: Encoded, y: Tensor) -> Encoded:
        """The maps h + scale grad_h log p(y | h); every skip and the middle move, the embedding of t stays."""
        levels = [len(level) for level in encoded.skips]
        maps = [h.detach() for level in encoded.skips for h in level] + [encoded.middle.detach()]
        with torch.enable_grad():
            maps = [h.requires_grad_() for h in maps]
            told = log_probability(self.label.of(_joined(maps, levels, encoded.embedding)), y)
            slopes = torch.autograd.grad(told.sum(), maps)
        moved = [(h + self.scale * slope).detach() for h, slope in zip(maps, slopes, strict=True)]
        return _joined(moved, levels, encoded.embedding)


class ClassifierGuided(Conditional):
    """A denoiser whose score gains scale grad_x log p(y | x_t): x_0 + scale s^2 / a grad_x log p(y | x_t).

    In an ancestral step that moves the mean by scale beta_k / sqrt(1 - beta_k) times the gradient, as Dhariwal & Nichol
    (2021), algorithm 1, do with the step's variance; for samplers without noise it is their algorithm 2. The gradient
    runs back through the encoder, so a step costs about two network evaluations.
    """

    reads_y, can_sample = True, False

    def __init__(self, denoiser: Denoiser, label: JointLabel, scale: float) -> None:
        super().__init__()
        self.denoiser, self.label, self.scale = denoiser, label, scale

    def forward(self, x: Tensor, t: Tensor, *, y: Tensor | None = None) -> Denoised:
        assert y is not None
        net = self.label.net
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            encoded = net.encode(leaf, t)
            (slope,) = torch.autograd.grad(log_probability(self.label.of(encoded), y).sum(), leaf)
        with torch.no_grad():
            found = self.denoiser.read(x, net.decode(encoded), t)
            alpha, sigma = self.denoiser.process.scales(t, x)
            return Denoised(found.mean + self.scale * sigma.square() / alpha * slope, found.interpolation)


def _joined(maps: list[Tensor], levels: list[int], embedding: Tensor) -> Encoded:
    """Skips level by level, so many in each, and the middle, from one list."""
    left = iter(maps)
    return Encoded([[next(left) for _ in range(n)] for n in levels], next(left), embedding)


class JointDiffusion(Conditional):
    """p(x) of a diffusion model, and p(x | y) of the same model steered by the classifier that shares its encoder."""

    accepts_y = True

    def __init__(self, diffusion: Diffusion, label: JointLabel) -> None:
        super().__init__()
        self.diffusion, self.label, self.measure = diffusion, label, diffusion.measure

    def guided(self, y: Tensor | None, guidance: GuidanceName = "none", scale: float | None = None) -> Diffusion:
        """The diffusion steered towards y, or as it is.

        Raises ValueError for guidance without a condition, for a condition without guidance, and for a negative scale.
        """
        choose(guidance, get_args(GuidanceName), "guidance")
        if guidance == "none":
            if y is not None:
                raise ValueError(
                    "The network of this model was made without a condition; its classifier can steer samples "
                    "towards one: choose guidance=features or guidance=classifier."
                )
            return self.diffusion
        if y is None:
            raise ValueError(f"guidance={guidance} needs a condition: the classes to steer towards.")
        strength = USUAL_SCALE[guidance] if scale is None else scale
        if not strength >= 0:
            raise ValueError(f"Expected scale >= 0, got {scale}: samples are steered towards the class.")
        plain = self.diffusion
        assert isinstance(plain.denoiser, Denoiser)
        steered = {"features": FeatureGuided, "classifier": ClassifierGuided}[guidance]
        return Diffusion(steered(plain.denoiser, self.label, strength), plain.chain, plain.shape, plain.levels)

    def forward(
        self,
        *,
        y: Tensor | None = None,
        sampler: SamplerName = "ancestral",
        evaluations: int = 0,
        guidance: GuidanceName = "none",
        scale: float | None = None,
    ) -> Ancestral:
        """How samples are drawn, from all classes or towards the condition.

        Args:
            sampler: ancestral draws every step; ddim, heun, dpm_solver, ode follow the probability-flow equation.
            evaluations: Of the network per sample; 0: all for ancestral, 50 ddim, 39 heun, 20 dpm_solver, 41 ode.
            guidance: How the classifier leads samples to the condition: features moves the encoder's feature maps
                towards it in every step, classifier adds the gradient of log p(y | x_t) to the score.
            scale: Size of that step, 150 for features and 1 for classifier if left out; larger ones show the class more
                plainly and vary less.
        """
        return self.guided(y, guidance, scale)(y=y, sampler=sampler, evaluations=evaluations)

    def evaluations(
        self,
        *,
        sampler: SamplerName = "ancestral",
        evaluations: int = 0,
        guidance: GuidanceName = "none",
        scale: float | None = None,
    ) -> int:
        return self.diffusion.evaluations(sampler=sampler, evaluations=evaluations)

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        return self.diffusion.likelihoods(inference)
