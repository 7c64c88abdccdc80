"""Reductions over axes, and softmax."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Dim, Node
from zeroskip.graph.operator import Array, Call, Operator, Type, axis_of, same_type
from zeroskip.graph.operators.elementwise import widened
from zeroskip.graph.operators.pooling import lowest


def _infer_reduce(call: Call) -> list[Type]:
    x = call.shape(0)
    if x is None:
        return [(None, call.dtype())]
    axes = call.integers(1)
    given = call.present(1) and call.shape(1) != (0,)
    keep = call.node.attr("keepdims", 1)
    if given and axes is None:
        count = (call.shape(1) or (None,))[0]
        if keep:
            return [((None,) * len(x), call.dtype())]
        return [((None,) * (len(x) - count) if isinstance(count, int) else None, call.dtype())]
    if not axes:
        if call.node.attr("noop_with_empty_axes", 0):
            return same_type(call)
        axes = tuple(range(len(x)))
    reduced = {axis_of(call, a, len(x)) for a in axes}
    shape: list[Dim] = [1 if i in reduced else d for i, d in enumerate(x) if keep or i not in reduced]
    return [(tuple(shape), call.dtype())]


def _reduction(function: Callable[..., Array]) -> Callable[[Node, Sequence[Any]], list[Array]]:
    def evaluate(node: Node, inputs: Sequence[Any]) -> list[Array]:
        x, axes, *_ = (*inputs, None)
        if axes is None or axes.size == 0:
            if node.attr("noop_with_empty_axes", 0):
                return [x]
            selected = tuple(range(x.ndim))
        else:
            selected = tuple(int(a) % x.ndim for a in axes.reshape(-1))
        keep = bool(node.attr("keepdims", 1))
        with np.errstate(all="ignore"):
            result = function(widened(x), selected, keep)
        return [np.asarray(result).astype(x.dtype, copy=False)]

    return evaluate


def _sum(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.sum(x, axis=axes, keepdims=keep))


def _mean(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.mean(x, axis=axes, keepdims=keep))


def _max(x: Array, axes: tuple[int, ...], keep: bool) -> Array:
    return np.asarray(np.max(x, axis=axes, keepdims=keep, initial=lowest(x.dtype)))


def _infer_softmax(call: Call) -> list[Type]:
    x = call.shape(0)
    if x is not None:
        axis = call.node.attr("axis", -1)
        if not (call.node.attr("coerce_2d") and axis == len(x)):
            axis_of(call, axis, max(len(x), 1))
    return same_type(call)


def _shifted(node: Node, x: Array) -> tuple[Array, int]:
    """`x` less its maximum along the softmax axis, and that axis; flattened first if `coerce_2d`."""
    axis = node.attr("axis", -1)
    x = widened(x)
    if node.attr("coerce_2d"):
        split = axis % x.ndim if axis < x.ndim else axis
        x = x.reshape(int(np.prod(x.shape[:split])), -1)
        axis = -1
    return x - x.max(axis=axis, keepdims=True, initial=-np.inf), axis


def _softmax(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    shifted, axis = _shifted(node, x)
    e = np.exp(shifted)
    return [(e / e.sum(axis=axis, keepdims=True)).reshape(x.shape).astype(x.dtype, copy=False)]


def _log_softmax(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    shifted, axis = _shifted(node, x)
    result = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return [result.reshape(x.shape).astype(x.dtype, copy=False)]


_REDUCE = frozenset({"keepdims", "noop_with_empty_axes"})
_SOFTMAX = frozenset({"axis", "coerce_2d"})

ROWS: tuple[Operator, ...] = (
    Operator("ReduceSum", _infer_reduce, _reduction(_sum), most=2, attributes=_REDUCE),
    Operator("ReduceMean", _infer_reduce, _reduction(_mean), most=2, attributes=_REDUCE),
    Operator("ReduceMax", _infer_reduce, _reduction(_max), most=2, attributes=_REDUCE),
    Operator("Softmax", _infer_softmax, _softmax, attributes=_SOFTMAX, floats=True),
    Operator("LogSoftmax", _infer_softmax, _log_softmax, attributes=_SOFTMAX, floats=True),
)
