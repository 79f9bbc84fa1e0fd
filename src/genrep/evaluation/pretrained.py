"""Networks with public weights as extractors: Inception-v3 and DINOv2, from local safetensors files.

Nothing is downloaded, and no pickle is read: a weight file in that form is refused, with the line that converts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genrep import storage
from genrep.contracts import DataSpec
from genrep.evaluation.features import Extractor, digest
from genrep.nets.dino import DINOv2
from genrep.nets.inception import SIDE, InceptionV3

PICKLES = frozenset({".pth", ".pt", ".bin", ".ckpt", ".pkl", ".pickle", ".th"})
_MADE_BY = {
    "inception": "the weights of pytorch-fid (pt_inception-2015-12-05) or of torchvision's inception_v3",
    "dinov2": "the official DINOv2 backbones (dinov2_vits14_pretrain and its larger kin, without registers)",
}
_DINO_SIDE = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def weights(path: str, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file; a ValueError says how to come by one, and how to convert a pickle."""
    if not path:
        raise ValueError(f"Features {name} need a weight file: {name}:FILE.safetensors, {_MADE_BY[name]}.")
    file = Path(path).expanduser()
    if not file.is_file():
        raise ValueError(f"There is no weight file {file}. Get {_MADE_BY[name]}; genrep downloads none.")
    if file.suffix in PICKLES:
        raise ValueError(
            f"{file} is a pickle, which can run code when it is read, so it is refused. Convert it once, where you "
            'trust it: python -c "import sys, torch; from safetensors.torch import save_file; '
            "save_file({k: v.contiguous() for k, v in torch.load(sys.argv[1], map_location='cpu', "
            f'weights_only=True).items()}}, sys.argv[2])" {file} {file.with_suffix(".safetensors")}'
        )
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or not a safetensors file: {error}.") from error


def _restored(net: nn.Module, found: Mapping[str, Tensor], source: str) -> nn.Module:
    """The network with these weights; counters of training steps are not weights and may be missing."""
    mine = {k: v for k, v in storage.state(net).items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in found.items() if not k.endswith("num_batches_tracked")}
    storage.check(given, mine, source)
    with torch.no_grad():
        for name, tensor in given.items():
            mine[name].copy_(tensor)
    return net.eval().requires_grad_(requires_grad=False)


def _bytes(spec: DataSpec, name: str) -> Callable[[Tensor], Tensor]:
    """From images as the data set holds them to colour images in [0, 255]."""
    if len(spec.shape) != 3 or spec.shape[0] not in (1, 3) or spec.levels is None:
        raise ValueError(f"Features {name} are for grey or colour images over levels; this data is {spec}.")
    scale = 255 / (spec.levels - 1)
    return lambda x: (x.float() * scale).expand(-1, 3, -1, -1)


def inception(path: str, spec: DataSpec) -> Extractor:
    """Inception-v3: 2,048 pooled features, a spatial map of 7 x 17 x 17 and class probabilities.

    The variant is read from the number of classes: 1,008 is the network of the published Fréchet inception distances,
    with the resizing of its graph; 1,000 that of image classifiers. Reference: Heusel et al. (2017); the map, Nash et
    al. (2021), section 5.
    """
    image = _bytes(spec, "inception")
    found = {k: v for k, v in weights(path, "inception").items() if not k.startswith("AuxLogits.")}
    classes = len(found.get("fc.bias", ()))
    if classes not in (1000, 1008):
        raise ValueError(f"{path}: expected fc.bias of 1008 or 1000 classes, got {classes}; it is no Inception-v3.")
    net = InceptionV3("fid" if classes == 1008 else "imagenet")
    _restored(net, found, path)

    def inside(x: Tensor) -> Tensor:
        return (resized(image(x), SIDE) - 128) / 128

    about = {
        "width": 2048,
        "variant": "fid" if classes == 1008 else "imagenet",
        "preprocessing": f"{spec.levels} levels to [0, 255], {spec.shape[0]} channels to 3, bilinear to {SIDE} x "
        f"{SIDE} from the first pixel on, (x - 128) / 128",
    }
    return Extractor(
        "inception",
        digest(*found.values()),
        about,
        lambda x: _in_parts(lambda part: net(inside(part)), x),
        spatial=lambda x: _in_parts(lambda part: net.spatial(inside(part)).flatten(1), x),
        classify=lambda x: _in_parts(lambda part: net.logits(net(inside(part))).softmax(1), x),
    )


def dinov2(path: str, spec: DataSpec) -> Extractor:
    """DINOv2: the class token of an image resized to 224 x 224. Reference: Oquab et al. (2024)."""
    image, found = _bytes(spec, "dinov2"), weights(path, "dinov2")
    try:
        net = DINOv2.like(found)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a DINOv2 backbone ({error} is missing); get {_MADE_BY['dinov2']}.") from error
    _restored(net, found, path)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) * 255 for v in (_MEAN, _DEVIATION))

    def features(part: Tensor) -> Tensor:
        large = F.interpolate(image(part), size=_DINO_SIDE, mode="bicubic", antialias=True)
        return net((large - mean) / deviation)

    about = {
        "width": found["cls_token"].shape[2],
        "preprocessing": f"{spec.levels} levels to [0, 1], {spec.shape[0]} channels to 3, bicubic to {_DINO_SIDE} x "
        f"{_DINO_SIDE}, ImageNet mean and deviation",
    }
    return Extractor("dinov2", digest(*found.values()), about, lambda x: _in_parts(features, x))


def _in_parts(function: Callable[[Tensor], Tensor], x: Tensor, size: int = 32) -> Tensor:
    return torch.cat([function(part) for part in x.split(size)])


def resized(x: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) bilinearly to (B, C, side, side): pixel i reads position i H / side.

    This is the resizing of the graph that the published distances were measured with; it shifts by up to half a pixel
    against resizing around pixel centres.
    """
    return _rows(x.shape[2], side).to(x) @ x @ _rows(x.shape[3], side).to(x).T


def _rows(n: int, side: int) -> Tensor:
    at = torch.arange(side, dtype=torch.float64) * n / side
    low = at.floor().long()
    matrix = torch.zeros(side, n, dtype=torch.float64)
    matrix[torch.arange(side), low] += 1 - (at - low)
    matrix[torch.arange(side), (low + 1).clamp(max=n - 1)] += at - low
    return matrix
