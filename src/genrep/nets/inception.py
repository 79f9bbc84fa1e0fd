"""Inception-v3, the network of the Fréchet inception distance, with the names that public weight files use.

Two variants of one architecture: "fid", the network of 2015 with 1,008 outputs, whose average pooling leaves padding
out and whose last block pools by the maximum; and "imagenet", with 1,000 outputs, as image classifiers have it.
Reference: Szegedy et al. (2016), table 1 and figures 5 to 7.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pool = Literal["average", "average without padding", "max", "reduce"]
Step = tuple[str, int, int | tuple[int, int], int]  # name, width, kernel, stride
SIDE = 299  # of the images it was trained on


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; it keeps the size at stride 1 and does not pad at stride 2."""

    def __init__(
        self, inputs: int, width: int, kernel: int | tuple[int, int], stride: int = 1, *, pad: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        rows, columns = (side // 2 if pad and stride == 1 else 0 for side in sides)
        self.conv = nn.Conv2d(inputs, width, sides, stride, (rows, columns), bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Block(nn.Module):
    """Chains of convolutions side by side, and a pooling beside them; what they give is joined along the channels.

    Steps of a chain whose names end in a and b both read what is before them, and are joined.
    """

    def __init__(self, inputs: int, chains: tuple[tuple[Step, ...], ...], pool: Pool, pool_width: int = 0) -> None:
        super().__init__()
        self.chains, self.pool = [[step[0] for step in chain] for chain in chains], pool
        self.outputs = pool_width or inputs
        for chain in chains:
            width = inputs
            for name, out, kernel, stride in chain:
                self.add_module(name, Convolution(width, out, kernel, stride))
                width = width if name.endswith("a") else out
            self.outputs += width * (2 if chain[-1][0].endswith("b") else 1)
        if pool_width:
            self.branch_pool = Convolution(inputs, pool_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(self.chain(i, x) for i in range(len(self.chains))), self._pooled(x)], 1)

    def chain(self, i: int, x: Tensor) -> Tensor:
        """What the i-th chain gives."""
        fork = []
        for name in self.chains[i]:
            if name[-1] in "ab":
                fork.append(self.get_submodule(name)(x))
            else:
                x = self.get_submodule(name)(x)
        return torch.cat(fork, 1) if fork else x

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "reduce":
            return F.max_pool2d(x, 3, 2)
        if self.pool == "max":
            return self.branch_pool(F.max_pool2d(x, 3, 1, 1))
        return self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=self.pool == "average"))


def _a(inputs: int, pool: Pool, pool_width: int) -> Block:
    double = (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1))
    five = (("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1))
    return Block(inputs, ((("branch1x1", 64, 1, 1),), five, double), pool, pool_width)


def _b(inputs: int) -> Block:
    double = (("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2))
    return Block(inputs, ((("branch3x3", 384, 3, 2),), double), "reduce")


def _c(inputs: int, pool: Pool, width: int) -> Block:
    row, column = (1, 7), (7, 1)
    single = (("branch7x7_1", width, 1, 1), ("branch7x7_2", width, row, 1), ("branch7x7_3", 192, column, 1))
    double = (
        ("branch7x7dbl_1", width, 1, 1),
        ("branch7x7dbl_2", width, column, 1),
        ("branch7x7dbl_3", width, row, 1),
        ("branch7x7dbl_4", width, column, 1),
        ("branch7x7dbl_5", 192, row, 1),
    )
    return Block(inputs, ((("branch1x1", 192, 1, 1),), single, double), pool, 192)


def _d(inputs: int) -> Block:
    three = (("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2))
    seven = (
        ("branch7x7x3_1", 192, 1, 1),
        ("branch7x7x3_2", 192, (1, 7), 1),
        ("branch7x7x3_3", 192, (7, 1), 1),
        ("branch7x7x3_4", 192, 3, 2),
    )
    return Block(inputs, (three, seven), "reduce")


def _e(inputs: int, pool: Pool) -> Block:
    three = (("branch3x3_1", 384, 1, 1), ("branch3x3_2a", 384, (1, 3), 1), ("branch3x3_2b", 384, (3, 1), 1))
    double = (
        ("branch3x3dbl_1", 448, 1, 1),
        ("branch3x3dbl_2", 384, 3, 1),
        ("branch3x3dbl_3a", 384, (1, 3), 1),
        ("branch3x3dbl_3b", 384, (3, 1), 1),
    )
    return Block(inputs, ((("branch1x1", 320, 1, 1),), three, double), pool, 192)


class InceptionV3(nn.Module):
    """Images (B, 3, 299, 299) in [-1, 1] -> features (B, 2048); other sides from 75 on fit as well."""

    def __init__(self, variant: Literal["fid", "imagenet"] = "fid") -> None:
        super().__init__()
        pool: Pool = "average without padding" if variant == "fid" else "average"
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, pad=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, pad=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, pool, 32), _a(256, pool, 64), _a(288, pool, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c = _c(768, pool, 128), _c(768, pool, 160)
        self.Mixed_6d, self.Mixed_6e = _c(768, pool, 160), _c(768, pool, 192)
        self.Mixed_7a = _d(768)
        self.Mixed_7b, self.Mixed_7c = _e(1280, pool), _e(2048, "max" if variant == "fid" else pool)
        self.fc = nn.Linear(2048, 1008 if variant == "fid" else 1000)

    def _trunk(self, x: Tensor) -> Tensor:
        """What enters Mixed_6d, (B, 768, 17, 17)."""
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        return self.Mixed_6c(self.Mixed_6b(x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.Mixed_6e(self.Mixed_6d(self._trunk(x)))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))

    def spatial(self, x: Tensor, channels: int = 7) -> Tensor:
        """The first channels of the 1 x 1 branch of Mixed_6d, (B, 7, 17, 17), for the spatial distance."""
        return self.Mixed_6d.chain(0, self._trunk(x))[:, :channels]

    def logits(self, features: Tensor) -> Tensor:
        """Of classes, without the bias, as the Inception score reads them: (B, 2048) -> (B, classes)."""
        return features @ self.fc.weight.T
