"""Dense networks over vectors and flattened images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def kaiming(layers: Iterable[nn.Module]) -> None:
    """Draw the weights of linear layers anew from N(0, 2 / inputs)."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


class MLP(nn.Module):
    """(x, c) -> linear, SiLU, ..., linear: (B, *in), (B, C) or None -> (B, *out).

    Hidden weights start from N(0, 2 / inputs), which keeps the size of signals through the layers (He et al., 2015, eq.
    10); the usual uniform draw, of variance 1 / (3 inputs), shrinks them.

    Args:
        condition: The width C of a condition that is joined to the input.
    """

    def __init__(
        self,
        shape_in: Sequence[int],
        hidden: Sequence[int],
        shape_out: Sequence[int],
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.shape_out, self.condition = tuple(shape_out), condition
        widths = [torch.Size(shape_in).numel() + condition, *hidden]
        layers: list[nn.Module] = []
        for i, o in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(i, o), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], torch.Size(shape_out).numel()))
        kaiming(list(self.layers)[:-1])

    @torch.no_grad()
    def embed(self) -> None:
        """Start the weights of the condition from N(0, 1), as those of embeddings do: for one-hot conditions.

        A label is one input among dozens or hundreds; started like them it is hardly heard for hundreds of updates.
        """
        nn.init.normal_(self.layers[0].weight[:, -self.condition :])  # pyright: ignore[reportIndexIssue, reportArgumentType]

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        x = x.flatten(1)
        if self.condition:
            assert c is not None
            x = torch.cat([x, c], 1)
        return self.layers(x).unflatten(1, self.shape_out)
