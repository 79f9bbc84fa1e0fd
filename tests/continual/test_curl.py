"""CURL: mixtures as latent spaces, their bound, and components that come into use."""

import dataclasses
import math

import pytest
import torch
from torch import distributions as td

from genrep.continual import loop
from genrep.continual.coders import only
from genrep.continual.mixture import Mixtures, Unsupervised, bound, expand
from genrep.continual.replay import Memories
from genrep.continual.strategies import build
from genrep.continual.strategy import Setting
from tests.continual.known import QUICK, image_stream, vae

IMAGES = image_stream()
BATCH = IMAGES.tasks[0].train[torch.arange(16)]


def setting():
    return Setting(vae, IMAGES.spec, tuple(len(t.train) for t in IMAGES.tasks), 3)


def test_mixtures_against_torch():
    torch.manual_seed(0)
    mean, log_std, log_weight = torch.randn(2, 3, 2), 0.3 * torch.randn(2, 3, 2), torch.randn(2, 3)
    mine = Mixtures(mean, log_std, log_weight)
    theirs = td.MixtureSameFamily(td.Categorical(logits=log_weight), td.Independent(td.Normal(mean, log_std.exp()), 1))
    at = torch.randn(2, 2)
    torch.testing.assert_close(mine.log_prob(at), theirs.log_prob(at))
    torch.testing.assert_close(mine.mean, theirs.mean)
    drawn = mine.sample((40_000,))
    assert drawn.shape == (40_000, 2, 2)
    torch.testing.assert_close(drawn.mean(0), theirs.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(drawn.var(0), theirs.variance, atol=0.1, rtol=0.05)


def test_with_one_component_it_is_the_autoencoder():
    plain, strategy = vae().eval(), build("curl", setting()).eval()
    assert strategy.prior.active == 1
    torch.manual_seed(1)
    mine = strategy.model(BATCH)
    torch.manual_seed(1)
    theirs = plain(BATCH)
    torch.testing.assert_close({k: mine[k] for k in theirs}, theirs)
    assert mine["component"].abs().max() < 1e-4


def grown(components=3):
    """CURL with components in use that differ."""
    strategy = build("curl", setting())
    prior, latent = strategy.prior, strategy.latent
    torch.manual_seed(2)
    for k in range(1, components):
        gathered = only(strategy.model).gathered
        gathered.add(torch.ones(10, k) / k, torch.randn(10, 3) + k)
        expand(prior, latent, gathered)
    with torch.no_grad():
        latent.label.weight.normal_()
        latent.biases.normal_()
    return strategy


def test_the_bound_is_the_mean_over_components():
    strategy = grown()
    model = strategy.model.eval()
    x = model.domain.inward(BATCH.x)
    torch.manual_seed(5)
    found = bound(model, x, None)
    assert found.distortion.shape == (16, 3)
    q = found.log_label.exp()
    torch.testing.assert_close(q.sum(1), torch.ones(16))
    terms = found.terms(q)
    torch.testing.assert_close(terms["distortion"], (q * found.distortion).sum(1))
    torch.testing.assert_close(terms["component"], (q * found.log_label).sum(1) + math.log(3))
    mean, log_std, _ = strategy.latent.parts(x, None)
    for k in range(3):
        prior = td.Normal(strategy.prior.mean[k], strategy.prior.log_std[k].exp())
        rate = td.kl_divergence(td.Normal(mean[:, k], log_std[:, k].exp()), prior).sum(1)
        torch.testing.assert_close(found.rate[:, k], rate)
        alone = bound(model, x, None, only=torch.full((16,), k))
        torch.testing.assert_close(alone.rate[:, 0], rate)
        torch.testing.assert_close(alone.log_label[:, 0], found.log_label[:, k])


def test_it_grows_for_what_it_does_not_know_and_only_then():
    settings = dataclasses.replace(QUICK, steps=60, batch=32, lr=3e-3)
    how = {"components": 3, "poor": 40, "wait": 20}
    same = IMAGES._replace(tasks=(IMAGES.tasks[0], IMAGES.tasks[0]))
    other = loop.run(lambda: build("curl", setting(), **how), IMAGES, settings)
    again = loop.run(lambda: build("curl", setting(), **how), same, settings)
    assert again.prior.active == 1
    assert 1 < other.prior.active <= 3
    for found in (other, again):
        assert found.prior.counts.sum().item() == pytest.approx(240, rel=1e-4)
        assert found.prior.counts[:, int(found.prior.active) :].abs().sum() == 0


def test_components_are_drawn_as_they_were_seen():
    strategy = grown()
    strategy.prior.counts[0, :3] = torch.tensor([599.0, 299.0, 99.0])
    torch.manual_seed(0)
    k, z = strategy.prior.draw(20_000, None)
    torch.testing.assert_close(k.bincount() / 20_000, torch.tensor([0.6, 0.3, 0.1]), atol=0.02, rtol=0)
    torch.testing.assert_close(z[k == 2].mean(0), strategy.prior.mean[2], atol=0.1, rtol=0)
    assert strategy.prior().log_prob(torch.zeros(1, 3)).isfinite()


def test_replays_are_told_their_component():
    strategy = grown()
    strategy.prior.counts[0, :3] = 50
    objective = only(strategy.model)
    assert isinstance(objective, Unsupervised)
    strategy.counts.add(IMAGES.tasks[0].train)
    objective.taught_by(Memories(strategy.model, strategy.counts), 0.25)
    terms = strategy.model.eval()(BATCH)
    assert {k: len(t) for k, t in terms.items()} == dict.fromkeys(("distortion", "rate", "component", "label"), 16)
    assert (terms["label"] == 0).sum() == 12
    assert (terms["component"] == 0).sum() == 4
