"""Models over the latents of an autoencoder, and the decoder without an encoder: exact limits, and where labels go."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from genrep.contracts import Batch, Conditional, DataSpec, Domain, Inference, Model, Way
from genrep.data.batches import InMemory
from genrep.distributions.basic import Gaussian
from genrep.distributions.latent import LatentVariable, StandardNormal
from genrep.distributions.nested import ElboOnly, Nested
from genrep.distributions.standardise import StandardUnits
from genrep.interface import runs
from genrep.models import build
from genrep.nets.codebook import Codebook
from genrep.objectives.autoencoding import Autoencoding, StandardRate, code
from genrep.objectives.likelihood import NLL
from genrep.objectives.transport import Transport
from genrep.training import checkpoint
from genrep.training.loop import fit
from genrep.training.settings import Settings
from genrep.training.trainer import Mode
from genrep.transport.sinkhorn import sinkhorn_divergence
from tests.models.test_codes import CORNERS, PLANE, corners
from tests.models.test_vae import Linear


@pytest.fixture(autouse=True)
def same_draws():
    torch.manual_seed(0)


class Exact(Conditional):
    """N(mean, std) as a model of its own with an exact density."""

    def __init__(self, mean=0.0, log_std=0.0, size=2):
        super().__init__()
        self.mean, self.log_std, self.size = nn.Parameter(torch.tensor(mean)), log_std, size

    def forward(self, *, y=None):
        zero = torch.zeros(self.size, dtype=self.mean.dtype)
        return Gaussian(zero + self.mean, zero + self.log_std, batched=False)

    def likelihoods(self, inference):
        return {"exact": Way(lambda x, y: self(y=y).log_prob(x), "exact", "density")}


def nested(codes, **law):
    return Nested(Model(DataSpec((law.get("size", 2),)), Exact(**law), Inference(), NLL()), codes)


def units(size=2):
    codes = StandardUnits(size).double()
    codes.train().observe(torch.randn(500, size, dtype=torch.float64) * torch.tensor([2.0, 0.5])[:size] + 3)
    return codes.eval()


def test_a_nested_density_integrates_to_one_in_its_own_units():
    """log p(z) of latents in standard units carries the slope of the change of units."""
    prior = nested(units(1), mean=0.3, log_std=-0.2, size=1).double()
    grid = torch.linspace(-20, 30, 40_001, dtype=torch.float64)[:, None]
    mass = torch.trapezoid(prior().log_prob(grid).exp().detach(), grid[:, 0])
    assert mass.item() == pytest.approx(1, abs=1e-6)
    z = prior().sample((100_000,))
    middle = torch.trapezoid(prior().log_prob(grid).exp().detach() * grid[:, 0], grid[:, 0])
    assert z.mean().item() == pytest.approx(middle.item(), abs=0.03)


def test_standard_units_follow_what_they_observe_in_train_mode():
    codes = StandardUnits(3)
    z = torch.randn(400, 3, 4, 5) * torch.tensor([1.0, 5.0, 0.1])[:, None, None] - 2
    assert codes.inward(z).equal(z)
    codes.eval().observe(z)
    assert codes.passes == 0
    codes.train().observe(z)
    inside = codes.inward(z)
    torch.testing.assert_close(inside.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(inside.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(codes.outward(inside), z)
    few = z[:4]
    for _ in range(600):
        codes.observe(few + 7)
    torch.testing.assert_close(codes.mean, few.mean((0, 2, 3)) + 7, atol=0.1, rtol=0)


def test_slope_of_standard_units_is_that_of_the_map():
    codes, z = StandardUnits(2).double(), torch.randn(3, 2, 4, dtype=torch.float64)
    codes.train().observe(3 * z + 1)
    inside, slope = codes.continuous(z)
    jacobian = torch.autograd.functional.jacobian(lambda v: codes.inward(v[None])[0].flatten(), z[0])
    torch.testing.assert_close(slope[0], torch.linalg.slogdet(jacobian.reshape(8, 8)).logabsdet)
    torch.testing.assert_close(inside, codes.inward(z))
    assert slope.shape == (3,)


def test_a_codebook_has_the_last_word_on_samples():
    table = Codebook(5, 2)
    codes = StandardUnits(2, table)
    z = codes.outward(torch.randn(6, 2, 3))
    assert torch.equal(z, table.look_up(table.codes(z)))


def linear(prior, kind=LatentVariable):
    """p(x | z) and q(z | x) of a linear-Gaussian model whose posterior is exact for p(z) = N(0, I)."""
    w = torch.linalg.qr(torch.randn(4, 2, dtype=torch.float64)).Q * torch.tensor([1.5, 0.7], dtype=torch.float64)
    s, zero = 0.6, torch.zeros(4, dtype=torch.float64)
    m = (w.T @ w).diagonal() + s**2
    likelihood = Linear(w, zero, torch.full((4,), math.log(s), dtype=torch.float64))
    posterior = Linear(w.T / m[:, None], zero[:2], 0.5 * (s**2 / m).log())
    model = Model(DataSpec((4,)), kind(prior, likelihood), Inference(latent=posterior), Autoencoding(StandardRate()))
    exact = torch.distributions.MultivariateNormal(zero, w @ w.T + s**2 * torch.eye(4, dtype=torch.float64))
    return model, exact


def test_bound_with_a_nested_prior_is_tight_where_it_is_the_plain_ones():
    """At the exact posterior log w is log p(x) for every draw, though p(z) is a model of its own."""
    model, exact = linear(nested(Domain()).double(), ElboOnly)
    x = exact.sample((50,))
    found = model.log_likelihood(x)
    torch.testing.assert_close(found.value, exact.log_prob(x))
    assert (found.kind, found.measure) == ("lower bound", "density")
    assert [c for c in model.capabilities if ":" in c] == ["log_likelihood:elbo"]


def test_standard_rate_is_blind_to_the_prior():
    model, exact = linear(nested(Domain(), mean=5.0).double())
    plain, _ = linear(StandardNormal(2).double())
    x = exact.sample((5,))
    rates = [StandardRate()(m, code(m, Batch(x)))["rate"] for m in (model, plain)]
    plain_rate = torch.distributions.kl_divergence(
        torch.distributions.Normal(model.inference.latent(x).mean, model.inference.latent(x).stddev),
        torch.distributions.Normal(0.0, 1.0),
    ).sum(1)
    torch.testing.assert_close(rates[0], plain_rate)
    assert rates[1].shape == rates[0].shape


def test_measures_that_do_not_fit_offer_no_likelihood():
    """Entries have masses and a diffusion of vectors a density: their ratio is no bound, and none is offered."""
    data = DataSpec((1, 8, 8), levels=17)
    kl, vq = (build("latent_diffusion", data, regularisation=r, timesteps=4) for r in ("kl", "vq"))
    assert "log_likelihood:elbo" in kl.capabilities
    assert not [c for c in vq.capabilities if c.startswith("log_likelihood")]


def test_latent_bound_is_the_sum_of_its_parts():
    """log p(x | z) + the chain's bound in standard units + slope - log q(z | x), at the same draws."""
    model = build("latent_diffusion", DataSpec((3,)), latent=2, width=8, timesteps=5, likelihood="gaussian").eval()
    x = torch.randn(6, 3)
    with torch.no_grad():
        codes = model.generative.prior.codes
        codes.mean.fill_(0.5)
        codes.square.fill_(0.25 + 4.0)
        torch.manual_seed(1)
        found = model.log_likelihood(x).value
        torch.manual_seed(1)
        q = model.inference.latent(x)
        z = q.rsample()
        chain = model.generative.prior.inner.generative.vlb((z - 0.5) / 2, None)
        expected = model.generative.likelihood(z).log_prob(x) + chain - 2 * math.log(2) - q.log_prob(z)
    torch.testing.assert_close(found, expected)


