"""A model inside a model learns exactly as it would alone, and nothing else moves."""

import pytest
import torch
from torch import nn

from genrep import storage
from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.data.batches import InMemory
from genrep.distributions.heads import GaussianHead, Likelihood, PointHead
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import build
from genrep.nets.mlp import MLP
from genrep.objectives.autoencoding import Autoencoding, Rate
from genrep.objectives.within import Jointly, Within
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode, Trainer

X = DataSpec((4,), classes=3)
Z = DataSpec((2,), classes=3)


def read(model, batch):
    return Batch(model.inference.latent(model.domain.inward(batch.x)).mean, batch.y)


class Normalised(nn.Module):
    """A network with state that moves in train mode only."""

    def __init__(self):
        super().__init__()
        self.norm, self.out = nn.BatchNorm1d(4), MLP((4,), [8], (2, 2))

    def forward(self, x, c=None):
        return self.out(self.norm(x))


def two_stages(inner=None, **how):
    torch.manual_seed(0)
    inner = inner or build("vae", Z, latent=1, width=8, depth=1, conditional=True)
    likelihood = Likelihood(MLP((2,), [8], (2 * 4,)), X, "gaussian")
    first = Autoencoding(Rate())
    first.learns = {"model": ("generative.likelihood", "inference")}
    return Model(
        X,
        LatentVariable(StandardNormal(2), likelihood),
        Inference(latent=GaussianHead(Normalised())),
        first,
        Within(inner, read, **how),
    )


def data():
    generator = torch.Generator().manual_seed(1)
    return InMemory(torch.randn(40, 4, generator=generator), torch.randint(3, (40,), generator=generator), X)


def settings(**given):
    return Settings(**({"steps": 20, "batch": 8, "device": "cpu", "lr": 1e-2} | given))


def test_only_the_inner_model_learns_and_all_else_keeps_its_bytes():
    model = two_stages()
    fit(model, data(), settings(), stage=0, mode=Mode())
    before = {k: t.detach().clone() for k, t in storage.state(model).items()}
    fit(model, data(), settings(), stage=1, mode=Mode())
    moved = {k for k, t in storage.state(model).items() if not torch.equal(t, before[k])}
    assert moved == {f"objectives.1.inner.{name}" for name, _ in model.objectives[1].inner.named_parameters()}


def test_first_stage_moves_its_statistics():
    """The same buffers do move where their part learns; so the test above can fail."""
    model = two_stages()
    statistics = model.inference.latent.net.norm.running_mean
    fit(model, data(), settings(steps=2), stage=0, mode=Mode())
    assert statistics.abs().sum() > 0


def test_learns_as_alone_on_what_is_read():
    """Same seed, same batches: training inside gives the weights that training alone on the codes gives."""
    model = two_stages()
    alone = build("vae", Z, latent=1, width=8, depth=1, conditional=True)
    storage.restore(alone, {k: t.detach() for k, t in storage.state(model.objectives[1].inner).items()})
    model.eval()
    with torch.no_grad():
        codes = InMemory(read(model, data()[torch.arange(40)]).x, data().y, Z)
    fit(model, data(), settings(), stage=1, mode=Mode())
    alone.objectives.insert(0, Autoencoding())  # the noise of an update depends on the stage
    fit(alone, codes, settings(), stage=1, mode=Mode())
    inner = storage.state(model.objectives[1].inner)
    for name, t in storage.state(alone).items():
        name = name.replace("objectives.1", "objectives.0")
        torch.testing.assert_close(t, inner[name], rtol=1e-4, atol=1e-6)


def test_gradients_pass_where_they_are_asked_to():
    batch = data()[torch.arange(8)]
    for learns in ((), ("inference",)):
        model = two_stages(learns=learns).train()
        objective = model.objectives[1]
        objective.total(model(batch, 1)).backward()
        reached = any(p.grad is not None and bool(p.grad.any()) for p in model.inference.parameters())
        assert reached is bool(learns)
        assert all(p.grad is None for p in model.generative.parameters())
        assert set(model.learnable(1, "model")) >= {n for n, p in model.named_parameters() if p.grad is not None}


def test_players_and_state_of_the_inner_objective():
    """A critic inside has its turns; the inner objective's state is written in train mode, never while evaluating."""
    model = two_stages(build("aae", Z, latent=1, width=8, depth=1, conditional=True))
    assert model.objectives[1].turns == ("critic", "model")
    trainer = Trainer(model, data(), settings(steps=4).resolved(model, 40), Mode(), 1)
    seen = [set(trainer.update()) for _ in range(2)]
    assert "critic" in seen[0]
    assert "distortion" in seen[1]
    assert not trainer.untrained()
    inner = two_stages(build("ddpm", Z, timesteps=5, choice="loss_aware", conditional=True))
    steps = inner.objectives[1].inner.objectives[0].steps
    for training in (True, False):
        before = {k: t.clone() for k, t in steps.named_buffers()}
        inner.eval()
        inner.objectives[1].training = training
        inner(data()[torch.arange(8)], 1)
        assert any(not torch.equal(t, before[k]) for k, t in steps.named_buffers()) is training


def test_conditions_pass_through():
    model, batch = two_stages().eval(), data()[torch.arange(8)]
    values = []
    for label in (0, 1):
        torch.manual_seed(3)
        values.append(model(Batch(batch.x, torch.full((8,), label)), 1)["distortion"])
    assert not torch.equal(*values)


def test_a_stage_that_is_not_there():
    with pytest.raises(ValueError, match="stage below 1"):
        two_stages(stage=1)


def test_jointly_is_the_sum_and_learns_both():
    torch.manual_seed(0)
    inner = build("ddpm", Z, timesteps=5, conditional=True)
    outer = Autoencoding()
    outer.learns = {"model": ("generative.likelihood", "inference")}
    parts = LatentVariable(StandardNormal(2), Likelihood(MLP((2,), [8], (4,)), X, "squared_error"))
    both = Jointly(outer, Within(inner, read))
    model = Model(X, parts, Inference(latent=PointHead(MLP((4,), [8], (2,)))), both)
    batch = data()[torch.arange(8)]
    torch.manual_seed(5)
    terms = model(batch)
    assert set(terms) == {"distortion", "simple", "vlb"}
    weights = {"distortion": 1.0, "simple": 1.0, "vlb": 0.001}
    expected = sum(w * terms[k].mean() for k, w in weights.items())
    torch.testing.assert_close(both.total(terms), expected)
    trainer = Trainer(model, data(), settings(steps=8).resolved(model, 40), Mode())
    for _ in range(8):
        trainer.update()
    assert not trainer.untrained()
    assert set(trainer.learnable["model"]) == {n for n, _ in model.named_parameters()}
    with pytest.raises(ValueError, match="twice"):
        Jointly(Autoencoding(), Autoencoding())
    with pytest.raises(ValueError, match="player model alone"):
        Jointly(build("aae", X).objectives[0])
