"""Discrete latents: straight-through gradients, laws that sum to one, bounds below what enumeration gives."""

import itertools
import math

import pytest
import torch
from torch import nn

from genrep.contracts import Batch, DataSpec
from genrep.distributions.codes import Chosen, GumbelHead, Quantised
from genrep.models import build
from genrep.nets.codebook import Codebook
from genrep.objectives.codes import use_of
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode, Trainer
from tests.objectives.test_within import InMemory

TINY = DataSpec((4,), levels=3)
SMALL = {"latent": 2, "positions": 2, "width": 16, "prior_width": 4, "prior_depth": 1, "codebook": 3}
ALL = torch.tensor(list(itertools.product(range(3), repeat=4)))


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


def test_quantising_passes_gradients_straight_through():
    """The value is exactly the entries, the gradient exactly that of the identity."""
    table = Codebook(6, 3, "gradient")
    before = torch.randn(5, 3, 2, requires_grad=True)
    entries = table.look_up(table.codes(before))
    z = Quantised(before, entries, table.codes(before)).rsample()
    assert torch.equal(z, entries)
    slope = torch.randn_like(z)
    found = torch.autograd.grad((z * slope).sum(), [before, table.vectors], allow_unused=True)
    assert torch.equal(found[0], slope)
    assert found[1] is None


def test_terms_teach_their_sides_alone():
    """The codebook's term moves the entries, the commitment the encoder; both are the same distance."""
    model = build("vq_vae", TINY, learning="gradient", revive=0.0, **SMALL).train()
    terms = model(Batch(ALL))
    torch.testing.assert_close(terms["commitment"], terms["codebook"])
    encoder, table = model.inference.latent.net, model.inference.latent.codebook.vectors
    for term, reached in (("commitment", encoder), ("codebook", table)):
        model.zero_grad()
        terms[term].sum().backward(retain_graph=True)
        assert all(bool(p.grad.any()) for p in encoder.parameters() if p.grad is not None)
        assert (encoder.layers[0].weight.grad is not None) is (reached is encoder)
        assert (table.grad is not None and bool(table.grad.any())) is (reached is table)
    terms["distortion"].sum().backward()
    assert encoder.layers[0].weight.grad.abs().sum() > 0


def test_use_of_codes():
    found = use_of(torch.tensor([[0, 0, 1, 1]]), 8)
    assert found["usage"].item() == 0.25
    assert found["perplexity"].item() == pytest.approx(2)
    assert use_of(torch.arange(8), 8)["perplexity"].item() == pytest.approx(8)


def enumerated(model):
    """log P(c) of all codes and log P(x | c) of all x, (9,) and (81, 9)."""
    codes = torch.tensor(list(itertools.product(range(3), repeat=2)))
    prior = model.generative.prior
    z = prior.codes.outward(codes)
    log_prior = model.generative.prior().log_prob(z)
    x = model.domain.inward(ALL)
    log_x = torch.stack([model.generative.likelihood(e.expand(81, *e.shape)).log_prob(x) for e in z], 1)
    return codes, z, log_prior, log_x


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vq_vae", "gumbel_vae"])
def test_bounds_against_enumeration(name):
    """With 9 codes and 81 examples everything can be summed: laws to one, and the bounds below log P(x)."""
    model = build(name, TINY, **SMALL)
    fit(model, InMemory(ALL, None, TINY), Settings(steps=30, batch=40, lr=1e-2, device="cpu"), mode=Mode())
    codes, z, log_prior, log_x = enumerated(model)
    assert log_prior.exp().sum().item() == pytest.approx(1, abs=1e-6)
    exact = (log_x + log_prior).logsumexp(1)
    assert exact.exp().sum().item() == pytest.approx(1, abs=1e-4)
    q = model.inference.latent(model.domain.inward(ALL))
    if name == "vq_vae":
        chosen = (model.generative.prior.codes.inward(q.mean)[:, None] == codes).all(2).long().argmax(1)
        expected = (log_x + log_prior).gather(1, chosen[:, None])[:, 0]
        torch.testing.assert_close(model.log_likelihood(ALL).value, expected, rtol=1e-5, atol=1e-5)
        assert (expected <= exact + 1e-5).all()
        assert [c for c in model.capabilities if ":" in c] == ["log_likelihood:elbo"]
        return
    log_q = torch.stack([q.log_prob(e.expand(81, *e.shape)) for e in z], 1)
    torch.testing.assert_close(log_q.logsumexp(1), torch.zeros(81), rtol=0, atol=1e-5)
    elbo = (log_q.exp() * (log_x + log_prior - log_q)).sum(1)
    assert (elbo <= exact + 1e-5).all()
    found = model.log_likelihood(ALL, method="elbo", draws=400)
    assert found.measure == "mass"
    assert (found.value - elbo).mean().abs() < 0.02
    many = model.log_likelihood(ALL, method="importance", draws=6000).value
    torch.testing.assert_close(many, exact, atol=0.1, rtol=0)


def chosen(temperature=None, *, hard=False, n=1):
    table = Codebook(4, 3, "gradient", revive=0.0).double()
    logits = torch.randn(1, 4, 2, dtype=torch.float64).expand(n, -1, -1)
    t = None if temperature is None else torch.tensor(temperature, dtype=torch.float64)
    return Chosen(logits, table, t, hard=hard)


def test_rate_to_uniform_against_draws():
    q = chosen()
    z = q.sample((20_000,))
    log_q = q.log_prob(z)
    assert log_q.shape == (20_000, 1)
    assert (log_q.mean() + 2 * math.log(4)).item() == pytest.approx(q.rate_to_uniform().item(), abs=0.03)
    even = Chosen(torch.zeros(3, 4, 5), q.codebook, hard=True)
    torch.testing.assert_close(even.rate_to_uniform(), torch.zeros(3), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [None, 0.3, 2.0])