def test_sampling_options_reach_the_chain():
    model = build("latent_diffusion", DataSpec((3,), classes=2), timesteps=12, conditional=True, unconditional=0.1)
    count = 0

    def counted(*_):
        nonlocal count
        count += 1

    model.generative.prior.inner.generative.denoiser.net.register_forward_pre_hook(counted)
    for how, expected in (
        ({}, 12),
        ({"sampler": "ddim", "evaluations": 3}, 3),
        ({"sampler": "dpm_solver", "evaluations": 5}, 5),
    ):
        count = 0
        model.sample(4, condition=1, seed=0, **how)
        assert count == model.generative.evaluations(**how) == expected
    one, two = (model.sample(4, condition=1, seed=0, guidance=g) for g in (1.0, 3.0))
    assert one.shape == two.shape
    with pytest.raises(ValueError, match="Expected 1 to 12 evaluations"):
        model.sample(2, condition=1, evaluations=13)
    with pytest.raises(ValueError, match="pixels='mean' or 'draw'"):
        model.sample(2, condition=1, pixels="median")


SMALL = {
    "two_stage_vae": {"latent": 2, "width": 32, "prior_width": 32, "prior_depth": 2, "likelihood": "gaussian"},
    "latent_diffusion": {"latent": 2, "width": 32, "prior_width": 32, "prior_blocks": 2, "timesteps": 20},
    "ot_decoder": {"latent": 2, "width": 32},
}


