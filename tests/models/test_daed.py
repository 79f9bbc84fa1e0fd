"""Denoising autoencoder and diffusion in one: its schedule, its limits, its bound, and splits of trained models."""

import pytest
import torch

from genrep.applications.splitting import split
from genrep.contracts import Batch, DataSpec, Inference, Model
from genrep.distributions.diffusion import Diffusion
from genrep.distributions.schedules import Chain, cosine, linear
from genrep.distributions.split import DenoisedDiffusion, TwoDenoisers, schedule, through_first
from genrep.distributions.subchains import joined, steps_to, until
from genrep.models import build
from genrep.models.daed import chooser
from genrep.objectives.denoising import Denoising
from tests.known_diffusion import MEAN, Exact, closed_terms, exact

DIGITS = DataSpec((1, 8, 8), levels=17, classes=3)
SMALL = {"width": 8, "timesteps": 10}


@pytest.fixture
def double():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("beta_1", "left"), [(0.001, 499), (0.025, 489), (0.1, 467), (0.2, 445), (0.3, 426)])
def test_steps_left_to_the_generator(beta_1, left):
    """As published for T = 500, but for 0.1, where abar_33 is closer to 0.9 than the abar_32 of the printed 468."""
    log = schedule("linear", 500, beta_1)
    assert len(log) - 2 == left
    assert -torch.expm1(log[1]).item() == pytest.approx(beta_1)
    betas = -torch.expm1(log.diff())[1:]
    expected = torch.linspace(0.002, 0.04, left + 1, dtype=torch.float64)[1:]
    torch.testing.assert_close(betas, expected)


def test_published_length_at_a_thousand_steps():
    assert len(schedule("linear", 1000, 0.1)) - 2 == 935


def test_a_schedule_with_its_own_first_step_is_the_ordinary_one():
    for name, whole in (("linear", linear(100)), ("cosine", cosine(100))):
        first = -torch.expm1(whole[1]).item()
        torch.testing.assert_close(schedule(name, 100, first), whole)


@pytest.mark.parametrize("beta_1", [1e-6, 0.05, 0.5, 0.9, 0.99])
def test_any_noise_in_the_first_step(beta_1):
    log = schedule("cosine", 50, beta_1)
    assert (log.diff() < 0).all()
    assert -torch.expm1(log[1]).item() == pytest.approx(beta_1)


def test_with_the_denoiser_of_a_diffusion_it_is_that_diffusion(double):
    """The same estimate in both places: equal samples, equal terms of the bound, each step."""
    whole = exact(8, error=0.3)
    two = DenoisedDiffusion(whole.denoiser, whole.denoiser, whole.chain, (3,), None)
    x = torch.randn(5, 3)
    for how in ({}, {"sampler": "ddim", "evaluations": 8}, {"sampler": "dpm_solver", "evaluations": 8}):
        found = []
        for model in (whole, two):
            torch.manual_seed(1)
            found.append(model(**how).sample((4,)))
        assert torch.equal(*found), how
    bounds = []
    for model in (whole, two.whole):
        torch.manual_seed(2)
        bounds.append(model.vlb_terms(x))
    assert torch.equal(*bounds)


def test_prior_and_likelihood_make_the_samples_of_the_whole(double):
    """x_1 from the generator, then the mean of p(x_0 | x_1), is what ancestral sampling draws."""
    chain = Chain(cosine(8))
    two = DenoisedDiffusion(Exact(chain, 0.2), Exact(chain, -0.5), chain, (3,), None)
    torch.manual_seed(3)
    x = two.likelihood(two.prior().sample((6,))).mean
    torch.manual_seed(3)
    torch.testing.assert_close(x, two().sample((6,)))
    assert not torch.allclose(x, Diffusion(Exact(chain, 0.2), chain, (3,))().sample((6,)))


def test_the_bound_is_that_of_two_networks(double):
    """The first term is the denoiser's, the others the generator's, each with its known expectation."""
    chain, x = Chain(cosine(6)), MEAN + torch.tensor([0.3, -0.2, 0.5])
    first, rest = Exact(chain, 0.4), Exact(chain, -0.1)
    expected = closed_terms(Diffusion(rest, chain, (3,)), x)
    expected[0] = closed_terms(Diffusion(first, chain, (3,)), x)[0]
    two = DenoisedDiffusion(rest, first, chain, (3,), None)
    draws = torch.stack([two.whole.vlb_terms(x.expand(500, 3)).mean(1) for _ in range(60)])
    assert ((draws.mean(0) - expected).abs() < 5 * draws.std(0) / 60**0.5 + 1e-9).all()


def test_each_example_goes_through_the_network_of_its_time(double):
    chain = Chain(cosine(6))
    first, rest = Exact(chain, 5.0), Exact(chain, 0.0)
    two, x = TwoDenoisers(rest, first, float(chain.t[1])), torch.randn(6, 3)
    k = torch.tensor([3, 1, 6, 1, 2, 1])
    found, t = two(x, chain.t[k]).mean, chain.t[k]
    for i in range(6):
        one = (first if k[i] == 1 else rest)(x[i : i + 1], t[i : i + 1]).mean
        torch.testing.assert_close(found[i : i + 1], one)


