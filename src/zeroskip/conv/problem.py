"""One convolution to be done: shapes, weights and what is fused, in the notation of the field."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zeroskip.codegen.activations import Activation
from zeroskip.conv.clustering import Array as Array
from zeroskip.conv.clustering import cluster

# Fuller layers have nothing to gain from ordering their channels.
DENSE = 0.9
# Planes with room for the padding may be so many times larger than those with room for one row and column.
ROOMY = 1.6


@dataclass(frozen=True, eq=False)
class ConvProblem:
    """out = activation(conv(x, w) + bias [+ residual]); 1-D convolutions have H = R = 1.

    N, C, H, W: input; w: float32 (K, C/groups, R, S); pads: top, left, bottom, right. Where `plain_input` or
    `plain_output` holds, that operand is an array (N, C, H, W) of the network's caller, not planes. A
    `rectified` input comes from a ReLU: many of its numbers are zero, and times hold for such inputs only.
    Planes of a `bare` input have no room for the padding. Of a `pooled` layer the maximum of every 2x2
    outputs is wanted, of whole rows and columns of such.
    """

    N: int
    C: int
    H: int
    W: int
    w: Array
    bias: Array | None = None
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation | None = None
    residual: bool = False
    plain_input: bool = False
    plain_output: bool = False
    rectified: bool = False
    bare: bool = False
    pooled: bool = False

    @property
    def K(self) -> int:  # noqa: N802
        """Output channels."""
        return int(self.w.shape[0])

    @property
    def R(self) -> int:  # noqa: N802
        """Kernel rows."""
        return int(self.w.shape[2])

    @property
    def S(self) -> int:  # noqa: N802
        """Kernel columns."""
        return int(self.w.shape[3])

    @cached_property
    def P(self) -> int:  # noqa: N802
        """Output rows."""
        reach = (self.R - 1) * self.dilations[0] + 1
        return (self.H + self.pads[0] + self.pads[2] - reach) // self.strides[0] + 1

    @cached_property
    def Q(self) -> int:  # noqa: N802
        """Output columns."""
        reach = (self.S - 1) * self.dilations[1] + 1
        return (self.W + self.pads[1] + self.pads[3] - reach) // self.strides[1] + 1

    @property
    def strided(self) -> bool:
        """Whether any stride exceeds one."""
        return self.strides != (1, 1)

    @cached_property
    def apart(self) -> bool:
        """Whether kernels that need the padding in planes have such of their own, and copy there and back.

        Where the input is bare, and where the padding would blow up the planes of all values that share them:
        far dilated taps.
        """
        top, left, bottom, right = self.pads
        rows, columns = max(top, bottom), max(left, right)
        small = (self.H + min(rows, 1)) * (self.W + min(columns, 1))
        wide = (self.H + rows) * (self.W + columns) > ROOMY * small
        return self.bare or (wide and not self.strided)

    @property
    def cell(self) -> int:
        """Rows and columns of outputs that one number is written for."""
        return 2 if self.pooled else 1

    @property
    def misaligned(self) -> bool:
        """Whether taps read between the vectors of the input: shifted in width, or all of them by padding."""
        return self.S > 1 or self.pads[1] > 0

    @property
    def depthwise(self) -> bool:
        """Whether each group has one input channel (and there are several)."""
        return self.groups == self.C and self.groups > 1

    @cached_property
    def there(self) -> Array:
        """Which weights are not zero."""
        return np.not_equal(self.w, 0)

    @property
    def nonzeros(self) -> int:
        """Weights that are not zero."""
        return self._counts[0]

    @cached_property
    def _counts(self) -> tuple[int, int]:
        """Weights that are not zero, and taps that an output channel and the one before it both have."""
        there = np.not_equal(self.w, 0).reshape(self.K, -1)  # kept nowhere: all layers are counted first
        return int(np.count_nonzero(there)), int(np.count_nonzero(there[1:] & there[:-1]))

    @property
    def density(self) -> float:
        """The fraction of weights that are not zero."""
        return self.nonzeros / max(1, self.w.size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates that cannot be skipped: non-zero weights times output pixels."""
        return self.nonzeros * self.N * self.P * self.Q

    @property
    def phases(self) -> tuple[tuple[int, int], ...]:
        """The (row, column) residues modulo the strides that some tap reads."""
        rows = sorted({r * self.dilations[0] % self.strides[0] for r in range(self.R)})
        columns = sorted({s * self.dilations[1] % self.strides[1] for s in range(self.S)})
        return tuple((a, b) for a in rows for b in columns)

    @property
    def split_size(self) -> tuple[int, int]:
        """Rows and columns of each phase of the padded input."""
        height, width = self.H + self.pads[0] + self.pads[2], self.W + self.pads[1] + self.pads[3]
        return -(-height // self.strides[0]), -(-width // self.strides[1])

    @cached_property
    def _orders(self) -> dict[int, Array]:
        return {}

    def order(self, block: int) -> Array:
        """Output channels as (groups, K/groups), ordered in each so that blocks of `block` have few zeros."""
        if block not in self._orders:
            order = np.arange(self.K).reshape(self.groups, -1)
            if block > 1 and self.density < DENSE:
                there = self.there.reshape(self.groups, self.K // self.groups, -1)
                order = order[:, :1] + np.stack([cluster(group, block) for group in there])
            self._orders[block] = order
        return self._orders[block]

    def block_taps(self, block: int) -> int:
        """About how many taps blocks of `block` output channels have: the channels are not ordered for it."""
        if block == 1:
            return self.nonzeros
        if block not in self._taps:
            there = blocked(self, block, self.there, natural=True)
            self._taps[block] = int(np.count_nonzero(there.any(axis=2)))
        return self._taps[block]

    @cached_property
    def _taps(self) -> dict[int, int]:
        return {}

    @cached_property
    def signature(self) -> str:
        """The layer as text: of the weights only how many are not zero, and in what blocks."""
        act = "" if not self.activation else "_".join(map(str, self.activation))
        shape = f"n{self.N}c{self.C}h{self.H}w{self.W}k{self.K}r{self.R}s{self.S}"
        where = f"st{self.strides}p{self.pads}d{self.dilations}g{self.groups}".replace(" ", "")
        plain = f"{' from plain' if self.plain_input else ''}{' to plain' if self.plain_output else ''}"
        source = f"{' rectified' if self.rectified else ''}{' bare' if self.bare else ''}"
        source += " pooled" if self.pooled else ""
        return f"{shape}{where}{'+' if self.residual else ''}{act}{plain}{source}"

    @cached_property
    def digest(self) -> str:
        """The sparsity in brief: per cent of non-zeros, and the taps that neighbouring channels share."""
        shared = self._counts[1] / max(1, self.nonzeros)
        return hashlib.sha256(f"{self.density:.2f},{shared:.2f}".encode()).hexdigest()[:16]


def blocked(problem: ConvProblem, block: int, weights: Array | None = None, natural: bool = False) -> Array:
    """The weights as (groups, blocks of a group, block, taps of a group); missing channels are zero.

    Channels stand in `problem.order(block)`, or in their `natural` order. `weights`, where given, is another
    array of the weights' shape. (One by one, channels always stand in their natural order.)
    """
    per_group = problem.K // problem.groups
    blocks = -(-per_group // block)
    w: Array = (problem.w if weights is None else weights).reshape(problem.K, -1)
    w = w if natural or block == 1 else w[problem.order(block).reshape(-1)]
    w = w.reshape(problem.groups, per_group, -1)
    missing = blocks * block - per_group
    if missing:
        w = np.concatenate([w, np.zeros((problem.groups, missing, w.shape[2]), w.dtype)], axis=1)
    return w.reshape(problem.groups, blocks, block, -1)


def rows_of(problem: ConvProblem, block: int, natural: bool = False) -> Array:
    """The output channel of each row of `blocked`, int32; K where there is none."""
    order = np.arange(problem.K).reshape(problem.groups, -1) if natural else problem.order(block)
    missing = -order.shape[1] % block
    none = np.full((problem.groups, missing), problem.K)
    return np.concatenate([order, none], axis=1).reshape(-1).astype(np.int32)
