"""The ddpm recipe: every kind of data, its options, and that it learns."""

import pytest
import torch

from genrep.contracts import Batch, DataSpec
from genrep.models import build

KINDS = {
    "digits": DataSpec((1, 8, 8), levels=17, classes=3),
    "odd": DataSpec((3, 9, 11), levels=256, condition=2),
    "table": DataSpec((5,), classes=2, mean=(1.0,) * 5, std=(2.0,) * 5),
    "levels": DataSpec((4,), levels=3),
    "real images": DataSpec((2, 8, 9)),
}


def batch(data, n=6):
    torch.manual_seed(0)
    x = torch.randint(0, data.levels, (n, *data.shape)) if data.levels else torch.randn(n, *data.shape)
    y = torch.randint(0, data.classes, (n,)) if data.classes else torch.randn(n, data.condition)
    return Batch(x.to(torch.uint8) if data.levels else x, y if data.classes or data.condition else None)


def trained(model, data, updates, lr=2e-3):
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    for k in range(updates):
        optimiser.zero_grad()
        loss = model.objectives[0].total(model(data(k)))
        loss.backward()
        optimiser.step()
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conditional", [False, True])
def test_every_part_learns_on_every_kind_of_data(kind, conditional):
    """After the first updates, which leave zero weights behind, a gradient reaches every parameter."""
    data = KINDS[kind]
    if conditional and not (data.classes or data.condition):
        pytest.skip("this kind has no condition")
    model, xy = build("ddpm", data, width=8, timesteps=7, conditional=conditional), batch(data)
    trained(model, lambda k: xy, 5)
    assert [name for name, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []
    y = xy.y if conditional else None
    found = model.log_likelihood(xy.x, condition=y)
    assert (found.kind, found.measure) == ("lower bound", "mass" if data.levels else "density")
    x = model.sample(6, condition=y, seed=1, sampler="ddim", evaluations=3)
    assert (x.shape, x.dtype) == (xy.x.shape, xy.x.dtype)
    assert torch.equal(x, model.sample(6, condition=y, seed=1, sampler="ddim", evaluations=3))
    assert not torch.equal(x, model.sample(6, condition=y, seed=2, sampler="ddim", evaluations=3))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"noise_schedule": "linear"}, {"loss": "vlb", "choice": "loss_aware"}])
def test_a_table_is_learnt_to_its_entropy(options):
    """Rows of N((3, -2), diag(4, 0.25)): the bound nears the exact mean log-density, samples have its moments."""
    mean, std = torch.tensor([3.0, -2.0]), torch.tensor([2.0, 0.5])
    data = DataSpec((2,), mean=(3.0, -2.0), std=(2.0, 0.5))
    model = build("ddpm", data, **options, width=32, blocks=1, timesteps=50)
    trained(model, lambda k: Batch(mean + std * torch.randn(256, 2)), 300)
    x = mean + std * torch.randn(8000, 2)
    exact = torch.distributions.Normal(mean, std).log_prob(x).sum(1).mean().item()
    bound = model.log_likelihood(x).value.mean().item()
    assert exact - 0.2 < bound < exact + 0.03
    samples = model.sample(2000, seed=0, batch=2000)
    torch.testing.assert_close(samples.mean(0), mean, atol=0.25, rtol=0)
    torch.testing.assert_close(samples.std(0), std, atol=0, rtol=0.15)


def test_the_condition_is_read():
    """Two classes at -1 and 1: samples fall where the label says."""
    data = DataSpec((1,), classes=2)
    model = build("ddpm", data, width=32, blocks=1, timesteps=20, conditional=True, unconditional=0.2)

    def draw(k):
        y = torch.randint(0, 2, (128,))
        return Batch(2.0 * y[:, None] - 1 + 0.1 * torch.randn(128, 1), y)

    model = trained(model, draw, 150)
    for label in (0, 1):
        x = model.sample(200, condition=label, seed=0)
        assert ((x > 0).float().mean() - label).abs() < 0.02
    unknown = model.sample(400, condition=-1, seed=0)
    assert (unknown > 0).float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert model.sample(50, condition=1, seed=0, sampler="dpm_solver", guidance=2.0).mean() > 0.9


def test_loss_is_finite_in_bfloat16():
    data = KINDS["digits"]
    model = build("ddpm", data, width=8)
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(batch(data))
        model.objectives[0].total(terms).backward()
    assert {name: v.dtype for name, v in terms.items()} == {"simple": torch.float32, "vlb": torch.float32}
    assert all(v.isfinite().all() for v in terms.values())


def test_features_at_a_noise_level():
    data = KINDS["digits"]
    model, x = build("ddpm", data, width=8), batch(data).x
    clean, again, noisy = model.features(x), model.features(x), model.features(x, noise=0.5)
    assert list(clean) == ["level0", "level1", "middle"]
    for layer, value in clean.items():
        assert torch.equal(value, again[layer])
        assert not torch.allclose(value, noisy[layer])


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("digits", {"timesteps": 0}, "at least 1 step"),
        ("digits", {"noise_schedule": "sine"}, "Unknown noise_schedule of ddpm 'sine'"),
        ("digits", {"loss": "simple", "variance": "learnt"}, "simple trains no variance"),
        ("digits", {"loss": "hybrid", "variance": "beta"}, "hybrid needs one"),
        ("digits", {"multipliers": (1, 1, 1, 1)}, "can be halved 2 times at most"),
        ("digits", {"noise_betas": (0.1, 1.5)}, "numbers between 0 and 1"),
        ("digits", {"multipliers": (1, 0)}, "multipliers >= 1"),
        ("digits", {"dropout": 1.0}, "0 <= dropout < 1"),
        ("digits", {"width": -1}, ">= 0"),
        ("digits", {"unconditional": 0.1}, "conditional=True"),
        ("table", {"multipliers": (1, 2)}, "needs images"),
        ("levels", {"conditional": True}, "neither"),
    ],
)
def test_options_that_do_not_fit_are_refused(data, options, message):
    with pytest.raises(ValueError, match=message):
        build("ddpm", KINDS[data], **options)


def test_sampling_options_that_do_not_fit_are_refused():
    model = build("ddpm", KINDS["levels"], width=8, timesteps=10)
    for how, message in (({"sampler": "eular"}, "Unknown sampler 'eular'"), ({"evaluations": 11}, "1 to 10")):
        with pytest.raises(ValueError, match=message):
            model.sample(2, **how)


def test_a_schedule_of_ones_own_is_the_chain():
    """abar is the product of 1 - beta; the samplers' steps are as many as there are betas."""
    model = build("ddpm", KINDS["table"], noise_betas=(0.1, 0.2, 0.5), timesteps=7)
    chain = model.generative.chain
    torch.testing.assert_close(chain.alpha.square(), torch.tensor([1.0, 0.9, 0.72, 0.36]))
    assert model.generative.evaluations() == 3
