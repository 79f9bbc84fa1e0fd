"""Multiband VAE: a local model for each task, whose latents a translator brings to a space that all tasks share."""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from genrep import models, storage
from genrep.continual.bands import Draws, Encodings, Pairs
from genrep.continual.strategy import Phase, Setting, Strategy, frozen, needs
from genrep.contracts import Batch, Conditional, Data, DataSpec, Inference, Model, Recipe, Unsupported
from genrep.data.batches import InMemory
from genrep.distributions.bands import BandHead, BandMixtures, BandPrior, OneBand
from genrep.distributions.heads import GaussianHead, Likelihood
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models.multiband_vae import BINARY, CONV, DENSE, banded
from genrep.nets.autoencoder import convolutional
from genrep.nets.translator import Translator
from genrep.objectives.autoencoding import Autoencoding, inside
from genrep.objectives.bands import Consolidation

_ALL = "generative.likelihood"
_TRANSLATOR = f"{_ALL}.net.translator"
Local = Literal["fresh", "decoder", "encoder", "last"]
_KEPT = {"encoder": ("local.inference",), "last": ("local",)}  # beside translator, decoder and bits


class Options(NamedTuple):
    """What `multiband` takes; there it is explained."""

    local_share: float
    translator_share: float
    gamma: float
    ratio: float
    cap: float
    draws: int
    components: int
    local: Local
    decay: bool


class Multiband(Strategy):
    """`bands` is the model of all tasks, `local` that of the task at hand, `before` what bands was before the task."""

    def __init__(self, setting: Setting, options: Options) -> None:
        super().__init__()
        _check(options)
        self.options, self.bands = options, bands_of(setting)
        self.local, self.before = copy.deepcopy(self.bands), frozen(self.bands.generative)
        self.prior.counts.zero_()
        self.mixtures = BandMixtures(self.prior, options.components) if options.components else None
        mixed = ("mixtures",) if options.components else ()
        self.kept = ("bands.generative", *mixed, *_KEPT.get(options.local, ()))
        self.model, *self.each = [self._view(setting, band) for band in range(-1, setting.tasks)]

    @property
    def prior(self) -> BandPrior:
        return cast(BandPrior, self.bands.generative.get_submodule("prior"))

    @property
    def drawing(self) -> BandPrior | BandMixtures:
        """What draws the latents of a band."""
        return self.prior if self.mixtures is None else self.mixtures

    def _view(self, setting: Setting, band: int) -> Model:
        """What draws from one band, or with -1 from all."""
        likelihood = self.bands.generative.get_submodule("likelihood")
        generative = LatentVariable(OneBand(self.drawing, band), cast(Conditional, likelihood))
        return Model(setting.spec, generative, Inference(), domain=self.bands.domain)

    def model_for(self, task: int) -> Model:
        return self.each[task]

    @torch.no_grad()
    def latents(self, task: int, n: int) -> Tensor:
        """z = t(lambda, code of the task) with lambda as the band draws it."""
        band = torch.full((n,), task, device=self.prior.counts.device)
        return self._translator()(self.drawing(y=band).sample())

    def learn(self, task: int, data: Data) -> list[Phase]:
        assert isinstance(data, InMemory)
        told = data.relabelled(torch.full((len(data),), task), self.bands.data)
        fit = {"schedule": "exponential"} if self.options.decay else {}
        if not task:
            return [Phase(self.bands, lambda: told, finish=lambda: self._first(data), fit=fit)]
        local, alone = self.options.local_share, self.options.translator_share

        @cache  # of the local model as its phase has left it, so one reading serves all phases after it
        def encodings() -> Encodings:
            return self._encodings(task, data)

        def pairs(threshold: float, draws: int = self.options.draws) -> Data:
            new, old = encodings(), Draws(self.before, self.drawing, task, draws, self.bands.data)
            if threshold < 1:
                old.forget(new, self._translator(), threshold)
            return Pairs(data, new, old, min(self.options.cap, self.options.ratio * task))

        whole, joint = self._consolidating(_ALL), 1 - local - alone
        few = math.ceil(self.options.draws / 4)  # the translator alone has few updates
        halves = [1.0] if self.options.gamma >= 1 else [1.0, self.options.gamma]
        phases = [
            Phase(
                self.local, lambda: told, start=self._begin, finish=lambda: self._learnt(task, encodings()), share=local
            ),
            *([Phase(self._consolidating(_TRANSLATOR), partial(pairs, 1.0, few), share=alone)] if alone else []),
            *(Phase(whole, partial(pairs, threshold), share=joint / len(halves)) for threshold in halves),
        ]
        return [phase._replace(fit=fit) for phase in phases]

    def _consolidating(self, learns: str) -> Model:
        bands = self.bands
        return Model(bands.data, bands.generative, Inference(), Consolidation(learns), domain=bands.domain,
                     training=bands.training_options)  # fmt: skip

    def _translator(self) -> Translator:
        return cast(Translator, self.bands.get_submodule(_TRANSLATOR))

    def _encodings(self, task: int, data: InMemory) -> Encodings:
        local = self.local if task else self.bands
        device = next(local.parameters()).device
        return Encodings(local, data.x.to(device), task, lambda x: inside(local, Batch(x)))

    def _begin(self) -> None:
        """The local model starts from what the task found, as far as the options say."""
        if self.options.local in ("decoder", "encoder"):
            _copy(self.bands.generative, self.local.generative)

    def _first(self, data: InMemory) -> None:
        self._write(0, self._encodings(0, data))
        _copy(self.bands, self.local)

    def _learnt(self, task: int, found: Encodings) -> None:
        """Local training has ended: the band draws what it has learnt, and the others are frozen as they are."""
        self._write(task, found)
        _copy(self.bands.generative, self.before)

    def _write(self, task: int, found: Encodings) -> None:
        self.prior.set(task, found.logits.sigmoid().mean(0), len(found))
        if self.mixtures is not None:
            self.mixtures.fit(task, found.draw(torch.arange(len(found))))


