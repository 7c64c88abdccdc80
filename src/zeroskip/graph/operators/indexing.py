"""Operators that pick, join and pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Dim, Node, Shape
from zeroskip.graph.operator import Array, Call, Operator, Type, axis_of, describe, merge, show


def _infer_concat(call: Call) -> list[Type]:
    shapes = [call.shape(i) for i in range(len(call.values))]
    ranked = [s for s in shapes if s is not None]
    if not ranked:
        return [(None, call.dtype())]
    rank = len(ranked[0])
    axis = axis_of(call, call.node.attr("axis", 0), rank)
    out: list[Dim] = list(ranked[0])
    for index, shape in enumerate(ranked):
        if len(shape) != rank:
            raise call.fail(f"inputs have ranks {rank} and {len(shape)}; they must agree")
        for a, (x, y) in enumerate(zip(out, shape)):
            if a == axis:
                continue
            if isinstance(x, int) and isinstance(y, int) and x != y:
                raise call.fail(f"inputs {show(ranked[0])} and {show(shape)} differ at axis {a}")
            out[a] = merge(x, y)
        if call.dtype(index) != call.dtype():
            raise call.fail(f"inputs have different types, {call.dtype()} and {call.dtype(index)}")
    along = [s[axis] for s in ranked]
    known = len(ranked) == len(shapes) and all(isinstance(d, int) for d in along)
    out[axis] = sum(d for d in along if isinstance(d, int)) if known else None
    if len(along) == len(shapes) == 1:
        out[axis] = along[0]
    return [(tuple(out), call.dtype())]


def _concat(node: Node, inputs: Sequence[Any]) -> list[Array]:
    return [np.concatenate(inputs, axis=node.attr("axis", 0))]


def split_sizes(total: int, count: int) -> list[int]:
    """Sizes of `count` equal parts, the last one smaller where they do not come out even."""
    part = -(-total // count)
    return [min(part, max(total - i * part, 0)) for i in range(count)]


def _infer_split(call: Call) -> list[Type]:
    x = call.shape(0)
    count = len(call.node.outputs)
    if x is None:
        return [(None, call.dtype())] * count
    axis = axis_of(call, call.node.attr("axis", 0), len(x))
    sizes: Sequence[Dim] | None = call.integers(1)
    size = x[axis]
    if sizes is None:
        exact = not call.present(1) and isinstance(size, int)
        sizes = split_sizes(size, count) if exact and isinstance(size, int) else [None] * count
    elif len(sizes) != count or (
        isinstance(size, int) and sum(d for d in sizes if isinstance(d, int)) != size
    ):
        raise call.fail(f"cannot split axis {axis} of {show(x)} into {tuple(sizes)} for {count} outputs")
    return [((*x[:axis], d, *x[axis + 1 :]), call.dtype()) for d in sizes]


def _split(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, sizes, *_ = (*inputs, None)
    axis = node.attr("axis", 0)
    parts = split_sizes(x.shape[axis], len(node.outputs)) if sizes is None else [int(s) for s in sizes]
    return np.split(x, np.cumsum(parts)[:-1], axis=axis)


def slices_of(
    rank: int,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> list[tuple[int, int, int, int]]:
    """A Slice's (axis, start, end, step) rows."""
    axes = range(len(starts)) if axes is None else [a % rank for a in axes]
    return list(zip(axes, starts, ends, [1] * len(starts) if steps is None else steps))


