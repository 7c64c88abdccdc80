"""Operators that make numbers from nothing; both disappear where their inputs are constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Node
from zeroskip.graph.operator import Array, Call, Operator, Type


def _value(node: Node) -> Array:
    return np.asarray(node.attr("value", np.zeros(1, np.float32)))


def _infer_constant(call: Call) -> list[Type]:
    value = _value(call.node)
    return [(value.shape, value.dtype)]


def _infer_constant_of_shape(call: Call) -> list[Type]:
    dtype = _value(call.node).dtype
    sizes = call.integers(0)
    if sizes is not None:
        return [(sizes, dtype)]
    count = (call.shape(0) or (None,))[0]
    return [((None,) * count if isinstance(count, int) else None, dtype)]


def _constant_of_shape(node: Node, inputs: Sequence[Any]) -> list[Array]:
    value = _value(node)
    return [np.full(tuple(int(s) for s in inputs[0]), value.reshape(-1)[0], value.dtype)]


_VALUE = frozenset({"value"})

ROWS: tuple[Operator, ...] = (
    Operator("Constant", _infer_constant, lambda node, _: [_value(node)], least=0, most=0, attributes=_VALUE),
    Operator("ConstantOfShape", _infer_constant_of_shape, _constant_of_shape, attributes=_VALUE),
)
