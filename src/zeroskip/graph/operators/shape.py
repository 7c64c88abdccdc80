"""Operators that rearrange or describe without computing: reshapes, transposes, shape queries, casts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.errors import ModelError
from zeroskip.graph.dtypes import dtype_of, is_narrow_float
from zeroskip.graph.ir import Dim, Node, Shape
from zeroskip.graph.operator import (
    INT64,
    Array,
    Call,
    Operator,
    Type,
    axis_of,
    broadcast,
    describe,
    product,
    same_type,
    show,
)


def reshape_sizes(sizes: Sequence[int], wanted: Sequence[int], allow_zero: bool) -> tuple[int, ...]:
    """The concrete shape that a Reshape request means; 0 copies a size, -1 takes what is left.

    Raises:
        ValueError: the request does not hold exactly the numbers there are.
    """
    out = list(wanted)
    for index, size in enumerate(out):
        if size == 0 and not allow_zero:
            if index >= len(sizes):
                raise ValueError(f"size 0 at axis {index} copies an axis that the input lacks")
            out[index] = sizes[index]
    total = math.prod(sizes)
    if out.count(-1) == 1:
        rest = math.prod(s for s in out if s != -1)
        if rest == 0 or total % rest:
            raise ValueError(f"{total} numbers do not divide by {rest}")
        out[out.index(-1)] = total // rest
    if min(out, default=0) < 0 or math.prod(out) != total:
        raise ValueError(f"{total} numbers do not fit")
    return tuple(out)


def _infer_reshape(call: Call) -> list[Type]:
    x, wanted = call.shape(0), call.integers(1)
    if wanted is None:
        count = (call.shape(1) or (None,))[0]
        return [((None,) * count if isinstance(count, int) else None, call.dtype())]
    allow_zero = bool(call.node.attr("allowzero", 0))
    if x is not None and all(isinstance(d, int) for d in x):
        sizes = tuple(d for d in x if isinstance(d, int))
        try:
            return [(reshape_sizes(sizes, wanted, allow_zero), call.dtype())]
        except ValueError as error:
            raise call.fail(f"cannot reshape {show(x)} to {wanted}: {error}") from None
    out: list[Dim] = list(wanted)
    for index, size in enumerate(wanted):
        if size == 0 and not allow_zero:
            out[index] = x[index] if x is not None and index < len(x) else None
    if -1 in out:
        hole = out.index(-1)
        out[hole] = None if x is None else _quotient(x, out[:hole] + out[hole + 1 :])
    return [(tuple(out), call.dtype())]


def _quotient(total: Sequence[Dim], part: Sequence[Dim]) -> Dim:
    """What is left of symbolic sizes after division, where it is one number or one symbol."""
    rest, known = list(total), 1
    for d in part:
        if d is not None and d in rest:
            rest.remove(d)
        elif isinstance(d, int):
            known *= d
        else:
            return None
    numbers = math.prod(d for d in rest if isinstance(d, int))
    if known == 0 or numbers % known:
        return None
    return product([numbers // known, *(d for d in rest if not isinstance(d, int))])


def _reshape(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, wanted = inputs
    try:
        sizes = reshape_sizes(x.shape, [int(s) for s in wanted.reshape(-1)], bool(node.attr("allowzero", 0)))
    except ValueError as error:
        raise ModelError(f"{describe(node)}: cannot reshape {show(x.shape)} to {wanted}: {error}") from None
    return [x.reshape(sizes)]


def _infer_flatten(call: Call) -> list[Type]:
    x = call.shape(0)
    if x is None:
        return [((None, None), call.dtype())]
    axis = call.node.attr("axis", 1)
    split = len(x) if axis == len(x) else axis_of(call, axis, len(x))
    return [((product(x[:split]), product(x[split:])), call.dtype())]


def _flatten(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    axis = node.attr("axis", 1)
    split = axis + x.ndim if axis < 0 else axis
    return [x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))]


def _infer_squeeze(call: Call) -> list[Type]:
    x, axes = call.shape(0), call.integers(1)
    if x is None or (axes is None and call.present(1)):
        return [(None, call.dtype())]
    if axes is None:
        if any(not isinstance(d, int) for d in x):
            return [(None, call.dtype())]
        return [(tuple(d for d in x if d != 1), call.dtype())]
    gone = {axis_of(call, a, len(x)) for a in axes}
    for a in gone:
        if isinstance(x[a], int) and x[a] != 1:
            raise call.fail(f"axis {a} of {show(x)} has size {x[a]}, only size 1 can be squeezed")
    return [(tuple(d for i, d in enumerate(x) if i not in gone), call.dtype())]


def _squeeze(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, axes, *_ = (*inputs, None)
    return [np.squeeze(x, axis=None if axes is None else tuple(int(a) for a in axes.reshape(-1)))]


def _infer_unsqueeze(call: Call) -> list[Type]:
    x, axes = call.shape(0), call.integers(1)
    if x is None or axes is None:
        return [(None, call.dtype())]
    rank = len(x) + len(axes)
    added = {axis_of(call, a, rank) for a in axes}
    if len(added) != len(axes):
        raise call.fail(f"axes {axes} name one axis twice")
    rest = iter(x)
    return [(tuple(1 if i in added else next(rest) for i in range(rank)), call.dtype())]


def _unsqueeze(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, axes = inputs
    return [np.expand_dims(x, tuple(int(a) for a in axes.reshape(-1)))]


def _infer_transpose(call: Call) -> list[Type]:
    x = call.shape(0)
    perm = call.node.attr("perm")
    if x is None:
        return [((None,) * len(perm) if perm else None, call.dtype())]
    order = tuple(perm) if perm is not None else tuple(range(len(x)))[::-1]
    if sorted(order) != list(range(len(x))):
        raise call.fail(f"perm {order} is not an order of the axes of {show(x)}")
    return [(tuple(x[i] for i in order), call.dtype())]


def _transpose(node: Node, inputs: Sequence[Any]) -> list[Array]:
    return [np.transpose(inputs[0], node.attr("perm"))]


def _slice_of_shape(node: Node, rank: int) -> slice:
    return slice(node.attr("start", 0), node.attr("end"), None)


def _infer_shape(call: Call) -> list[Type]:
    x = call.shape(0)
    return [((None if x is None else len(x[_slice_of_shape(call.node, len(x))]),), INT64)]


def _shape(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    return [np.array(x.shape[_slice_of_shape(node, x.ndim)], np.int64)]


def _fold_shape(call: Call) -> Array | None:
    x = call.shape(0)
    if x is None:
        return None
    part = x[_slice_of_shape(call.node, len(x))]
    return np.array(part, np.int64) if all(isinstance(d, int) for d in part) else None


def _infer_expand(call: Call) -> list[Type]:
    x, wanted = call.shape(0), call.integers(1)
    if wanted is not None:
        return [(broadcast(call, [x, wanted]), call.dtype())]
    count = (call.shape(1) or (None,))[0]
    if x is None or not isinstance(count, int):
        return [(None, call.dtype())]
    return [((None,) * max(count, len(x)), call.dtype())]


def _expand(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, wanted = inputs
    return [np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(s) for s in wanted)))]


def _infer_cast(call: Call) -> list[Type]:
    dtype = dtype_of(call.node.attr("to"), describe(call.node))
    if dtype.name == "float8_e8m0fnu":
        raise call.fail("casts to FLOAT8E8M0, whose rounding modes are not supported; cast to another type")
    return [(call.shape(0), dtype)]


def _cast(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    dtype = dtype_of(node.attr("to"), describe(node))
    with np.errstate(all="ignore"):
        if is_narrow_float(dtype) and node.attr("saturate", 1):
            limit = _largest(dtype)
            wide = x.astype(np.float32)
            return [np.where(np.isnan(wide), wide, np.clip(wide, -limit, limit)).astype(dtype)]
        return [x.astype(dtype, copy=False)]


def _largest(dtype: np.dtype[Any]) -> float:
    """The largest finite number of a narrow float type: every pattern of its byte is tried."""
    values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    return float(np.max(values[np.isfinite(values)]))


def _infer_blocks(call: Call, shrink: bool) -> list[Type]:
    x = call.shape(0)
    block = call.node.attr("blocksize", 0)
    if block < 1:
        raise call.fail("the attribute blocksize must be positive")
    if x is None:
        return [(None, call.dtype())]
    if len(x) != 4:
        raise call.fail(f"input is {show(x)}; expected 4 axes")

    def scaled(d: Dim, up: int, down: int) -> Dim:
        if isinstance(d, int):
            if d * up % down:
                raise call.fail(f"blocksize {block} does not divide the input {show(x)}")
            return d * up // down
        return d if up == down else None

    area = (block * block, 1) if shrink else (1, block * block)
    side = (1, block) if shrink else (block, 1)
    return [((x[0], scaled(x[1], *area), scaled(x[2], *side), scaled(x[3], *side)), call.dtype())]


def _depth_to_space(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, b = inputs[0], node.attr("blocksize")
    n, c, h, w = x.shape
    if node.attr("mode", "DCR") == "DCR":
        y = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        y = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [y.reshape(n, c // (b * b), h * b, w * b)]


def _space_to_depth(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, b = inputs[0], node.attr("blocksize")
    n, c, h, w = x.shape
    y = x.reshape(n, c, h // b, b, w // b, b)
    order = (0, 3, 5, 1, 2, 4) if node.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return [y.transpose(order).reshape(n, c * b * b, h // b, w // b)]


_BLOCKS = frozenset({"blocksize", "mode"})


def static(shape: Shape) -> bool:
    """Whether every size is a number."""
    return all(isinstance(d, int) for d in shape)


ROWS: tuple[Operator, ...] = (
    Operator("Identity", same_type, lambda node, inputs: [inputs[0]]),
    Operator("Reshape", _infer_reshape, _reshape, least=2, most=2, attributes=frozenset({"allowzero"})),
    Operator("Flatten", _infer_flatten, _flatten, attributes=frozenset({"axis"})),
    Operator("Squeeze", _infer_squeeze, _squeeze, most=2),
    Operator("Unsqueeze", _infer_unsqueeze, _unsqueeze, least=2, most=2),
    Operator("Transpose", _infer_transpose, _transpose, attributes=frozenset({"perm"})),
    Operator("Shape", _infer_shape, _shape, attributes=frozenset({"start", "end"}), fold=_fold_shape),
    Operator("Expand", _infer_expand, _expand, least=2, most=2),
    Operator("Cast", _infer_cast, _cast, attributes=frozenset({"to", "saturate"})),
    Operator("DepthToSpace", lambda call: _infer_blocks(call, False), _depth_to_space, attributes=_BLOCKS),
    Operator("SpaceToDepth", lambda call: _infer_blocks(call, True), _space_to_depth, attributes=_BLOCKS),
)