@pytest.mark.parametrize("name", [pytest.param("two_stage_vae", marks=pytest.mark.slow), "latent_diffusion"])
def test_labels_come_where_they_belong(name):
    model, data = build(name, PLANE, conditional=True, **SMALL[name]), corners()
    for stage in range(2):
        settings = Settings(steps=300, batch=64, lr=3e-3, device="cpu", ema=0.97)
        fit(model, data, settings, mode=Mode(), stage=stage)
    y = torch.arange(3).repeat(200)
    x = model.sample(600, condition=y, seed=0)
    assert (torch.cdist(x, CORNERS).argmin(1) == y).float().mean() > 0.95


@pytest.mark.slow
def test_a_decoder_without_an_encoder_finds_the_data():
    with pytest.warns(UserWarning, match="vary too little"):
        model = build("ot_decoder", PLANE, draws=128, conditional=True, **SMALL["ot_decoder"])
    fit(model, corners(), Settings(steps=200, batch=64, lr=5e-3, device="cpu", ema=0.95), mode=Mode())
    y = torch.arange(3).repeat(200)
    x = model.sample(600, condition=y, seed=0)
    assert (torch.cdist(x, CORNERS).argmin(1) == y).float().mean() > 0.95
    spread = torch.stack([x[y == k].std(0) for k in range(3)])
    assert ((spread > 0.1) & (spread < 0.3)).all()


def test_transport_is_the_divergence_of_joint_clouds():
    """Samples of one label far from their data cost the distance, though some other label's data are near them."""

    class Fixed(Conditional):
        def forward(self, z, *, y=None):
            return Gaussian(CORNERS[(y + 1) % 3], torch.zeros(len(y), 2))

    y = torch.arange(3).repeat(4)
    model = Model(PLANE, LatentVariable(StandardNormal(2), Fixed()), Inference(), NLL())
    blind = Transport(sinkhorn_divergence, 24)(model, Batch(CORNERS[y], y))["transport"]
    seeing = Transport(sinkhorn_divergence, 24, condition=3, scale=50.0)(model, Batch(CORNERS[y], y))["transport"]
    expected = 0.5 * (CORNERS - CORNERS.roll(-1, 0)).square().sum(1).mean()
    assert blind.item() == pytest.approx(0, abs=1e-4)
    assert seeing.item() == pytest.approx(expected.item(), rel=1e-3)


