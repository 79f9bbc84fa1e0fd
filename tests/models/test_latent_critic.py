"""Critics of the latent space: their optimum, their players, and the codes they shape."""

import math

import pytest
import torch

from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.heads import Likelihood, PointHead
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.models import build
from genrep.nets.mlp import MLP
from genrep.objectives.adversarial import Critic
from genrep.objectives.latent_critic import AdversarialAutoencoding
from tests.models.test_autoencoders import Matrix
from tests.models.test_dcgan import optimum

NAMES = ["aae", "wae_gan"]


def shifted(shift, normal_prior):
    """Codes N(shift, 1) of data N(0, 1), against the prior N(0, 1)."""
    data, encoder = DataSpec((1,)), Matrix(1, 1)
    with torch.no_grad():
        encoder.weight.fill_(1.0)
        encoder.bias.fill_(shift)
    critic = Critic(MLP((1,), [64, 64], (1,)))
    objective = AdversarialAutoencoding(critic, 1.0, normal_prior=normal_prior)
    decoder = Likelihood(Matrix(1, 1), data, "squared_error")
    generative = LatentVariable(StandardNormal(1), decoder)
    return Model(data, generative, Inference(latent=PointHead(encoder)), objective)


@pytest.mark.parametrize(("shift", "normal_prior"), [(1.5, False), (1.5, True), (0.0, False)])
def test_best_latent_critic_measures_the_divergence(shift, normal_prior, play):
    """log 4 - 2 JS(prior, codes), which is log 4 where codes follow the prior; its score is log(p(z) / q(z))."""
    torch.manual_seed(0)
    model = shifted(shift, normal_prior)
    play(model, lambda: Batch(torch.randn(512, 1)), 400, lr=1e-2, average=0.99, players=["critic"])
    found = model(Batch(torch.randn(50_000, 1)), 0, "critic")["critic"].mean().item()
    expected = float(optimum("non_saturating", shift, 1.0)) if shift else math.log(4)
    assert found == pytest.approx(expected, rel=0.02)
    z = torch.linspace(-1.0, 2.0, 7)[:, None]
    ratio = shift**2 / 2 - shift * z.flatten()
    torch.testing.assert_close(model.objectives[0].judge(z).detach(), ratio, atol=0.3, rtol=0)


def test_known_prior_is_its_log_density():
    """What is added to the score differs from log N(z; 0, I) by a constant."""
    judge, z = shifted(0.0, normal_prior=True).objectives[0].judge, torch.randn(9, 1)
    added = judge(z) - judge.critic(z) - StandardNormal(1)().log_prob(z)
    torch.testing.assert_close(added, added[0].expand(9))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_stay_with_their_player(name, play):
    model = build(name, DataSpec((1, 8, 8), levels=17, classes=3), width=4, conditional=True).train()
    batch = Batch(torch.randint(17, (6, 1, 8, 8), dtype=torch.uint8), torch.tensor([0, 1, 2, -1, 0, 1]))
    objective, seen = model.objectives[0], set()
    for player in ("critic", "model"):
        model.zero_grad()
        play.freeze(model, player)
        terms = model(batch, 0, player)
        objective.total(terms).backward()
        reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert reached == set(model.learnable(0, player))
        assert not seen & set(terms)
        seen |= set(terms)
    assert seen == set(objective.terms)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_training_matches_codes_to_the_prior(name, play):
    torch.manual_seed(0)
    model = build(name, DataSpec((3,)), latent=2, width=32, likelihood="squared_error", matching=5.0)
    mix = torch.tensor([[1.0, 0.5, 0.2], [0.0, 1.0, -0.5], [0.0, 0.0, 0.1]])
    play(model, lambda: Batch(torch.randn(64, 3) @ mix), 1000, lr=1e-3, betas=(0.5, 0.999), average=0.99)
    with torch.no_grad():
        z = model.inference.latent(torch.randn(4000, 3) @ mix).rsample()
    torch.testing.assert_close(z.mean(0), torch.zeros(2), atol=0.2, rtol=0)
    torch.testing.assert_close(z.T.cov(), torch.eye(2), atol=0.3, rtol=0)


def test_what_each_can_answer():
    """A Gaussian posterior has a bound; a point posterior has none."""
    data = DataSpec((1, 8, 8), levels=17)
    assert "log_likelihood:elbo" in build("aae", data).capabilities
    assert not [c for c in build("wae_gan", data).capabilities if c.startswith("log_likelihood")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [({"latent": 0}, "latent >= 1"), ({"matching": -1.0}, "matching >= 0"), ({"conditional": True}, "neither")],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,)), **options)
