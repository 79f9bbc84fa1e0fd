"""Networks with public weight files: names, shapes, variants, resizing; files that are refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from genrep.contracts import DataSpec
from genrep.evaluation.pretrained import dinov2, inception, resized, weights
from genrep.nets.dino import DINOv2
from genrep.nets.inception import InceptionV3

GREY, COLOUR = DataSpec((1, 8, 8), levels=17), DataSpec((3, 32, 32), levels=256)


def filled(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights that keep activations of order one."""
    g = torch.Generator().manual_seed(0)
    found = {}
    for name, t in net.state_dict().items():
        if t.ndim > 1:
            found[name] = torch.randn(t.shape, generator=g) * (2 / t[0].numel()) ** 0.5
        elif not name.endswith("num_batches_tracked"):
            found[name] = torch.ones(t.shape) if name.endswith(("weight", "var", "gamma")) else torch.zeros(t.shape)
    return found


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(filled(InceptionV3("fid")), path)
    return path


def test_names_and_shapes_are_those_of_the_public_inception_files():
    names = {k: tuple(v.shape) for k, v in InceptionV3("fid").state_dict().items()}
    kernels = {k: s for k, s in names.items() if k.endswith("conv.weight")}
    assert len(kernels) == 94
    assert names["fc.weight"] == (1008, 2048)
    for name, shape in {  # from the table of the paper and the files
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5d.branch_pool.conv.weight": (64, 288, 1, 1),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
        "Mixed_6e.branch7x7dbl_4.conv.weight": (192, 192, 7, 1),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3dbl_3a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.weight": (192,),
    }.items():
        assert names[name] == shape
    total = sum(torch.Size(s).numel() for k, s in names.items() if not k.startswith("fc.") and "bn.running" not in k)
    counters = sum(k.endswith("num_batches_tracked") for k in names)
    assert (
        total - counters == 21_785_568
    )  # 23,834,568 of the classifier with 1,000 outputs, less 2,049,000 of its last layer


def test_names_and_size_of_the_small_dinov2():
    net = DINOv2()
    assert sum(p.numel() for p in net.parameters()) == 22_056_576
    assert net.pos_embed.shape == (1, 1370, 384)
    for name in ("mask_token", "patch_embed.proj.bias", "blocks.11.attn.qkv.weight", "blocks.0.ls2.gamma", "norm.bias"):
        assert name in net.state_dict()


def test_inception_reads_a_file(inception_file):
    found = inception(str(inception_file), GREY)
    x = torch.randint(17, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = found(x)
    assert features.shape == (2, 2048)
    assert found.maps(x).shape == (2, 7 * 17 * 17)
    torch.testing.assert_close(found.probabilities(x).sum(1), torch.ones(2))
    assert found.about["variant"] == "fid"
    assert not torch.equal(features[0], features[1])
    grey = inception(str(inception_file), COLOUR._replace(shape=(3, 8, 8), levels=17))
    torch.testing.assert_close(grey(x[:1].expand(-1, 3, -1, -1)), features[:1])
    assert grey.hash == found.hash


def test_pooling_is_what_tells_the_variants_apart():
    """A constant image stays constant inside; only where padding counts does the border of an average differ."""
    from genrep.nets.inception import Block

    x = torch.ones(1, 4, 5, 5)
    inner = []
    for pool in ("average without padding", "average"):
        block = Block(4, ((("branch1x1", 2, 1, 1),),), pool, 3).eval()
        with torch.no_grad():
            block.branch_pool.conv.weight.fill_(0.25)
        inner.append(block(x)[0, 2:].detach())
    assert inner[0].std() < 1e-6
    torch.testing.assert_close(inner[1][0, 0, 0] / inner[1][0, 2, 2], torch.tensor(4 / 9))


def test_the_imagenet_variant_drops_the_auxiliary_head(tmp_path):
    found = filled(InceptionV3("imagenet")) | {"AuxLogits.fc.bias": torch.zeros(1000)}
    save_file(found, tmp_path / "w.safetensors")
    assert inception(str(tmp_path / "w.safetensors"), COLOUR).about["variant"] == "imagenet"


def test_resizing_reads_position_i_h_over_side():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    found = resized(ramp, 32)
    torch.testing.assert_close(found[0, 0, 0], (torch.arange(32) / 4).clamp(max=7))
    torch.testing.assert_close(resized(ramp, 8), ramp.contiguous())


def test_dinov2_of_any_size_reads_a_file(tmp_path):
    net = DINOv2(width=64, depth=2, hidden=128, grid=5)
    save_file(filled(net), tmp_path / "w.safetensors")
    found = dinov2(str(tmp_path / "w.safetensors"), GREY)
    x = torch.randint(17, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert found(x).shape == (3, 64)
    torch.testing.assert_close(found(x).mean(1), torch.zeros(3), atol=1e-5, rtol=0)  # the last layer normalises
    assert net.positions(5, 5) is net.pos_embed
    assert net.positions(16, 8).shape == (1, 1 + 128, 64)
    with pytest.raises(ValueError, match="multiples of 14"):
        net(torch.zeros(1, 3, 20, 28))


def test_attention_is_the_formula():
    from genrep.nets.dino import Attention

    part, x = Attention(128).double(), torch.randn(2, 5, 128, dtype=torch.float64)
    q, k, v = (t.view(2, 5, 2, 64).transpose(1, 2) for t in part.qkv(x).split(128, 2))
    out = ((q @ k.mT / 8).softmax(-1) @ v).transpose(1, 2).reshape(2, 5, 128)
    torch.testing.assert_close(part(x), part.proj(out))


def test_files_that_do_not_fit_are_refused(tmp_path, inception_file):
    with pytest.raises(ValueError, match="need a weight file"):
        inception("", COLOUR)
    with pytest.raises(ValueError, match="no weight file .* genrep downloads none"):
        weights(str(tmp_path / "absent.safetensors"), "inception")
    (tmp_path / "w.pth").write_bytes(b"PK")
    with pytest.raises(ValueError, match="pickle.*save_file"):
        weights(str(tmp_path / "w.pth"), "dinov2")
    (tmp_path / "w.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="damaged"):
        weights(str(tmp_path / "w.safetensors"), "dinov2")
    save_file({"fc.bias": torch.zeros(10)}, tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="got 10; it is no Inception"):
        inception(str(tmp_path / "small.safetensors"), COLOUR)
    with pytest.raises(ValueError, match="not a DINOv2"):
        dinov2(str(inception_file), COLOUR)
    incomplete = filled(InceptionV3("fid"))
    del incomplete["Mixed_7b.branch1x1.bn.weight"]
    save_file(incomplete, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match="Mixed_7b.branch1x1.bn.weight"):
        inception(str(tmp_path / "part.safetensors"), COLOUR)
    for spec in (DataSpec((3,)), DataSpec((2, 8, 8), levels=4), DataSpec((3, 8, 8))):
        with pytest.raises(ValueError, match="grey or colour images over levels"):
            inception(str(inception_file), spec)