def _python_slice(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's clamped bounds as Python's, which read a negative end of a backward slice differently."""
    if step < 0:
        start = max(min(start + size if start < 0 else start, size - 1), 0)
        end = end + size if end < 0 else end
        return slice(start, None, step) if end < 0 else slice(start, end, step)
    return slice(start, end, step)


def _infer_slice(call: Call) -> list[Type]:
    x = call.shape(0)
    if x is None:
        return [(None, call.dtype())]
    starts, ends, axes, steps = (call.integers(i) for i in range(1, 5))
    if (
        starts is None
        or ends is None
        or (axes is None and call.present(3))
        or (steps is None and call.present(4))
    ):
        return [((None,) * len(x), call.dtype())]
    out: list[Dim] = list(x)
    for a in axes or ():
        axis_of(call, a, len(x))
    for axis, start, end, step in slices_of(len(x), starts, ends, axes, steps):
        size = x[axis]
        if step == 0:
            raise call.fail("a step of 0")
        if isinstance(size, int):
            out[axis] = len(range(size)[_python_slice(start, end, step, size)])
        elif not (start == 0 and end >= 2**31 - 1 and step == 1):
            out[axis] = None
    return [(tuple(out), call.dtype())]


def _slice(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, *rest = inputs
    bounds = [None if r is None else [int(i) for i in r.reshape(-1)] for r in (*rest, None, None)[:4]]
    index: list[slice] = [slice(None)] * x.ndim
    for axis, start, end, step in slices_of(x.ndim, bounds[0] or [], bounds[1] or [], bounds[2], bounds[3]):
        index[axis] = _python_slice(start, end, step, x.shape[axis])
    return [x[tuple(index)]]


def _infer_gather(call: Call) -> list[Type]:
    x, indices = call.shape(0), call.shape(1)
    if x is None or indices is None:
        return [(None, call.dtype())]
    axis = axis_of(call, call.node.attr("axis", 0), len(x))
    return [((*x[:axis], *indices, *x[axis + 1 :]), call.dtype())]


def _gather(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, indices = inputs
    axis = node.attr("axis", 0)
    if indices.size and not (-x.shape[axis] <= indices.min() and indices.max() < x.shape[axis]):
        raise ModelError(f"{describe(node)}: an index lies outside axis {axis} of {show(x.shape)}")
    return [np.take(x, indices, axis=axis)]


def pad_amounts(rank: int, pads: Sequence[int], axes: Sequence[int] | None) -> list[tuple[int, int]]:
    """Numbers added (removed, where negative) before and after each axis."""
    amounts = [(0, 0)] * rank
    selected = range(rank) if axes is None else [a % rank for a in axes]
    half = len(pads) // 2
    for axis, before, after in zip(selected, pads[:half], pads[half:]):
        amounts[axis] = (before, after)
    return amounts


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def _infer_pad(call: Call) -> list[Type]:
    x, pads, axes = call.shape(0), call.integers(1), call.integers(3)
    mode = call.node.attr("mode", "constant")
    if mode not in _PAD_MODES:
        raise call.fail(f"mode is {mode!r}; expected one of {', '.join(_PAD_MODES)}")
    if x is None or pads is None or (axes is None and call.present(3)):
        return [(None if x is None else (None,) * len(x), call.dtype())]
    if len(pads) != 2 * (len(x) if axes is None else len(axes)):
        raise call.fail(f"{len(pads)} pads for the input {show(x)}; expected two per axis")
    out: Shape = tuple(
        d + before + after if isinstance(d, int) else (None if before or after else d)
        for d, (before, after) in zip(x, pad_amounts(len(x), pads, axes))
    )
    if any(isinstance(d, int) and d < 0 for d in out):
        raise call.fail(f"pads {pads} remove more than there is of {show(x)}")
    return [(out, call.dtype())]


def _pad(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, pads, value, axes, *_ = (*inputs, None, None)
    selected = None if axes is None else [int(a) for a in axes.reshape(-1)]
    amounts = pad_amounts(x.ndim, [int(p) for p in pads.reshape(-1)], selected)
    crop = tuple(slice(max(-b, 0), d + min(a, 0)) for d, (b, a) in zip(x.shape, amounts))
    grow = [(max(b, 0), max(a, 0)) for b, a in amounts]
    x = x[crop]
    mode = node.attr("mode", "constant")
    if mode == "constant":
        return [np.pad(x, grow, constant_values=0 if value is None else value.reshape(()).item())]
    if math.prod(x.shape) == 0:
        raise ModelError(f"{describe(node)}: mode {mode} cannot pad the empty input {show(x.shape)}")
    return [np.pad(x, grow, mode=_PAD_MODES[mode])]  # type: ignore[call-overload]


ROWS: tuple[Operator, ...] = (
    Operator("Concat", _infer_concat, _concat, most=None, attributes=frozenset({"axis"})),
    Operator(
        "Split", _infer_split, _split, most=2, attributes=frozenset({"axis", "num_outputs"}), outputs=None
    ),
    Operator("Slice", _infer_slice, _slice, least=3, most=5),
    Operator("Gather", _infer_gather, _gather, least=2, most=2, attributes=frozenset({"axis"})),
    Operator("Pad", _infer_pad, _pad, least=2, most=4, attributes=frozenset({"mode"})),
)
