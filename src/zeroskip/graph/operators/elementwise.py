"""Element by element: arithmetic and activations, with NumPy's broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zeroskip.graph.ir import Node
from zeroskip.graph.operator import Array, Call, Operator, Type, broadcast, same_type, show
from zeroskip.graph.special import erf

UnaryFunction = Callable[..., Array]


def widened(x: Array) -> Array:
    """Half-precision types as float32, in which runtimes compute them."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 and x.dtype.kind in "fV" else x


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def gelu(x: Array, approximate: str = "none") -> Array:
    """x·Φ(x), or its tanh approximation."""
    if approximate == "tanh":
        return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    return np.asarray(0.5 * x * (1 + erf(x * math.sqrt(0.5))))


ACTIVATIONS: dict[str, UnaryFunction] = {
    "Relu": lambda x: np.maximum(x, 0),
    "LeakyRelu": lambda x, alpha=0.01: np.where(x < 0, alpha * x, x),
    "Clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "Elu": lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
    "Sigmoid": sigmoid,
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: np.clip(alpha * x + beta, 0, 1),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Silu": lambda x: x * sigmoid(x),
    "Tanh": np.tanh,
    "Softplus": softplus,
    "Gelu": gelu,
    "Mish": lambda x: x * np.tanh(softplus(x)),
}
"""Activation name to its function of an array and the activation's numbers; ``Silu`` exists only fused."""

_NUMBERS: dict[str, dict[str, Any]] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Gelu": {"approximate": "none"},
}


def activation_of(node: Node) -> tuple[Any, ...]:
    """An activation node (but Clip, whose bounds are inputs) as a fused ``(name, numbers...)``."""
    return (node.op, *(node.attr(key, default) for key, default in _NUMBERS.get(node.op, {}).items()))


def activate(x: Array, activation: tuple[Any, ...] | None) -> Array:
    """Apply a fused activation, e.g. ``("Clip", 0.0, 6.0)``; keeps the type of `x`."""
    if not activation:
        return x
    name, *numbers = activation
    result = ACTIVATIONS[name](widened(x), *numbers)
    return result.astype(x.dtype, copy=False)


def _activation_row(name: str) -> Operator:
    def evaluate(node: Node, inputs: Sequence[Any]) -> list[Array]:
        return [activate(inputs[0], activation_of(node))]

    attributes = frozenset(_NUMBERS.get(name, {}))
    return Operator(name, same_type, evaluate, attributes=attributes, floats=name != "Relu")


def _unary_row(name: str, function: UnaryFunction) -> Operator:
    def evaluate(node: Node, inputs: Sequence[Any]) -> list[Array]:
        x = inputs[0]
        with np.errstate(all="ignore"):
            return [np.asarray(function(widened(x))).astype(x.dtype, copy=False)]

    return Operator(name, same_type, evaluate, floats=name not in ("Abs", "Neg", "Erf"))


def _infer_broadcast(call: Call) -> list[Type]:
    dtype = call.dtype()
    for index in range(1, len(call.values)):
        if call.present(index) and call.dtype(index) != dtype:
            raise call.fail(f"inputs have different types, {dtype} and {call.dtype(index)}; cast one of them")
    return [(broadcast(call, [call.shape(i) for i in range(len(call.values))]), dtype)]


def _divide(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    # ONNX integer division truncates towards zero, NumPy's rounds down.
    quotient = np.floor_divide(a, b)
    return np.asarray(quotient + ((quotient < 0) & (quotient * b != a)), dtype=a.dtype)


def _fold_binary(function: Callable[[Array, Array], Array]) -> Callable[[Node, Sequence[Any]], list[Array]]:
    def evaluate(node: Node, inputs: Sequence[Any]) -> list[Array]:
        result = inputs[0]
        with np.errstate(all="ignore"):
            for other in inputs[1:]:
                result = function(result, other)
        return [np.asarray(result).astype(inputs[0].dtype, copy=False)]

    return evaluate


def _infer_pow(call: Call) -> list[Type]:
    return [(broadcast(call, [call.shape(0), call.shape(1)]), call.dtype())]


def _pow(node: Node, inputs: Sequence[Any]) -> list[Array]:
    base, exponent = inputs
    with np.errstate(all="ignore"):
        if base.dtype.kind in "iu" and exponent.dtype.kind in "iu":
            return [_integer_power(base, exponent)]
        return [np.asarray(np.power(widened(base), widened(exponent))).astype(base.dtype, copy=False)]


def _integer_power(base: Array, exponent: Array) -> Array:
    if exponent.size and exponent.min() < 0:  # NumPy refuses; 1/x truncates to -1, 0 or 1 as in C
        return np.power(base.astype(np.float64), exponent).astype(base.dtype)
    return np.asarray(np.power(base, exponent.astype(base.dtype)))


def _infer_prelu(call: Call) -> list[Type]:
    shape = call.shape(0)
    result = broadcast(call, [shape, call.shape(1)])
    if shape is not None and result is not None and len(result) != len(shape):
        raise call.fail(f"slope {show(call.shape(1))} does not broadcast to the input {show(shape)}")
    return [(shape, call.dtype())]


def _prelu(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, slope = inputs
    return [np.where(x < 0, slope * x, x).astype(x.dtype, copy=False)]


def _infer_clip(call: Call) -> list[Type]:
    for index in (1, 2):
        if call.present(index) and call.dtype(index) != call.dtype():
            raise call.fail(f"bound is {call.dtype(index)}, input is {call.dtype()}; give both one type")
    return same_type(call)


def _clip(node: Node, inputs: Sequence[Any]) -> list[Array]:
    result = inputs[0]
    for function, bound in zip((np.maximum, np.minimum), inputs[1:]):
        if bound is not None:
            result = function(result, bound.reshape(()))
    return [result]


_UNARY: dict[str, UnaryFunction] = {
    "Abs": np.abs,
    "Neg": np.negative,
    "Exp": np.exp,
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Erf": erf,
}

_BINARY: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
}

_VARIADIC: dict[str, Callable[[Array, Array], Array]] = {"Min": np.minimum, "Max": np.maximum}

ROWS: tuple[Operator, ...] = (
    *(_activation_row(name) for name in ACTIVATIONS if name not in ("Clip", "Silu")),
    *(_unary_row(name, function) for name, function in _UNARY.items()),
    *(Operator(name, _infer_broadcast, _fold_binary(f), least=2, most=2) for name, f in _BINARY.items()),
    *(Operator(name, _infer_broadcast, _fold_binary(f), least=1, most=None) for name, f in _VARIADIC.items()),
    Operator("Pow", _infer_pow, _pow, least=2, most=2),
    Operator("PRelu", _infer_prelu, _prelu, least=2, most=2, parameters=(1,)),
    Operator("Clip", _infer_clip, _clip, least=1, most=3),
)
