"""What the two ways of Winograd convolution share: the variants' names and the filters of every phase."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.conv.problem import Array, ConvProblem
from zeroskip.conv.toom_cook import Filtering


@dataclass(frozen=True)
class Variant(Filtering):
    """F(m x m, r x r) on blocks of nv vectors of tiles; as text ``F(4x4,3x3)/2``.

    Or, ``F(4x4,3x3)/14x2``, on register tiles of mr tiles by nv vectors of output channels.
    """

    nv: int
    mr: int = 0

    def __str__(self) -> str:
        size = f"{self.mr}x{self.nv}" if self.mr else f"{self.nv}"
        return f"F({self.m}x{self.m},{self.r}x{self.r})/{size}"


def parse_variant(text: str) -> Variant:
    """The inverse of ``str(variant)``."""
    name, _, size = text.partition("/")
    tile, kernel = name[2:].split(",")
    mr, _, nv = size.rpartition("x")
    return Variant(int(tile.partition("x")[0]), int(kernel.partition("x")[0]), int(nv), int(mr or 0))


def kernel_size(problem: ConvProblem) -> int:
    """r: rows and columns of the square kernel that holds every phase of the layer's."""
    return max(-(-problem.R // problem.strides[0]), -(-problem.S // problem.strides[1]))


def kernels(problem: ConvProblem) -> Array:
    """The filters for each channel and phase of the input: (K, C*phases, r, r)."""
    (down, across), r = problem.strides, kernel_size(problem)
    w = np.zeros((problem.K, problem.C, len(problem.phases), r, r), np.float32)
    for i, (row, column) in enumerate(problem.phases):
        phase = problem.w[:, :, row::down, column::across]
        w[:, :, i, : phase.shape[2], : phase.shape[3]] = phase
    return w.reshape(problem.K, -1, r, r)


def channels(problem: ConvProblem) -> int:
    """C: input channels, each phase of them counted."""
    return problem.C * len(problem.phases)
