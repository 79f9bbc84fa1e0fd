"""Autoregressive models as users meet them: precision, learning, options."""

import math

import pytest
import torch

from genrep.contracts import Batch, DataSpec, evaluating
from genrep.models import build

MODELS = ["pixel_cnn", "made", "pixel_transformer", "pixel_rnn"]

IMAGE = DataSpec((1, 8, 8), levels=3)


def loud(module, scale=1.0):
    """Weights far from their start."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=scale / math.sqrt(max(1, p[0].numel()) if p.ndim > 1 else 1))
    return module


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("conditional", [False, True])
def test_samples_of_a_model_do_not_depend_on_the_cache(name, conditional):
    model = loud(build(name, DataSpec((2, 8, 9), levels=5, classes=3), width=16, conditional=conditional).double())
    condition = torch.tensor([0, 1, 2, 2, -1]) if conditional else None
    drawn = [model.sample(5, condition=condition, seed=3, cache=cache) for cache in (True, False)]
    assert torch.equal(*drawn)
    assert drawn[0].dtype == torch.uint8
    kept = model.sample(5, condition=condition, seed=4, prefix=drawn[0][0], known=37)
    assert torch.equal(
        kept.movedim(1, -1).flatten(1)[:, :37], drawn[0][:1].movedim(1, -1).flatten(1)[:, :37].expand(5, -1)
    )


@pytest.mark.parametrize("variant", ["gated", "plain", "multiscale"])
def test_dropout_is_only_in_training(variant):
    model = build("pixel_cnn", IMAGE, variant=variant, dropout=0.5, width=16)
    x = torch.randint(0, 3, (2, 1, 8, 8), dtype=torch.uint8)
    torch.manual_seed(0)
    first, second = (model(Batch(x))["nll"] for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model.log_likelihood(x).value, model.log_likelihood(x).value)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("output", ["categorical", "mixture"])
def test_half_precision_keeps_log_probabilities_finite_and_in_float32(name, output):
    model = loud(build(name, DataSpec((1, 8, 8), levels=256), output=output, width=16, depth=3), 5.0)
    batch = Batch(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        nll = model(batch)["nll"]
    assert nll.dtype == torch.float32
    assert nll.isfinite().all()
    nll.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


SMALL = {
    "pixel_cnn": {"width": 16},
    "made": {"width": 256},
    "pixel_transformer": {"width": 32},
    "pixel_rnn": {"width": 32, "variant": "row"},
}


@pytest.mark.parametrize("name", MODELS)
def test_training_learns_the_data(name):
    """Fitted to a data set of two images, the model reaches their entropy, log 2 nats, and draws only them."""
    torch.manual_seed(0)
    model = build(name, DataSpec((1, 8, 8), levels=4), depth=2, **SMALL[name])
    x = torch.randint(0, 4, (2, 1, 8, 8), dtype=torch.uint8)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(200):
        optimiser.zero_grad()
        loss = model.objectives[0].total(model(Batch(x)))
        loss.backward()
        optimiser.step()
    assert loss.item() == pytest.approx(math.log(2), abs=0.3)
    with torch.no_grad(), evaluating(model):
        drawn = model.sample(20, seed=0)
    errors = (drawn[:, None] != x).flatten(2).float().mean(2)
    assert (errors.min(1).values < 0.05).float().mean() > 0.8
    assert len(errors.argmin(1).unique()) == 2


@pytest.mark.parametrize(
    ("name", "data", "options", "message"),
    [
        ("pixel_cnn", DataSpec((5,), levels=3), {}, "Expected images"),
        ("pixel_cnn", DataSpec((1, 8, 8)), {}, "integer levels"),
        ("pixel_cnn", DataSpec((1, 4, 8), levels=3), {}, "at least 8"),
        ("pixel_cnn", IMAGE, {"kernel": 4}, "odd kernel"),
        ("pixel_cnn", IMAGE, {"variant": "gates"}, "gated"),
        ("pixel_cnn", IMAGE, {"conditional": True}, "neither"),
        ("pixel_cnn", IMAGE, {"components": 0}, "components >= 1, depth >= 0"),
        ("pixel_cnn", IMAGE, {"dropout": 1.0}, "dropout < 1"),
        ("made", DataSpec((5,)), {}, "integer levels"),
        ("made", IMAGE, {"depth": 0}, "depth"),
        ("pixel_rnn", DataSpec((5,), levels=3), {}, "Expected images"),
        ("pixel_rnn", IMAGE, {"variant": "rows"}, "row"),
        ("pixel_transformer", DataSpec((5,), levels=3), {"attention": "local"}, "needs images"),
        ("pixel_transformer", IMAGE, {"heads": 5}, "heads that divide"),
        ("pixel_transformer", DataSpec((5, 5), levels=3), {}, "images"),
    ],
)
def test_what_does_not_fit_is_refused(name, data, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, data, **options)