def test_few_draws_are_warned_about():
    with pytest.warns(UserWarning, match="of 64 samples is biased"):
        build("ot_decoder", DataSpec((3,)), draws=64)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("two_stage_vae", {"latent": 0}, "latent >= 1"),
        ("two_stage_vae", {"prior_width": 0}, "prior_width, prior_depth >= 1"),
        ("two_stage_vae", {"beta": -1.0}, "beta >= 0"),
        ("latent_diffusion", {"regularisation": "l2"}, "Unknown regularisation of latent_diffusion 'l2'"),
        ("latent_diffusion", {"latent": -1}, "latent >= 1"),
        ("latent_diffusion", {"regularisation": "vq", "codebook": 1}, "at least 2 entries"),
        ("latent_diffusion", {"unconditional": 0.5}, "conditional=True"),
        ("ot_decoder", {"latent": 0}, "latent >= 1"),
        ("ot_decoder", {"blur": 0.0}, "blur > 0"),
        ("ot_decoder", {"conditional": True}, "neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, DataSpec((5,)), **options)


@pytest.mark.parametrize("name", ["vq_vae", "latent_diffusion"])
def test_a_run_of_two_stages_resumes_exactly(name, tmp_path):
    """Cut in the second stage and continued, it has the bytes of a run that was not cut."""
    options = {"width": 8, "depth": 1, "prior_width": 8} | ({"timesteps": 5} if name == "latent_diffusion" else {})
    data = corners(40)
    how = {"options": options, "batch": 8, "device": "cpu", "progress": False, "samples": 0, "horizon": 4,
           "precision": "float32", "channels_last": "no"}  # fmt: skip
    splits = runs.read(data.x.numpy())
    runs.fit(name, splits, out=tmp_path / "short", steps=2, **how)
    runs.resume(tmp_path / "short", steps=4, data=splits, samples=0, progress=False)
    whole = build_like(name, splits, options)
    settings = Settings(steps=2, batch=8, device="cpu", horizon=4)
    fit(whole, splits.train, settings, mode=Mode(), folder=tmp_path / "a", stage=0)
    fit(
        whole,
        splits.train,
        Settings(steps=4, batch=8, device="cpu", horizon=4),
        mode=Mode(),
        folder=tmp_path / "b",
        stage=1,
    )
    one, two = (
        checkpoint.newest(p / "checkpoints")[1].tensors for p in (tmp_path / "short" / "stage1", tmp_path / "b")
    )
    assert one.keys() == two.keys()
    for key in one:
        assert torch.equal(one[key], two[key]), key


def build_like(name, splits, options):
    torch.manual_seed(0)
    return build(name, splits.spec, **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [("vamp_vae", {"components": 9}), ("vq_vae", {"codebook": 17, "positions": 2})],
)
def test_more_entries_than_data_are_refused(name, options):
    splits = runs.read(torch.randn(10, 3).numpy())
    with pytest.raises(ValueError, match=r"needs at least 9 training examples for its entries, and there are 8"):
        runs.fit(name, splits, steps=1, options={"latent": 2, **options}, progress=False)


def test_overcomplete_codes_are_warned_about():
    splits = runs.read(torch.randn(10, 3).numpy())
    with pytest.warns(UserWarning, match="latent=4 is more than the 3 values"):
        runs.fit("sparse_ae", splits, steps=1, options={"latent": 4, "width": 8}, progress=False)


def test_the_model_of_the_page_trains():
    page = (Path(__file__).parents[2] / "docs" / "autoencoders.md").read_text(encoding="utf8")
    source = next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "vae_then_flow" in code)
    found = {}
    exec(source, found)
    data = DataSpec((3,))
    model = found["vae_then_flow"](data, latent=2)
    x = torch.randn(64, 3)
    for stage in range(2):
        fit(model, InMemory(x, None, data), Settings(steps=101, batch=16, device="cpu"), mode=Mode(), stage=stage)
    assert model.log_likelihood(x).kind == "lower bound"
    assert model.sample(3, seed=0).shape == (3, 3)
