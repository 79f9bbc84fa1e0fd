"""The contracts of genrep; read this file first.  Model = generative + inference + objectives.

B batch, *x event of the data, *z event of a latent, t (B,) in [0, 1]. Log-probabilities are nats, summed over the
event. `y` is what is known of x: a label (B,) int64 with -1 for unknown, or soft labels or a condition (B, C) float.
Outside a model, x is what the data set holds; inside, what the model's `domain` says.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from genrep import storage
from genrep.version import __version__

Terms = dict[str, Tensor]  # raw, unweighted, each (B,) per example or () per batch; a term may be absent from a step
Kind = Literal["exact", "lower bound", "estimate"]
Measure = Literal["mass", "density", "improper"]  # improper: Bernoulli terms on grey values; good for training only


class DataSpec(NamedTuple):
    """What a model must know of the data before it has seen any."""

    shape: tuple[int, ...]  # (C, H, W) for images, (D,) for vectors
    levels: int | None = None  # x is an integer in [0, levels); None: real-valued
    classes: int = 0  # labels are integers in [0, classes); 0: no labels
    condition: int = 0  # width of a condition vector; 0: none. A set has labels or conditions, not both
    mean: tuple[float, ...] = ()  # real-valued data: per channel (or column) of the training split; so that
    std: tuple[float, ...] = ()  # models can work in standard units while users keep theirs

    @property
    def size(self) -> int:
        """Number of values in one example, the D of bits per dimension."""
        return int(torch.Size(self.shape).numel())


class Batch(NamedTuple):
    x: Tensor  # (B, *shape)
    y: Tensor | None = None  # (B,) int64 labels, or (B, condition) float


class Data(Protocol):
    """Random access: the batch of update k is a function of (seed, rank, k), not of how a loader was walked."""

    spec: DataSpec

    def __len__(self) -> int: ...
    def __getitem__(self, index: Tensor) -> Batch: ...


class LogLikelihood(NamedTuple):
    value: Tensor  # (B,) nats
    kind: Kind
    measure: Measure  # only masses over the same levels compare in bits per dimension


class Way(NamedTuple):
    """One way to a log-likelihood: f(x, y, **how) -> (B,), with x inside the domain."""

    f: Callable[..., Tensor]
    kind: Kind
    measure: Measure


class Domain(nn.Module):
    """Where a model computes; this one is the identity. Others map levels to [-1, 1], tables to standard units.

    For integer data, `continuous(x)` is `inward` of a point drawn uniformly from the cell [x - 1/2, x + 1/2).
    """

    def inward(self, x: Tensor) -> Tensor:
        """Data to inside. A floating x of integer data is inside already (soft targets, latents, replay)."""
        return x

    def outward(self, x: Tensor) -> Tensor:
        """Inside to data: integer data are rounded to the nearest level."""
        return x

    def continuous(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A continuous point inside, and log |d inside / dx|, (B,): log p(x) = log p_inside(point) + slope."""
        x = x if x.is_floating_point() else x.float()
        return x, x.new_zeros(len(x))


class Conditional(nn.Module, ABC):
    """Anything random: prior(), likelihood(z), posterior(x), process(x, t), denoiser(x_t, t), label(x), a whole p().

    Every part takes `y=`; `reads_y` says whether it matters. Without context the batch shape of the distribution is
    (), with y it is (B,). Wrap, do not override: a guided denoiser is a denoiser. `how`: keyword-only sampling options
    of a generative part; their names and defaults in the signature are what the command line shows.
    """

    reads_y: bool = False
    accepts_y: bool = False  # a generative part that draws without y, and can be steered towards one
    measure: Measure = "density"  # what log_prob of its distribution is
    can_sample: bool = True  # whether forward() works without inputs; matters for a generative part
    fewest: int = 0  # training examples that its own points or entries need at least

    @abstractmethod
    def forward(self, *inputs: Tensor, y: Tensor | None = None, **how: Any) -> Distribution: ...

    def likelihoods(self, inference: Inference) -> Mapping[str, Way]:
        """By method, the default first. What is listed works; the list is the declaration."""
        return {}

    def evaluations(self, **how: Any) -> int:
        """Sequential network evaluations that one batch of samples costs."""
        return 1


