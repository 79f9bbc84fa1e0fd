"""Three roles in two turns: who learns from what, and a distance in features that vanishes at equality."""

import pytest
import torch

from genrep.contracts import Batch, DataSpec
from genrep.models import build

DATA = DataSpec((1, 8, 8), levels=17, classes=3)


def made(**options):
    torch.manual_seed(0)
    return build("vae_gan", DATA, latent=3, width=4, conditional=True, **options).train()


def batch(n=6):
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(17, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Batch(x, torch.tensor([0, 1, 2, -1, 0, 1])[:n])


def reached(model):
    return {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


ENCODER, DECODER, CRITIC = "inference.latent", "generative.likelihood", "objectives.0.critic"


@pytest.mark.parametrize(
    ("player", "term", "parts"),
    [
        ("critic", "critic", {CRITIC}),
        ("model", "distortion", {ENCODER, DECODER}),
        ("model", "rate", {ENCODER}),
        ("model", "generator", {DECODER}),
    ],
)
def test_each_term_teaches_whom_it_should(player, term, parts, play):
    model = made()
    play.freeze(model, player)
    model(batch(), 0, player)[term].mean().backward()
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(parts))}
    assert reached(model) == expected


def test_distance_is_zero_at_equality_and_grows():
    objective = made().eval().objectives[0]
    x, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 1, 8, 8)
    assert objective.distance(x, x).abs().max() == 0
    near, far = objective.distance(x, x + 0.01 * noise), objective.distance(x, x + 0.1 * noise)
    assert (near > 0).all()
    assert (far > 10 * near).all()


@pytest.mark.slow
def test_reconstructions_and_samples_approach_the_data(play):
    """Pictures that are one of two constants: the reconstruction tells them apart, and samples are of both kinds."""
    torch.manual_seed(0)
    data = DataSpec((16,), mean=(0.0,) * 16, std=(1.0,) * 16)
    sign = lambda n: 2.0 * torch.randint(2, (n, 1)) - 1  # noqa: E731
    draw = lambda: Batch(sign(64) + 0.1 * torch.randn(64, 16))  # noqa: E731
    model = build("vae_gan", data, latent=2, width=32, beta=0.1)
    play(model, draw, 1500, lr=2e-3, betas=(0.5, 0.999), average=0.98)
    x = draw().x
    assert (model.reconstruct(x) - x).abs().mean().item() < 0.4
    samples = model.sample(500, seed=0).mean(1)
    assert samples.abs().mean().item() == pytest.approx(1, abs=0.25)
    assert 0.2 < (samples > 0).float().mean().item() < 0.8


def test_there_is_no_likelihood():
    assert made().capabilities == {"sample", "condition", "encode", "decode", "reconstruct", "features"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent >= 1"),
        ({"beta": -1.0}, "beta and gen"),
        ({"network": "conv"}, "needs images"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build("vae_gan", DataSpec((5,)), **options)
