"""Pools over windows and over whole planes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Node
from zeroskip.graph.operator import INT64, Array, Call, Operator, Type, show
from zeroskip.graph.operators.elementwise import widened
from zeroskip.graph.operators.window import (
    Window,
    output_sizes,
    padded,
    resolve_pads,
    tap_view,
    window_of,
    window_problem,
)


def lowest(dtype: np.dtype[Any]) -> Any:
    """The identity of max: minus infinity, or the smallest integer."""
    if dtype.kind in "iu":
        return np.iinfo(dtype).min
    return False if dtype.kind == "b" else -np.inf


def _infer_pool(call: Call) -> list[Type]:
    x = call.shape(0)
    if call.node.attr("kernel_shape") is None:
        raise call.fail("the attribute kernel_shape is missing")
    if x is None:
        return [(None, call.dtype()), (None, INT64)]
    window = window_of(call.node, ())
    if len(x) < 3:
        raise call.fail(f"input is {show(x)}; expected batch, channels and at least one spatial axis")
    problem = window_problem(window, len(x) - 2)
    if problem:
        raise call.fail(problem)
    sizes = output_sizes(window, x[2:])
    if any(isinstance(s, int) and s < 1 for s in sizes):
        raise call.fail(f"kernel {window.kernel} does not fit into the padded input {show(x)}")
    shape = (*x[:2], *sizes)
    return [(shape, call.dtype()), (shape, INT64)]


def _window_for(node: Node, x: Array) -> tuple[Window, tuple[int, ...]]:
    raw = window_of(node, ())
    counts = output_sizes(raw, x.shape[2:])
    return resolve_pads(raw, x.shape[2:]), tuple(c for c in counts if isinstance(c, int))


def _max_pool(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    window, counts = _window_for(node, x)
    source = padded(x, window, counts, lowest(x.dtype))
    if len(node.outputs) < 2 or not node.outputs[1]:
        best = tap_view(source, window, counts, window.taps()[0]).copy()
        for tap in window.taps()[1:]:
            np.maximum(best, tap_view(source, window, counts, tap), out=best)
        return [best]
    return _max_pool_indices(node, x, source, window, counts)


def _max_pool_indices(
    node: Node, x: Array, source: Array, window: Window, counts: tuple[int, ...]
) -> list[Array]:
    """Maximum and where it was found, as an index into the flattened input (the first of equals)."""
    plane = np.arange(math.prod(x.shape[2:]))
    if node.attr("storage_order", 0):
        plane = plane.reshape(x.shape[2:][::-1]).T
    where = padded(plane.reshape(x.shape[2:]), window, counts, -1)
    first = window.taps()[0]
    best = tap_view(source, window, counts, first).copy()
    index = np.broadcast_to(tap_view(where, window, counts, first), best.shape).copy()
    for tap in window.taps()[1:]:
        candidate = tap_view(source, window, counts, tap)
        place = tap_view(where, window, counts, tap)
        better = (candidate > best) | ((index < 0) & (place >= 0))
        best = np.where(better, candidate, best)
        index = np.where(better, place, index)
    offset = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(counts))
    return [best, index + offset * math.prod(x.shape[2:])]


def _average_pool(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = widened(inputs[0])
    window, counts = _window_for(node, x)
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if node.attr("count_include_pad", 0):
        # Only the declared padding counts, not what ceil_mode adds beyond it.
        pads = [(max(b, 0), max(e, 0)) for b, e in zip(window.begins, window.ends)]
        ones = np.pad(ones, [(0, 0), (0, 0), *pads], constant_values=1)
        unpadded = Window(
            window.kernel,
            window.strides,
            window.dilations,
            (0,) * len(pads),
            (0,) * len(pads),
            "NOTSET",
            False,
        )
        weights = padded(ones, unpadded, counts, 0)
    else:
        weights = padded(ones, window, counts, 0)
    source = padded(x, window, counts, 0)
    total = _sum_taps(source, window, counts)
    return [(total / _sum_taps(weights, window, counts)).astype(inputs[0].dtype, copy=False)]


def _sum_taps(source: Array, window: Window, counts: tuple[int, ...]) -> Array:
    total = np.zeros((*source.shape[:2], *counts), source.dtype)
    for tap in window.taps():
        total += tap_view(source, window, counts, tap)
    return total


def _lp_pool(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = widened(inputs[0])
    window, counts = _window_for(node, x)
    p = node.attr("p", 2)
    total = _sum_taps(padded(np.abs(x) ** p, window, counts, 0), window, counts)
    return [(total ** (1 / p)).astype(inputs[0].dtype, copy=False)]


def _infer_global(call: Call) -> list[Type]:
    x = call.shape(0)
    if x is None:
        return [(None, call.dtype())]
    if len(x) < 3:
        raise call.fail(f"input is {show(x)}; expected batch, channels and at least one spatial axis")
    return [((*x[:2], *(1 for _ in x[2:])), call.dtype())]


def _global_average_pool(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    return [widened(x).mean(axis=tuple(range(2, x.ndim)), keepdims=True).astype(x.dtype, copy=False)]


def _global_max_pool(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = inputs[0]
    return [x.max(axis=tuple(range(2, x.ndim)), keepdims=True)]


_ATTRIBUTES = frozenset({"auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"})

ROWS: tuple[Operator, ...] = (
    Operator("MaxPool", _infer_pool, _max_pool, attributes=_ATTRIBUTES | {"storage_order"}, outputs=2),
    Operator(
        "AveragePool", _infer_pool, _average_pool, attributes=_ATTRIBUTES | {"count_include_pad"}, floats=True
    ),
    Operator("LpPool", _infer_pool, _lp_pool, attributes=_ATTRIBUTES | {"p"}, floats=True),
    Operator("GlobalAveragePool", _infer_global, _global_average_pool, floats=True),
    Operator("GlobalMaxPool", _infer_global, _global_max_pool, floats=True),
)