def _copy(source: nn.Module, target: nn.Module) -> None:
    storage.restore(target, {k: t.detach().clone() for k, t in storage.state(source).items()})


def _check(options: Options) -> None:
    local, alone = options.local_share, options.translator_share
    if not (local > 0 and alone >= 0 and local + alone < 1):
        raise ValueError(
            f"Expected local_share > 0, translator_share >= 0 and less than 1 together, got {local}, {alone}."
        )
    if not (-1 <= options.gamma <= 1 and options.ratio > 0 and options.cap > 0 and options.draws >= 1):
        raise ValueError(
            f"Expected gamma in [-1, 1], ratio > 0, cap > 0 and draws >= 1, got {options.gamma}, {options.ratio}, "
            f"{options.cap} and {options.draws}."
        )
    if options.components < 0:
        raise ValueError(f"Expected components >= 0, got {options.components}.")


def bands_of(setting: Setting) -> Model:
    """A model with a band for each task, of the parts of the model that the setting makes.

    multiband_vae as it is; of another VAE the encoder, with more outputs for bits, and the decoder, which reads z.
    Unsupported, with the reason, for what is no such VAE.
    """
    model = setting.make()
    for capability in ("encode", "decode", "sample"):
        needs(model, capability, "multiband")
    if model.generative.reads_y and setting.spec.classes != setting.tasks:
        raise Unsupported(
            "Strategy multiband tells the task to its translator, and nothing else: set told=task, or nothing."
        )
    data, posterior, recipe = (
        setting.spec._replace(classes=setting.tasks, condition=0),
        model.inference.latent,
        model.recipe,
    )
    if recipe is not None and isinstance(posterior, BandHead):
        return models.build(recipe.name, data, **{**recipe.options, "conditional": True})
    prior = model.generative.prior if isinstance(model.generative, LatentVariable) else None
    plain = isinstance(prior, StandardNormal) and [type(o) for o in model.objectives] == [Autoencoding]
    if recipe is None or not (plain and isinstance(posterior, GaussianHead)):
        raise Unsupported(
            "Strategy multiband needs a VAE with q(z | x) = N(mean, std), prior N(0, I) and the evidence lower bound, "
            f"{'this model' if recipe is None else recipe.name} is another: take vae or multiband_vae."
        )
    return _around(data, recipe)


def _around(data: DataSpec, recipe: Recipe) -> Model:
    """The parts of a VAE of that recipe, with the widths that bands need."""
    given = {k: v for k, v in recipe.options.items() if k not in ("conditional", "latent")}
    said = {k: p.default for k, p in models.options(recipe.name).items()} | dict(recipe.options)
    aligned = CONV if convolutional(data, said["network"], said["width"], said["depth"]) else DENSE
    inner = models.build(recipe.name, data, latent=said["latent"] + BINARY, **given).inference.latent
    outer = models.build(recipe.name, data, latent=aligned, **given).generative.get_submodule("likelihood")
    return banded(
        data, inner.net, cast(Likelihood, outer).net, latent=said["latent"], binary=BINARY, aligned=aligned,
        beta=said["beta"], binary_beta=0.0, likelihood=said["likelihood"], bands=data.classes,
    )  # fmt: skip


def multiband(
    setting: Setting,
    *,
    local_share: float = 0.33,
    translator_share: float = 0.03,
    gamma: float = 0.95,
    ratio: float = 0.5,
    cap: float = 1.5,
    draws: int = 8192,
    components: int = 16,
    local: Local = "last",
    decay: bool = False,
) -> Strategy:
    """Multiband VAE (Deja et al., 2022): a VAE of each task alone, then a translator and a decoder of all tasks.

    The updates of a task are split over its phases: local, the translator alone, and both together, where targets are
    replaced in the second half, when what is new has a place of its own. The first task has the local phase only.

    Args:
        local_share: Of the updates of a task that train the local model.
        translator_share: Of those that train the translator while the decoder is held still.
        gamma: Cosine similarity in z from which on the target of a draw becomes a new example; 1: never.
        ratio: Draws in a batch for each new example and each earlier task.
        cap: Most draws for each new example.
        draws: How many examples of earlier tasks a phase learns from, drawn when it starts.
        components: Of the mixture that a band draws from, fitted to what its task was encoded to; 0: standard normals
            and independent bits, as published.
        local: What the local model starts from: fresh weights; the translator and decoder of all tasks (decoder); these
            and the encoder of the last task, which is then kept (encoder); the local model of the last task (last).
        decay: The learning rate falls by the same factor in every update, to 6 % at the end of each phase; published is
            x 0.98 after each of 70 and 140 epochs.
    """
    return Multiband(
        setting, Options(local_share, translator_share, gamma, ratio, cap, draws, components, local, decay)
    )
