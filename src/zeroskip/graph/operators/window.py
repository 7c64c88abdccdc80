"""The arithmetic of sliding windows that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from zeroskip.graph.ir import Dim, Node
from zeroskip.graph.operator import Array


@dataclass(frozen=True)
class Window:
    """A sliding window over `len(kernel)` spatial axes.

    `begins` and `ends` are pads; `auto` is the ONNX auto_pad, which replaces them unless ``NOTSET``.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    auto: str
    ceil: bool

    @property
    def extents(self) -> tuple[int, ...]:
        """Pixels from the first tap to the last, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations))

    def taps(self) -> list[tuple[int, ...]]:
        """Every tap's offset from the window's first pixel, in row-major order."""
        return list(product(*(range(0, k * d, d) for k, d in zip(self.kernel, self.dilations))))


def window_of(node: Node, kernel: Sequence[int]) -> Window:
    """The window that a node's attributes describe; `kernel` is used where ``kernel_shape`` is absent."""
    kernel = tuple(node.attr("kernel_shape") or kernel)
    rank = len(kernel)
    pads = tuple(node.attr("pads") or (0,) * (2 * rank))
    return Window(
        kernel,
        tuple(node.attr("strides") or (1,) * rank),
        tuple(node.attr("dilations") or (1,) * rank),
        pads[:rank],
        pads[rank:],
        node.attr("auto_pad", "NOTSET"),
        bool(node.attr("ceil_mode", 0)),
    )


def window_problem(window: Window, spatial: int) -> str | None:
    """What is wrong with a window over `spatial` axes, in words; None where nothing is."""
    lengths = {
        "kernel_shape": len(window.kernel),
        "strides": len(window.strides),
        "dilations": len(window.dilations),
        "pads": (len(window.begins) + len(window.ends)) / 2,
    }
    for name, length in lengths.items():
        if length != spatial:
            return f"{name} has {length:g} axes, the input has {spatial} spatial axes"
    if min((*window.kernel, *window.strides, *window.dilations), default=1) < 1:
        return "kernel_shape, strides and dilations must be positive"
    if window.auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        return f"auto_pad is {window.auto!r}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER"
    return None


def resolve_pads(window: Window, sizes: Sequence[int]) -> Window:
    """The window with auto_pad replaced by the pads it means for an input of `sizes`."""
    if window.auto == "NOTSET":
        return window
    begins, ends = [], []
    for size, stride, extent in zip(sizes, window.strides, window.extents):
        total = 0
        if window.auto != "VALID":
            total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small = total // 2
        begins.append(small if window.auto == "SAME_UPPER" else total - small)
        ends.append(total - begins[-1])
    return Window(
        window.kernel, window.strides, window.dilations, tuple(begins), tuple(ends), "NOTSET", window.ceil
    )


def output_sizes(window: Window, sizes: Sequence[Dim]) -> tuple[Dim, ...]:
    """Windows along each axis; None where the input's size is unknown, and below 1 where none fits."""
    result: list[Dim] = []
    for axis, size in enumerate(sizes):
        stride = window.strides[axis]
        if not isinstance(size, int):
            same = window.auto.startswith("SAME") and stride == 1
            result.append(size if same else None)
            continue
        if window.auto.startswith("SAME"):
            result.append(-(-size // stride))
            continue
        begin, end = (0, 0) if window.auto == "VALID" else (window.begins[axis], window.ends[axis])
        room = size + begin + end - window.extents[axis]
        count = (-(-room // stride) if window.ceil else room // stride) + 1
        # A window that starts in the end padding reads nothing; the standard leaves it out.
        if window.ceil and (count - 1) * stride >= size + begin:
            count -= 1
        result.append(count)
    return tuple(result)


def padded(x: Array, window: Window, counts: Sequence[int], fill: Any) -> Array:
    """`x` with its spatial axes padded so that `counts` windows fit; negative pads crop."""
    spatial = len(counts)
    begins, ends = [], []
    crop: list[Any] = [...]
    for axis, count in enumerate(counts):
        size = x.shape[axis + x.ndim - spatial]
        begin = window.begins[axis]
        end = (count - 1) * window.strides[axis] + window.extents[axis] - size - begin
        begins.append(max(begin, 0))
        ends.append(max(end, 0))
        crop.append(slice(max(-begin, 0), size + min(end, 0) if end < 0 else None))
    x = x[tuple(crop)]
    if not any(begins) and not any(ends):
        return x
    lead = [(0, 0)] * (x.ndim - spatial)
    return np.pad(x, lead + list(zip(begins, ends)), constant_values=fill)


def tap_view(x: Array, window: Window, counts: Sequence[int], tap: Sequence[int]) -> Array:
    """The pixels that one tap of every window reads, from padded input: ``(..., *counts)``, a view."""
    index: list[Any] = [...]
    index += [slice(t, t + (n - 1) * s + 1, s) for t, n, s in zip(tap, counts, window.strides)]
    return np.asarray(x[tuple(index)])
