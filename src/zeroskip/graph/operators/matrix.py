"""Matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Node
from zeroskip.graph.operator import Array, Call, Operator, Type, broadcast, merge, show
from zeroskip.graph.operators.elementwise import activate, widened


def _infer_gemm(call: Call) -> list[Type]:
    a, b = call.shape(0), call.shape(1)
    if a is None or b is None:
        return [((None, None), call.dtype())]
    if len(a) != 2 or len(b) != 2:
        raise call.fail(f"A is {show(a)} and B is {show(b)}; both must be matrices")
    m, k = a[::-1] if call.node.attr("transA", 0) else a
    k2, n = b[::-1] if call.node.attr("transB", 0) else b
    if isinstance(k, int) and isinstance(k2, int) and k != k2:
        raise call.fail(f"A {show(a)} and B {show(b)} do not multiply: {k} columns against {k2} rows")
    if call.present(2):
        c = call.shape(2)
        result = broadcast(call, [(m, n), c])
        if result is not None and (len(result) > 2 or (isinstance(m, int) and result[0] not in (m, None))):
            raise call.fail(f"C {show(c)} does not broadcast to {show((m, n))}")
    return [((m, n), call.dtype())]


def _gemm(node: Node, inputs: Sequence[Any]) -> list[Array]:
    a, b, c, *_ = (*inputs, None)
    dtype = a.dtype
    a, b = widened(a), widened(b)
    result = np.matmul(a.T if node.attr("transA", 0) else a, b.T if node.attr("transB", 0) else b)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if alpha != 1:
        result = (alpha * result).astype(result.dtype, copy=False)
    if c is not None:
        result = result + (widened(c) if beta == 1 else (beta * widened(c)).astype(result.dtype))
    return [activate(result, node.attr("activation")).astype(dtype, copy=False)]


def _gemm_macs(node: Node, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    return math.prod(out) * shapes[0][0 if node.attr("transA", 0) else 1]


def _infer_matmul(call: Call) -> list[Type]:
    a, b = call.shape(0), call.shape(1)
    if a is None or b is None:
        return [(None, call.dtype())]
    if not a or not b:
        raise call.fail(f"inputs are {show(a)} and {show(b)}; both need at least one axis")
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    k, k2 = left[-1], right[-2]
    if isinstance(merge(k, k2), int) and isinstance(k2, int) and isinstance(k, int) and k != k2:
        raise call.fail(f"{show(a)} and {show(b)} do not multiply: {k} columns against {k2} rows")
    batch = broadcast(call, [left[:-2], right[:-2]])
    assert batch is not None
    rows = () if len(a) == 1 else (left[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return [((*batch, *rows, *columns), call.dtype())]


def _matmul(node: Node, inputs: Sequence[Any]) -> list[Array]:
    a, b = inputs
    return [np.asarray(np.matmul(widened(a), widened(b))).astype(a.dtype, copy=False)]


def _matmul_macs(node: Node, shapes: Sequence[tuple[int, ...]], out: tuple[int, ...]) -> int:
    return math.prod(out) * shapes[0][-1]


ROWS: tuple[Operator, ...] = (
    Operator(
        "Gemm",
        _infer_gemm,
        _gemm,
        least=2,
        most=3,
        attributes=frozenset({"alpha", "beta", "transA", "transB", "activation"}),
        parameters=(1, 2),
        macs=_gemm_macs,
    ),
    Operator("MatMul", _infer_matmul, _matmul, least=2, most=2, parameters=(1,), macs=_matmul_macs),
)
