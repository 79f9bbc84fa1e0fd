"""A model beside the data it is measured on, and what of both is made once and read by many metrics."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import Any, get_args

import torch
from torch import Tensor

from genrep.contracts import Model
from genrep.data.splits import Splits
from genrep.evaluation.features import Extractor, examples, fingerprint, reference_features
from genrep.evaluation.likelihood import Likelihood, likelihood

_EVALUATIONS = 20  # of a chain's network, per sample and per example's bound, at most
_ODE = 50  # of the network along an equation that is solved for a density, where fewer would be biased


class Subject:
    """A model beside the data it is measured on; samples, features and likelihoods are made once, when first needed.

    `samples` are drawn, `examples` of the test split are looked at, both chosen by `seed`; a conditional model is given
    the labels or conditions of test examples. `reference`: in whose code criticism compares; None: the extractor.
    """

    def __init__(
        self,
        model: Model,
        splits: Splits,
        extractor: Extractor,
        *,
        samples: int = 2000,
        examples: int = 2000,
        seed: int = 0,
        evaluations: int = _EVALUATIONS,
        bound_evaluations: int = _EVALUATIONS,
        reference: Extractor | None = None,
    ) -> None:
        if splits.spec != model.data:
            raise ValueError(
                f"The model was made for {model.data}, {splits.name} is {splits.spec}; measure it on its own data."
            )
        self.model, self.splits, self.extractor, self.seed, self.samples = model, splits, extractor, seed, samples
        self.reference, self._likelihoods = reference, dict[tuple[Any, ...], Likelihood]()
        self.sampling, self.bound_evaluations = quick_sampling(model, evaluations), bound_evaluations
        self.index = torch.randperm(len(splits.test), generator=torch.Generator().manual_seed(seed))[:examples]
        self.protocol = {
            "model": model.recipe.name if model.recipe else "own",
            "data": splits.name,
            "data_hash": fingerprint(splits),
            "split": "test",
            "seed": seed,
        }

    @cached_property
    def real(self) -> tuple[Tensor, Tensor | None]:
        x, y = self.splits.test[self.index]
        return x.cpu(), None if y is None else y.cpu()

    def conditions(self, n: int) -> Tensor | None:
        """Labels or conditions of n test examples, from the first again when they run out; None if none is read."""
        y = self.real[1]
        if not self.model.generative.reads_y:
            return None
        assert y is not None
        return y[torch.arange(n) % len(y)]

    @cached_property
    def generated(self) -> Tensor:
        condition = self.conditions(self.samples)
        return self.model.sample(self.samples, condition=condition, seed=self.seed, **self.sampling).cpu()

    @cached_property
    def features(self) -> tuple[Tensor, Tensor]:
        """Of test examples and of samples."""
        real = reference_features(self.extractor, self.real[0], split="test", data=self.splits.name)
        return real, self.extractor(self.generated)

    @cached_property
    def train_features(self) -> Tensor:
        x, _ = examples(self.splits.train, 20_000)
        return reference_features(self.extractor, x, split="train", data=self.splits.name)

    @property
    def feature_protocol(self) -> dict[str, Any]:
        return {**self.protocol, **self.extractor.protocol}

    def likelihood(self, *, method: str = "auto", evaluations: int | None = None, **how: Any) -> Likelihood:
        """log p(x) of the test examples looked at; asked again in the same way, the same object.

        A bound that is a sum over the steps of a chain is estimated, without bias, from some of them per example.
        """
        ways = self.model.generative.likelihoods(self.model.inference)
        name = next(iter(ways), method) if method == "auto" else method
        if name in ways and "evaluations" in inspect.signature(ways[name].f).parameters:
            most = self.bound_evaluations if ways[name].kind == "lower bound" else _ODE
            how["evaluations"] = evaluations or min(most, self.model.generative.evaluations())
        key = (method, *sorted(how.items()))
        if key not in self._likelihoods:
            x, y = self.real
            y = y if self.model.generative.reads_y else None
            self._likelihoods[key] = likelihood(self.model, x, condition=y, method=method, seed=self.seed, **how)
        return self._likelihoods[key]


def quick_sampling(model: Model, evaluations: int = _EVALUATIONS) -> dict[str, Any]:
    """Sampling options for measuring: a chain is walked in at most so many evaluations, by DPM-Solver if it can be."""
    options = inspect.signature(type(model.generative).forward, eval_str=True).parameters
    if "evaluations" not in options:
        return {}
    how: dict[str, Any] = {"evaluations": min(evaluations, model.generative.evaluations())}
    if "sampler" in options and "dpm_solver" in get_args(options["sampler"].annotation):
        how["sampler"] = "dpm_solver"
    return how