def test_draws_follow_the_probabilities(temperature):
    """Exactly without a temperature; with one the largest weight does, whatever it is (Gumbel-max)."""
    q = chosen(temperature, hard=True, n=20_000)
    codes = q.codebook.codes(q.rsample())
    share = nn.functional.one_hot(codes, 4).double().mean(0)
    torch.testing.assert_close(share, q.logits[0].softmax(0).T, atol=0.015, rtol=0)


def test_mean_is_that_of_the_draws():
    q = chosen(n=20_000)
    torch.testing.assert_close(q.sample().mean(0), q.mean[0].detach(), atol=0.03, rtol=0)


def test_hard_draws_are_entries_with_the_relaxed_gradient():
    soft, firm = chosen(0.7), None
    logits = soft.logits.clone().requires_grad_()
    slopes = []
    for hard in (False, True):
        torch.manual_seed(3)
        q = Chosen(logits, soft.codebook, torch.tensor(0.7), hard=hard)
        z = q.rsample()
        direction = torch.linspace(-1, 1, z.numel(), dtype=torch.float64).view_as(z)
        slopes.append(torch.autograd.grad((z * direction).sum(), logits)[0])
        firm = z
    torch.testing.assert_close(slopes[0], slopes[1])
    torch.testing.assert_close(soft.codebook.look_up(soft.codebook.codes(firm)), firm)


def test_cold_draws_are_nearly_entries():
    q = chosen(0.02, n=500)
    z = q.rsample()
    away = (z - q.codebook.look_up(q.codebook.codes(z))).abs().flatten(1).amax(1)
    assert away.median() < 1e-6


def test_temperature_falls_with_the_updates_and_is_kept():
    head = GumbelHead(nn.Identity(), Codebook(4, 2, "gradient"), warmest=2.0, coldest=0.5, annealing=10)
    x, seen = torch.randn(3, 4, 2), []
    for _ in range(12):
        seen.append(head.train()(x).temperature.item())
    assert seen[0] == pytest.approx(2.0)
    assert seen[5] == pytest.approx(1.0)
    assert seen[10] == seen[11] == pytest.approx(0.5)
    assert head.eval()(x).temperature is None
    assert head.state_dict()["passes"] == 12


CORNERS = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
PLANE = DataSpec((2,), classes=3)


def corners(n=600):
    y = torch.randint(3, (n,))
    return InMemory(CORNERS[y] + 0.2 * torch.randn(n, 2), y, PLANE)


@pytest.mark.parametrize("name", ["vq_vae", pytest.param("gumbel_vae", marks=pytest.mark.slow)])
def test_codes_are_used_and_labels_come_where_they_belong(name):
    options = SMALL | {"codebook": 8, "width": 32, "conditional": True, "likelihood": "gaussian", "prior_width": 8}
    model, data = build(name, PLANE, **options), corners()
    steps, lr = (600, 2e-3) if name == "vq_vae" else (250, 5e-3)
    settings = Settings(steps=steps, batch=64, lr=lr, device="cpu", ema=0.0)
    log = fit(model, data, settings, mode=Mode()).log
    assert log[-1]["terms"]["usage"] >= 0.3
    assert log[-1]["terms"]["perplexity"] > 2
    kept = model.inference.latent.codebook.vectors.detach().clone()
    fit(model, data, settings, mode=Mode(), stage=1)
    assert torch.equal(model.inference.latent.codebook.vectors, kept)
    y = torch.arange(3).repeat(200)
    x = model.sample(600, condition=y, seed=0)
    assert (torch.cdist(x, CORNERS).argmin(1) == y).float().mean() > 0.95
    with torch.no_grad():
        back = model.reconstruct(data.x, condition=data.y)
    assert (back - data.x).square().sum(1).mean() < 0.15


def test_the_prior_is_trained_on_the_codes_alone():
    model = build("vq_vae", TINY, **SMALL)
    trainer = Trainer(model, InMemory(ALL, None, TINY), Settings(batch=9, device="cpu").resolved(model, 81), Mode(), 1)
    assert all(name.startswith("generative.prior.inner") for name in trainer.learnable["model"])
    assert not model.inference.latent.training
    with torch.no_grad():
        nll = trainer.model(Batch(ALL), 1)["nll"]
        q = model.inference.latent(model.domain.inward(ALL))
        expected = -model.generative.prior().log_prob(q.mean)
    torch.testing.assert_close(nll, expected)


@pytest.mark.parametrize("name", ["vq_vae", "gumbel_vae"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook": 1}, "at least 2 entries"),
        ({"latent": 0}, "latent >= 1"),
        ({"positions": 0}, "positions >= 1"),
        ({"prior_width": 0}, "prior_width, prior_depth >= 1"),
        ({"network": "conv"}, "needs images"),
        ({"conditional": True}, "neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,)), **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vq_vae", {"commitment": -1.0}, "commitment >= 0"),
        ("vq_vae", {"learning": "k-means"}, "Unknown learning of vq_vae 'k-means'"),
        ("gumbel_vae", {"beta": -1.0}, "beta >= 0"),
        ("gumbel_vae", {"coldest": 2.0}, "0 < coldest <= warmest"),
        ("gumbel_vae", {"annealing": 0}, "annealing >= 1"),
    ],
)
def test_further_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,)), **options)


def test_images_too_small_for_the_depth_say_so():
    with pytest.raises(ValueError, match="can be halved 2 times at most"):
        build("vq_vae", DataSpec((1, 8, 8), levels=4), depth=4)
