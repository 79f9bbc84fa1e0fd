"""Hooks of an update: parts held still, gradients before they are used, weights after they have changed."""

import dataclasses

import pytest
import torch
from torch import nn

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.training.loop import fit
from genrep.training.trainer import Hooks, Trainer
from tests.training.test_fit import FLOAT32, QUICK, Likelihood, Normal, assert_same_run, normal_data


class Normed(Normal):
    """A learnt mean behind a batch normalisation whose statistics move in train mode."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, *, y=None):
        self.norm(self.mean.expand(4, 2) + torch.arange(4.0)[:, None])
        return super().forward(y=y)


class Traced(Likelihood):
    """Counts what hooks saw, in buffers of its own."""

    def __init__(self):
        super().__init__(learns=("generative",))
        self.register_buffer("path", torch.zeros(2))
        self.register_buffer("before", torch.zeros(2))


def made(generative=Normal, objective=Likelihood):
    torch.manual_seed(0)
    part = generative()
    return Model(DataSpec((2,)), part, Inference(), Likelihood(learns=("generative",)) if objective is Likelihood
                 else objective())  # fmt: skip


def test_still_parts_learn_but_keep_their_statistics():
    moved, held = made(Normed), made(Normed)
    for model, still in ((moved, ()), (held, ("generative.norm",))):
        settings = QUICK.resolved(model, 256)
        trainer = Trainer(model, normal_data(), settings, FLOAT32, hooks=Hooks(still=still))
        trainer.update()
    assert moved.generative.norm.running_mean.abs().sum() > 0
    assert held.generative.norm.running_mean.abs().sum() == 0
    assert not torch.equal(held.generative.mean, torch.zeros(2)), "it still learns"


def test_still_names_modules():
    with pytest.raises(ValueError, match="no 'generative.nothing'"):
        fit(made(), normal_data(), QUICK, mode=FLOAT32, still=("generative.nothing",))


def traced(model):
    """Hooks that sum -gradient * step into a buffer."""
    objective, mean = model.objectives[0], model.generative.mean

    def before(step):
        objective.before.copy_(mean.detach())

    def after(step):
        objective.path -= mean.grad * (mean.detach() - objective.before)

    return {"before_update": before, "after_update": after}


def test_hooks_see_raw_gradients_and_may_change_them():
    model = made()
    seen = []

    def before(step):
        seen.append((step, model.generative.mean.grad.norm().item()))
        model.generative.mean.grad[0] = 0

    settings = dataclasses.replace(QUICK, clip=1e-3, ema=0.0)
    fit(model, normal_data(), settings, mode=FLOAT32, before_update=before)
    assert [s for s, _ in seen] == list(range(12))
    assert min(norm for _, norm in seen) > 0.1, "not clipped yet"
    assert model.generative.mean[0] == 0
    assert model.generative.mean[1] > 0


def test_resume_is_exact_with_state_that_hooks_change(tmp_path):
    longer = dataclasses.replace(QUICK, steps=24)
    for folder, settings, resume in (("whole", longer, False), ("parts", QUICK, False), ("parts", longer, True)):
        model = made(objective=Traced)
        fit(model, normal_data(), settings, mode=FLOAT32, folder=tmp_path / folder, resume=resume, **traced(model))
        torch.manual_seed(7)
    assert model.objectives[0].path.abs().sum() > 0
    assert model(Batch(torch.zeros(1, 2)))["nll"] > 0
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
