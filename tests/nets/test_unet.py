"""The denoising networks."""

import pytest
import torch

from genrep.nets.residual import ResidualMLP
from genrep.nets.time import sinusoids
from genrep.nets.unet import UNet


def randomised(net):
    """Away from the zero weights that layers begin with."""
    torch.manual_seed(0)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return net


SHAPES = [(1, 8, 8), (1, 28, 28), (3, 9, 13), (2, 11, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_every_parameter_learns_at_any_size(shape):
    net = randomised(UNet(shape, 2 * shape[0], width=8, blocks=2, attention=8, condition=3, multipliers=(1, 2)))
    x, t, c = torch.randn(3, *shape), torch.rand(3), torch.randn(3, 3)
    out = net(x, t, c)
    assert out.shape == (3, 2 * shape[0], *shape[1:])
    out.square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("net", [UNet((2, 9, 8), 2, width=8, dropout=0.5), ResidualMLP((5,), 5, width=16, dropout=0.5)])
def test_examples_do_not_see_each_other(net):
    net = randomised(net).eval().double()
    x, t = torch.randn(4, *((2, 9, 8) if isinstance(net, UNet) else (5,))).double(), torch.rand(4)
    torch.testing.assert_close(net(x, t)[2:3], net(x[2:3], t[2:3]))
    assert not torch.allclose(net(x, t), net(x, t.flip(0)))
    net.train()
    assert not torch.allclose(net(x, t), net(x, t))


def test_output_is_finite_in_bfloat16():
    net = randomised(UNet((1, 28, 28), 2, width=8))
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.randn(2, 1, 28, 28), torch.rand(2)).isfinite().all()


def test_encoder_and_decoder_apart_are_the_network():
    net = randomised(UNet((1, 12, 12), 1, width=8))
    x, t = torch.randn(2, 1, 12, 12), torch.rand(2)
    assert torch.equal(net.decode(net.encode(x, t)), net(x, t))


@pytest.mark.parametrize(
    ("side", "width", "multipliers", "features"),
    [(28, 64, (1, 2, 2), 1344), (32, 128, (1, 2, 2, 2), 3712), (64, 128, (1, 2, 3, 4), 5248)],
)
def test_pooled_features_have_the_published_width(side, width, multipliers, features):
    """Every skip and the middle block, with three blocks a level."""
    with torch.device("meta"):
        net = UNet((1, side, side), 1, width=width, multipliers=multipliers, blocks=3)
        pooled = net.features(torch.empty(1, 1, side, side), torch.empty(1))
    assert list(pooled) == [f"level{i}" for i in range(len(multipliers))] + ["middle"]
    assert sum(layer.shape[1] for layer in pooled.values()) == features


def test_published_sizes():
    """8.8 million parameters at 28 x 28, 52.5 at 32 x 32 and 121 at 64 x 64, with learnt variance; heads add none."""
    with torch.device("meta"):
        small = [UNet((1, 28, 28), 2, width=64, blocks=3, attention=1, heads=h) for h in (0, 4)]
        middle = UNet((3, 32, 32), 6, width=128, multipliers=(1, 2, 2, 2), blocks=3, attention=8)
        large = UNet((3, 64, 64), 6, width=128, multipliers=(1, 2, 3, 4), blocks=3, attention=16)
    for net in small:  # the published one also attends over all 28 x 28 pixels, seven times 16,832 more
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(8.8e6 - 7 * 16832, rel=0.001)
    assert sum(p.numel() for p in middle.parameters()) == pytest.approx(52.5e6, rel=0.001)
    assert sum(p.numel() for p in large.parameters()) == pytest.approx(121e6, rel=0.001)


def test_pooling_is_the_mean_over_pixels():
    net = randomised(UNet((1, 8, 8), 1, width=8, multipliers=(1, 2)))
    x, t = torch.randn(3, 1, 8, 8), torch.rand(3)
    torch.testing.assert_close(net.features(x, t)["middle"], net.encode(x, t).middle.flatten(2).mean(2))


def test_times_are_told_apart():
    """A thousandth of the chain is visible in the fastest sinusoid, the whole in the slowest."""
    a = sinusoids(torch.tensor([0.5, 0.501, 1.0]), 64)
    assert (a[0] - a[1]).abs().max() > 0.5
    assert a.shape == (3, 64)
    torch.testing.assert_close(a[:, 0], torch.tensor([500.0, 501.0, 1000.0]).cos(), atol=1e-4, rtol=0)


def test_sizes_that_do_not_fit_the_levels_are_refused():
    with pytest.raises(ValueError, match="can be halved 2 times at most, got depth=4; that takes at least 17 x 17"):
        UNet((1, 8, 8), 1, multipliers=(1, 1, 1, 1, 1))


def test_heads_split_the_channels():
    """Heads change what is mixed; a number that does not divide the channels is refused."""
    x, t = torch.randn(2, 1, 8, 8), torch.rand(2)
    one, four = (randomised(UNet((1, 8, 8), 1, width=8, multipliers=(1, 2), heads=h))(x, t) for h in (1, 4))
    assert not torch.allclose(one, four)
    with pytest.raises(ValueError, match="heads that divide the 8 channels"):
        UNet((1, 8, 8), 1, width=8, multipliers=(1, 1), heads=3)
