"""Convolution and its transpose, over any number of spatial axes.

Notation: N batch, C and K input and output channels, g groups, P output pixels, T taps of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Dim, Node, Shape
from zeroskip.graph.operator import Array, Call, Operator, Type, show
from zeroskip.graph.operators.elementwise import activate, widened
from zeroskip.graph.operators.window import (
    Window,
    output_sizes,
    padded,
    resolve_pads,
    tap_view,
    window_of,
    window_problem,
)

LOWERED_LIMIT = 1 << 24
"""Numbers that the lowered input may hold at once (64 MiB of float32); larger ones go in parts."""


def _checked(call: Call, transposed: bool) -> tuple[Shape, Shape, Window] | None:
    """Input and weight shapes and the window, checked; None where a rank is unknown."""
    x, w = call.shape(0), call.shape(1)
    if x is None or w is None:
        return None
    kernel = tuple(d if isinstance(d, int) else 1 for d in w[2:])
    window = window_of(call.node, kernel)
    if len(x) < 3 or len(w) != len(x):
        raise call.fail(f"input {show(x)} and weights {show(w)} must have one rank, at least 3")
    problem = window_problem(window, len(x) - 2)
    if problem:
        raise call.fail(problem)
    if all(isinstance(d, int) for d in w[2:]) and window.kernel != w[2:]:
        raise call.fail(f"kernel_shape {window.kernel} contradicts the weights {show(w)}")
    group = call.node.attr("group", 1)
    channels = x[1]
    expected: Dim = w[0] if transposed else (w[1] * group if isinstance(w[1], int) else None)
    if isinstance(channels, int) and isinstance(expected, int) and channels != expected:
        raise call.fail(
            f"input {show(x)} has {channels} channels, weights {show(w)} with group={group} take {expected}"
        )
    if isinstance(w[0], int) and w[0] % group:
        raise call.fail(f"group={group} does not divide the weights' first axis, {w[0]}")
    return x, w, window


def _bias_checked(call: Call, outputs: Dim) -> None:
    if not call.present(2):
        return
    bias = call.shape(2)
    if bias is None or not isinstance(outputs, int):
        return
    if len(bias) != 1 or (isinstance(bias[0], int) and bias[0] != outputs):
        raise call.fail(f"bias is {show(bias)}, expected {outputs} (one per output channel)")


def _infer_conv(call: Call) -> list[Type]:
    checked = _checked(call, transposed=False)
    if checked is None:
        return [(None, call.dtype())]
    x, w, window = checked
    _bias_checked(call, w[0])
    sizes = output_sizes(window, x[2:])
    if any(isinstance(s, int) and s < 1 for s in sizes):
        raise call.fail(f"kernel {window.kernel} does not fit into the padded input {show(x)}")
    return [((x[0], w[0], *sizes), call.dtype())]


def _conv(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, w, bias, residual, *_ = (*inputs, None, None)
    dtype = x.dtype
    x, w = widened(x), widened(w)
    window = resolve_pads(window_of(node, w.shape[2:]), x.shape[2:])
    counts = output_sizes(window, x.shape[2:])
    sizes = tuple(c for c in counts if isinstance(c, int))
    out = np.empty((x.shape[0], w.shape[0], *sizes), x.dtype)
    source = padded(x, window, sizes, 0)
    group = node.attr("group", 1)
    rows = max(
        1, LOWERED_LIMIT * sizes[0] // max(1, x.shape[1] * math.prod(window.kernel) * math.prod(sizes))
    )
    for n in range(x.shape[0]):
        for start in range(0, sizes[0], rows):
            _conv_part(source[n], w, out[n], window, group, start, min(rows, sizes[0] - start))
    if bias is not None:
        out += widened(bias).reshape(-1, *(1,) * len(sizes))
    if residual is not None:
        out += widened(residual)
    return [activate(out, node.attr("activation")).astype(dtype, copy=False)]


def _conv_part(x: Array, w: Array, out: Array, window: Window, group: int, start: int, rows: int) -> None:
    """Some output rows of one image: lower the input (im2col), then one matrix product per group."""
    counts = (rows, *out.shape[2:])
    stride = window.strides[0]
    x = x[:, start * stride : (start + rows - 1) * stride + window.extents[0]]
    taps = window.taps()
    if len(taps) == 1:
        lowered = tap_view(x, window, counts, taps[0])
    else:
        lowered = np.stack([tap_view(x, window, counts, tap) for tap in taps], axis=1)
    lowered = lowered.reshape(group, x.shape[0] // group * len(taps), math.prod(counts))
    result = np.matmul(w.reshape(group, w.shape[0] // group, -1), lowered)
    out[:, start : start + rows] = result.reshape(w.shape[0], *counts)


def _conv_macs(node: Node, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    return math.prod(out) * math.prod(shapes[1][1:])


def transposed_pads(node: Node, window: Window, sizes: Sequence[int]) -> tuple[Window, tuple[int, ...]]:
    """ConvTranspose's pads and output sizes for an input of `sizes`, from whichever attributes are given."""
    extra = tuple(node.attr("output_padding") or (0,) * len(sizes))
    wanted = node.attr("output_shape")
    # Without pads, the last window ends here.
    full = [(n - 1) * s + e + p for n, s, e, p in zip(sizes, window.strides, window.extents, extra)]
    if wanted is None:
        if window.auto in ("NOTSET", "VALID"):
            begins = window.begins if window.auto == "NOTSET" else (0,) * len(sizes)
            ends = window.ends if window.auto == "NOTSET" else (0,) * len(sizes)
            out = tuple(f - b - e for f, b, e in zip(full, begins, ends))
            return _with_pads(window, begins, ends), out
        # A stride beyond the kernel leaves the last windows short of this; nothing is added then.
        wanted = [min(n * s, f) for n, s, f in zip(sizes, window.strides, full)]
    wanted = tuple(wanted)[-len(sizes) :]
    totals = [max(f - w, 0) for f, w in zip(full, wanted)]
    if window.auto == "SAME_UPPER":
        begins = tuple(t // 2 for t in totals)
    else:
        begins = tuple(t - t // 2 for t in totals)
    return _with_pads(window, begins, tuple(t - b for t, b in zip(totals, begins))), wanted


def _with_pads(window: Window, begins: tuple[int, ...], ends: tuple[int, ...]) -> Window:
    return Window(window.kernel, window.strides, window.dilations, begins, ends, "NOTSET", False)


def _infer_conv_transpose(call: Call) -> list[Type]:
    checked = _checked(call, transposed=True)
    if checked is None:
        return [(None, call.dtype())]
    x, w, window = checked
    outputs = w[1] * call.node.attr("group", 1) if isinstance(w[1], int) else None
    _bias_checked(call, outputs)
    sizes = tuple(d for d in x[2:] if isinstance(d, int))
    if len(sizes) < len(x) - 2:
        return [((x[0], outputs, *(None for _ in x[2:])), call.dtype())]
    counts = transposed_pads(call.node, window, sizes)[1]
    if min(counts) < 1:
        raise call.fail(f"the pads leave nothing of the output ({show(counts)}) for input {show(x)}")
    return [((x[0], outputs, *counts), call.dtype())]


def _conv_transpose(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, w, bias, *_ = (*inputs, None)
    dtype = x.dtype
    x, w = widened(x), widened(w)
    group = node.attr("group", 1)
    window, counts = transposed_pads(node, window_of(node, w.shape[2:]), x.shape[2:])
    n, sizes = x.shape[0], x.shape[2:]
    taps = window.taps()
    kernels = w.reshape(group, w.shape[0] // group, w.shape[1], len(taps))
    planes = x.reshape(n, group, x.shape[1] // group, math.prod(sizes))
    full = [
        max((i - 1) * s + e, c + b)
        for i, s, e, c, b in zip(sizes, window.strides, window.extents, counts, window.begins)
    ]
    out = np.zeros((n, group * w.shape[1], *full), x.dtype)
    for index, tap in enumerate(taps):
        part = np.matmul(kernels[..., index].transpose(0, 2, 1), planes)
        view = tap_view(out, window, sizes, tap)
        view += part.reshape(n, group * w.shape[1], *sizes)
    crop: list[Any] = [...]
    crop += [slice(b, b + c) for b, c in zip(window.begins, counts)]
    out = np.ascontiguousarray(out[tuple(crop)])
    if bias is not None:
        out += widened(bias).reshape(-1, *(1,) * len(sizes))
    return [activate(out, node.attr("activation")).astype(dtype, copy=False)]


def _conv_transpose_macs(node: Node, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    return math.prod(shapes[0]) * math.prod(shapes[1][1:])


_ATTRIBUTES = frozenset({"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides", "activation"})

ROWS: tuple[Operator, ...] = (
    Operator(
        "Conv",
        _infer_conv,
        _conv,
        least=2,
        most=4,
        attributes=_ATTRIBUTES,
        parameters=(1, 2),
        macs=_conv_macs,
        floats=True,
    ),
    Operator(
        "ConvTranspose",
        _infer_conv_transpose,
        _conv_transpose,
        least=2,
        most=3,
        attributes=_ATTRIBUTES | {"output_padding", "output_shape"},
        parameters=(1, 2),
        macs=_conv_transpose_macs,
        floats=True,
    ),
)
