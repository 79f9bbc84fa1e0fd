"""Transformer autoregressive flow."""

from __future__ import annotations

import math

from genrep.contracts import DataSpec, Model
from genrep.distributions.dequantisation import DequantisationName
from genrep.distributions.flows.architecture import check_sizes
from genrep.distributions.flows.bijection import Bijection, Chain
from genrep.distributions.flows.elementwise import Affine
from genrep.distributions.flows.normalise import ActNorm
from genrep.distributions.flows.parts import flow_parts
from genrep.distributions.flows.patches import PatchAutoregressive, Patches
from genrep.models import recipe
from genrep.nets.condition import condition_width
from genrep.nets.patch_transformer import PatchTransformer
from genrep.objectives.likelihood import NLL


@recipe(family="flow", reference="Zhai et al. (2024), arXiv:2412.06329")
def tarflow(
    data: DataSpec,
    *,
    patch: int = 0,
    layers: int = 4,
    width: int = 64,
    depth: int = 2,
    heads: int = 4,
    dequantisation: DequantisationName = "uniform",
    draws: int = 1,
    conditional: bool = False,
) -> Model:
    """TarFlow: a causal transformer reads patches before, z_n = exp(s_n) x_n + t_n; layers alternate directions.

    The density takes one pass, a sample one step for each patch and layer, with keys and values kept; it is exact.

    Integer data are dequantised and mapped to logits, so their likelihood is a lower bound of a mass.

    Args:
        patch: Side of a patch; it divides both sides of the image. 0: the least above 1 that leaves at most 64
            patches. The patches of vectors are their columns.
        layers: Autoregressive layers.
        width: Of the transformers.
        depth: Blocks of each transformer.
        heads: Of attention.
        dequantisation: Of integer levels: uniform noise in their cells, variational noise that is learnt, or none.
        draws: Of this noise, in an importance-weighted bound.
        conditional: The transformers read the label or condition.
    """
    check_sizes(layers=layers, width=width, depth=depth, heads=heads)
    if patch < 0 or (patch and len(data.shape) != 3):
        raise ValueError(f"patch is for images, and at least 0; got {patch} for data of shape {data.shape}.")
    condition = condition_width(data, conditional)
    split = Patches(data.shape, patch or _fitting(data.shape))
    n, values = split.shape_out(data.shape)
    built: list[Bijection] = [ActNorm(*data.shape), split]
    for k in range(layers):
        net = PatchTransformer(n, values, Affine.size, width, depth, heads, condition)
        built += [PatchAutoregressive(net, Affine(), reverse=k % 2 == 1), ActNorm(1, values)]
    parts = flow_parts(data, Chain(*built), condition, dequantisation=dequantisation, draws=draws)
    return Model(data, parts.flow, parts.inference, NLL(), domain=parts.domain, training={"lr": 1e-3})


def _fitting(shape: tuple[int, ...]) -> int:
    """The least common divisor of both sides above 1 that leaves at most 64 patches, else the greatest.

    >>> _fitting((1, 28, 28)), _fitting((3, 32, 32)), _fitting((1, 8, 8)), _fitting((3, 9, 10))
    (4, 4, 2, 1)
    """
    if len(shape) == 1:
        return 1
    both = math.gcd(shape[1], shape[2])
    divisors = [p for p in range(2, both + 1) if both % p == 0] or [1]
    return next((p for p in divisors if shape[1] * shape[2] // p**2 <= 64), divisors[-1])