class Inference(nn.Module):
    """Named parts: latent=, process=, label=, features= ((x_t, t) -> {layer: (B, d)}). A missing one raises."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self._modules.update(parts)

    def __contains__(self, name: str) -> bool:
        return name in self._modules

    def __getattr__(self, name: str) -> Any:
        parts = self.__dict__.get("_modules", {})
        if name in parts:
            return parts[name]
        raise AttributeError(f"inference.{name} is needed, but the model infers {list(parts)}.")


class Objective(nn.Module, ABC):
    """What one stage minimises: raw named terms, for one player or several.

    State (replay, gathered labels, history of t) is buffers of fixed shape allocated in __init__, written in `forward`,
    in train mode only, never through repeated indices; it belongs to its rank. Buffers of parts (EMA codebook) are
    written likewise, after an all-reduce, and agree on all ranks.
    """

    terms: Mapping[str, float] = {}  # every term and its default weight; 0: logged, not minimised
    turns: ClassVar[tuple[str, ...]] = ("model",)  # update k belongs to player turns[k % len(turns)]
    probation: ClassVar[int] = 100  # updates after which all it claims to learn must have got a gradient

    def __init__(
        self, weights: Mapping[str, float] | None = None, learns: Sequence[str] = ("generative", "inference")
    ) -> None:
        super().__init__()
        if unknown := (weights or {}).keys() - self.terms.keys():
            raise ValueError(f"{type(self).__name__} has no term {sorted(unknown)}. Its terms are {list(self.terms)}.")
        self.weights = {**self.terms, **(weights or {})}
        self.learns = {"model": tuple(learns)}  # player -> module paths below generative, inference or objective

    @abstractmethod
    def forward(self, model: Model, batch: Batch, player: str = "model") -> Terms:
        """Terms of a batch as the data set holds it; `model.domain` takes x inside: `inward`, or `continuous`."""

    def total(self, terms: Terms) -> Tensor:
        """sum_k w_k mean(term_k), over the terms present; one graph from batch to this number."""
        losses = [w * terms[k].mean() for k, w in self.weights.items() if w and k in terms]
        return torch.stack(losses).sum()


class Recipe(NamedTuple):
    """How a model was made: `genrep.models.build(name, data, **options)` makes it again."""

    name: str
    options: dict[str, Any]


class Unsupported(NotImplementedError):
    """A call that this model cannot answer."""


class Model(nn.Module):
    """The triple. Parts may be shared freely: a parameter counts, and is saved, once.

    `training`: options of `training.fit` that suit this model; what the user sets wins.
    """

    recipe: Recipe | None = None
    peers: ClassVar[Callable[[str], Sequence[str]]] = staticmethod(lambda capability: ())  # the registry tells

    def __init__(
        self,
        data: DataSpec,
        generative: Conditional,
        inference: Inference,
        *objectives: Objective,
        domain: Domain | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.data, self.domain, self.training_options = data, domain or Domain(), dict(training or {})
        self.generative, self.inference, self.objectives = generative, inference, nn.ModuleList(objectives)

    def forward(self, batch: Batch, stage: int = 0, player: str = "model") -> Terms:
        """The only entry of training: DDP, autocast and compile must see all of it."""
        return self.objectives[stage](self, batch, player)

    def paths(self, stage: int, player: str) -> tuple[str, ...]:
        """Where the modules are that this player trains in this stage."""
        objective: Any = self.objectives[stage]
        return tuple(
            p.replace("objective", f"objectives.{stage}", 1) if p.split(".")[0] == "objective" else p
            for p in objective.learns[player]
        )

    def learnable(self, stage: int, player: str) -> dict[str, nn.Parameter]:
        """The parameters of this player, by name; shared ones once."""
        mine = {id(p) for path in self.paths(stage, player) for p in self.get_submodule(path).parameters()}
        return {name: p for name, p in self.named_parameters() if id(p) in mine}

    @property
    def capabilities(self) -> frozenset[str]:
        """sample, condition, encode, decode, reconstruct, features, classify, log_likelihood:<method>: what it can."""
        latent, likelihood = "latent" in self.inference, hasattr(self.generative, "likelihood")
        parts = {
            "sample": self.generative.can_sample,
            "condition": self.generative.reads_y or self.generative.accepts_y,
            "encode": latent,
            "decode": likelihood,
            "reconstruct": latent and likelihood,
            "features": latent or "features" in self.inference,
            "classify": "label" in self.inference,
        }
        methods = self.generative.likelihoods(self.inference)
        return frozenset([what for what, can in parts.items() if can] + [f"log_likelihood:{m}" for m in methods])

    def require(self, what: str) -> None:
        """Raises Unsupported, naming the missing part and the models that can, unless `what` is a capability."""
        if what in self.capabilities or any(c.startswith(what + ":") for c in self.capabilities):
            return
        peers, can = ", ".join(type(self).peers(what)), "give features" if what == "features" else what
        raise Unsupported(
            f"This model cannot {can}: it has no {_PART.get(what, f'way to {what}')}. It can: "
            f"{', '.join(sorted(self.capabilities))}." + (f" Models that can {can}: {peers}." if peers else "")
        )

    def sample(self, n: int, *, condition: Any = None, seed: int | None = None, batch: int = 256, **how: Any) -> Tensor:
        """Draw n examples, as the data set holds them.

        `condition`: a label or a vector for all, or one per sample. `seed`: the same seed gives the same samples and
        leaves the global generator alone. `batch`: how many are drawn at a time. `how`: options of the generative part.
        """
        self.require("sample")
        if n < 1:
            raise ValueError(f"Expected n >= 1 samples, got {n}.")
        y = self.condition(condition, n, self.generative)
        with torch.no_grad(), seeded(seed), evaluating(self):
            return torch.cat([self._draw(slice(i, min(i + batch, n)), y, how) for i in range(0, n, batch)])

    def _draw(self, part: slice, y: Tensor | None, how: Mapping[str, Any]) -> Tensor:
        distribution, n = self.generative(y=None if y is None else y[part], **how), part.stop - part.start
        return self.domain.outward(distribution.sample() if distribution.batch_shape else distribution.sample((n,)))

    def log_likelihood(
        self, x: Tensor, *, condition: Any = None, method: str | None = None, **how: Any
    ) -> LogLikelihood:
        """log p(x) in nats, (B,), of x as the data set holds it.

        A density over integer levels is dequantised: log P(x) >= E_u log p(x + u), so an exact density becomes a lower
        bound of a mass (Theis, van den Oord & Bethge, 2016, eq. 3), here with one draw of u.
        """
        self.require("log_likelihood")
        ways, x, y = self.generative.likelihoods(self.inference), self.check(x), self.condition(condition, len(x))
        if method is not None and method not in ways:
            raise ValueError(f"Expected one of the methods {list(ways)}, got {method!r}.")
        f, kind, measure = ways[method or next(iter(ways))]
        if measure != "density":
            return LogLikelihood(f(self.domain.inward(x), y, **how), kind, measure)
        inside, slope = self.domain.continuous(x)
        value = f(inside, y, **how) + slope
        if self.data.levels is None:
            return LogLikelihood(value, kind, "density")
        return LogLikelihood(value, "lower bound" if kind == "exact" else kind, "mass")

    def encode(self, x: Tensor, *, condition: Any = None) -> Tensor:
        """Mean of the posterior, (B, *z)."""
        self.require("encode")
        x, latent = self.check(x), self.inference.latent
        return latent(self.domain.inward(x), y=self.condition(condition, len(x), latent)).mean

    def decode(self, z: Tensor, *, condition: Any = None) -> Tensor:
        """Mean of the likelihood, (B, *x), as the data set holds it."""
        self.require("decode")
        likelihood: Any = self.generative.likelihood
        y = self.condition(condition, len(z), likelihood if isinstance(likelihood, Conditional) else None)
        return self.domain.outward(likelihood(z, y=y).mean)

    def reconstruct(self, x: Tensor, *, condition: Any = None) -> Tensor:
        """decode(encode(x))."""
        self.require("reconstruct")
        return self.decode(self.encode(x, condition=condition), condition=condition)

    def features(
        self, x: Tensor, *, condition: Any = None, layer: str | None = None, noise: float = 0.0
    ) -> dict[str, Tensor]:
        """Representations by layer, each (B, d); a diffusion model reads them at the noise level t = `noise`."""
        self.require("features")
        if "features" in self.inference:
            inside = self.domain.inward(self.check(x))
            t = torch.full((len(x),), noise, device=inside.device)
            found = self.inference.features(self.inference.process(inside, t).sample() if noise else inside, t)
        elif noise:
            raise ValueError("Only models with a noise process have features at a noise level; expected noise=0.")
        else:
            found = {"latent": self.encode(x, condition=condition).flatten(1)}
        if layer is not None and layer not in found:
            raise ValueError(f"Expected one of the layers {list(found)}, got {layer!r}.")
        return found if layer is None else {layer: found[layer]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the weights and what is needed to build the model again into one file, which `genrep.load` reads."""
        if self.recipe is None:
            raise ValueError(
                "Only a model that a recipe built can be built again. Make the function that builds it a @recipe in "
                "a file of genrep/models, and call genrep.models.build."
            )
        about = {"recipe": self.recipe._asdict(), "data": self.data._asdict(), "version": __version__}
        storage.save(path, storage.state(self), about)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def check(self, x: Tensor) -> Tensor:
        """x on the model's device, or a ValueError that says how it differs from the data the model was made for."""
        if tuple(x.shape[1:]) != self.data.shape:
            raise ValueError(f"Expected x of shape (B, {', '.join(map(str, self.data.shape))}), got {tuple(x.shape)}.")
        if self.data.levels is not None:
            if x.is_floating_point():
                raise ValueError(f"Expected integers in [0, {self.data.levels}), got {x.dtype}.")
            low, high = (int(x.min()), int(x.max())) if x.numel() else (0, 0)  # as int: uint8 takes 256 for 0
            if low < 0 or high >= self.data.levels:
                raise ValueError(f"Expected integers in [0, {self.data.levels}), got {low}..{high}.")
        return x.to(self.device)

    def condition(self, condition: Any, n: int, part: Conditional | None = None) -> Tensor | None:
        """The condition of n examples as `part` (the generative one by default) reads it, checked.

        Labels are (n,) int64, -1 for unknown; vectors and soft labels (n, C) float32; None where none is read. One may
        stand for all n. A ValueError where it is missing, misfit or read by no part of the model.
        """
        if not (self.generative.reads_y or (part is not None and (part.reads_y or part.accepts_y))):
            if condition is not None:
                raise ValueError("This model was made without a condition: pass none, or set conditional=True.")
            return None
        classes, width = self.data.classes, self.data.condition or self.data.classes
        if condition is None and (part or self.generative).reads_y:
            what = f"labels 0..{classes - 1}" if classes else f"vectors of {width} numbers"
            raise ValueError(f"This model is conditional: pass condition= ({what}).")
        if condition is None:
            return None
        y = torch.as_tensor(condition, device=self.device)
        if classes and not y.is_floating_point():
            y = y.long().expand(n) if y.ndim == 0 else y.long()
            if y.shape != (n,) or (n and (y.min() < -1 or y.max() >= classes)):
                raise ValueError(f"Expected {n} labels in 0..{classes - 1} (-1: unknown), got {condition!r}.")
            return y
        y = y.float().expand(n, -1) if y.shape == (width,) else y.float()
        if y.shape != (n, width):
            raise ValueError(f"Expected a condition of shape ({n}, {width}), got {tuple(y.shape)}.")
        return y


_PART = {
    "sample": "prior",
    "encode": "inference.latent",
    "decode": "generative.likelihood",
    "reconstruct": "pair of inference.latent and generative.likelihood",
    "features": "inference.latent or inference.features",
    "classify": "inference.label",
    "log_likelihood": "tractable likelihood or bound",
}


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Draw from `seed` inside, and leave the global generators as they were; None: change nothing."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule is in the mode it was in."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes:
            m.training = mode