def test_few_evaluations_still_end_with_the_denoiser():
    model = build("daed", DIGITS, **SMALL).eval()
    calls = []
    for name in ("others", "last"):
        net = model.generative.whole.denoiser.get_submodule(name).net
        net.stem.register_forward_hook(lambda *_, name=name: calls.append(name))
    model.sample(2, sampler="ddim", evaluations=4)
    assert calls == ["others"] * 3 + ["last"]
    chain = through_first(Chain(cosine(100)), 7)
    assert chain.t[:2].tolist() == pytest.approx([0.0, 0.01])
    assert float(chain.t[-1]) == 1


@pytest.mark.parametrize("choice", ["quarter", "beta", "first", "uniform"])
def test_every_choice_of_steps_is_corrected(choice, double):
    chain = Chain(schedule("linear", 100, 0.1))
    steps, f = chooser(choice, chain), torch.randn(chain.steps)
    draws = torch.stack([(w * f[k - 1]).mean() for k, w in (steps(8, torch.device("cpu")) for _ in range(6000))])
    assert (draws.mean() - f.mean()).abs() < 5 * draws.std() / 6000**0.5
    share = {"quarter": 0.25, "uniform": 1 / chain.steps, "first": 0.1 * chain.steps / (0.1 * chain.steps + 66)}
    if choice in share and choice != "first":
        k = torch.cat([steps(8, torch.device("cpu"))[0] for _ in range(2000)])
        assert (k == 1).double().mean().item() == pytest.approx(share[choice], abs=0.02)


def test_the_denoisers_error_is_that_of_the_data():
    """simple: |x_0 - f(x_1)|^2 at the first step, |v - v(x_k)|^2 at the others."""
    torch.manual_seed(0)
    model = build("daed", DIGITS, loss="simple", **SMALL).eval()
    objective, whole = model.objectives[0], model.generative.whole
    assert isinstance(objective, Denoising)
    x = torch.randn(40, 1, 8, 8)
    drawn = objective.draw(whole, x)
    found = whole.denoiser(drawn.x, drawn.t)
    losses = objective.losses(whole, x, drawn, found)["simple"] / drawn.weight
    plain = (found.mean - x).square().flatten(1).mean(1)
    scale = whole.chain.sigma[drawn.k].square().reciprocal()
    torch.testing.assert_close(losses, torch.where(drawn.k == 1, plain, scale * plain), rtol=1e-4, atol=1e-6)
    assert (drawn.k == 1).any()


def test_stages_train_one_network_each():
    model = build("daed", DIGITS, stages=True, **SMALL)
    x = Batch(torch.randint(0, 17, (8, 1, 8, 8), dtype=torch.uint8))
    first, second = ({id(p) for p in model.learnable(stage, "model").values()} for stage in (0, 1))
    assert first.isdisjoint(second)
    for stage, mine in ((0, first), (1, second)):
        model.zero_grad()
        model.objectives[stage].total(model(x, stage)).backward()
        reached = {id(p) for p in model.parameters() if p.grad is not None}
        assert reached
        assert reached <= mine


# ---- split of a model ----------------------------------------------------------------------------------------------


def test_zero_steps_replaced_is_the_identity(double):
    model = Model(DataSpec((3,)), exact(8, error=0.3), Inference())
    smallest = -torch.expm1(model.generative.chain.schedule[1]).item()
    assert steps_to(model.generative.chain.schedule, smallest) == 1
    assert torch.equal(model.sample(5, seed=0), split(model, smallest).sample(5, seed=0))


def test_a_split_replaces_the_last_steps_by_one_pass(double):
    """From x_k on the sample is the estimate of x_0 there, and the steps before are those of the whole chain."""
    whole = exact(8, error=0.3)
    model = Model(DataSpec((3,)), whole, Inference())
    beta_1 = -torch.expm1(whole.chain.schedule[3]).item()
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    for k in range(8, 3, -1):
        found = whole.denoise(x, whole.chain.t[k].expand(5), None)
        x = whole.chain.reverse(x, found.mean, k).sample()
    x = whole.denoise(x, whole.chain.t[3].expand(5), None).mean
    torch.testing.assert_close(split(model, beta_1).sample(5, seed=0), x)
    assert split(model, beta_1).generative.evaluations() == 6


def test_parts_of_a_chain_keep_its_marginals(double):
    chain = Chain(cosine(9))
    for part, index in ((until(chain, 4), [0, 1, 2, 3, 4]), (joined(chain, 4), [0, 4, 5, 6, 7, 8, 9])):
        torch.testing.assert_close(part.log_alpha_bar, chain.log_alpha_bar[index])
        torch.testing.assert_close(part.t, chain.t[index])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta_1": 0.0}, "0 < beta_1 < 1"),
        ({"beta_1": 1.0}, "0 < beta_1 < 1"),
        ({"beta_1": 0.9999}, "nothing is left to generate"),
        ({"choice": "half"}, "Unknown choice of daed"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("daed", DIGITS, **{**SMALL, **options})


def test_one_evaluation_is_too_few_for_two_networks():
    with pytest.raises(ValueError, match="at least 2 evaluations"):
        build("daed", DIGITS, **SMALL).sample(2, sampler="ddim", evaluations=1)
