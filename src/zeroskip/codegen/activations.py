"""Activations that a kernel applies to a vector before storing it: one row per ONNX operator."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

from zeroskip.codegen import mathematics
from zeroskip.codegen.builder import Builder
from zeroskip.codegen.expr import Expr

Activation = tuple[str | float, ...]
"""An operator's name and its numbers, e.g. ``("Clip", 0.0, 6.0)``."""


def _relu(b: Builder, x: Expr) -> Expr:
    # `x < 0` is false for NaN, which therefore passes, as in ONNX
    return b.select(x < 0.0, b.like(0.0, x), x)


def _clip(b: Builder, x: Expr, low: float, high: float) -> Expr:
    x = b.select(x < low, b.like(low, x), x)
    return b.select(x > high, b.like(high, x), x)


def _leaky_relu(b: Builder, x: Expr, alpha: float = 0.01) -> Expr:
    return b.select(x < 0.0, x * alpha, x)


def _elu(b: Builder, x: Expr, alpha: float = 1.0) -> Expr:
    return b.select(x < 0.0, (mathematics.exp(b, x) - 1.0) * alpha, x)


def _hard_sigmoid(b: Builder, x: Expr, alpha: float = 0.2, beta: float = 0.5) -> Expr:
    return _clip(b, b.fma(alpha, x, b.like(beta, x)), 0.0, 1.0)


def _hard_swish(b: Builder, x: Expr) -> Expr:
    return x * _hard_sigmoid(b, x, 1 / 6, 0.5)


def _silu(b: Builder, x: Expr) -> Expr:
    return mathematics.logistic(b, x, x)


def _gelu(b: Builder, x: Expr, approximate: str = "none") -> Expr:
    if approximate == "tanh":
        # (1 + tanh z)/2 is sigmoid(2z), which does not cancel where z is very negative
        twice = x * b.fma(0.044715 * sqrt(8 / pi), x * x, b.like(sqrt(8 / pi), x))
        return mathematics.logistic(b, twice, x)
    return x * 0.5 * (mathematics.erf(b, x * (1 / sqrt(2))) + 1.0)


def _mish(b: Builder, x: Expr) -> Expr:
    # tanh(log(1 + e)) = n / (n + 2) with n = e*(e + 2); from x = 20 on it is 1, and e*e must not overflow
    e = mathematics.exp(b, b.minimum(b.like(20.0, x), x))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


ACTIVATIONS: dict[str, Callable[..., Expr]] = {
    "Relu": _relu,
    "Clip": _clip,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Sigmoid": mathematics.sigmoid,
    "Silu": _silu,
    "Gelu": _gelu,
    "Tanh": mathematics.tanh,
    "Softplus": mathematics.softplus,
    "Mish": _mish,
    "Erf": mathematics.erf,
    "Exp": mathematics.exp,
    "Log": mathematics.log,
    "Pow": mathematics.power,
    "Abs": lambda b, x: b.unary("fabs", x),
    "Sqrt": lambda b, x: b.unary("sqrt", x),
    "Neg": lambda b, x: b.like(0.0, x) - x,
}


def activate(b: Builder, x: Expr, activation: Activation | None) -> Expr:
    """`activation` applied to the vector `x`."""
    if not activation:
        return x
    name, *numbers = activation
    return ACTIVATIONS[str(name)](b, x, *numbers)


def rectifies(activation: Activation | None) -> bool:
    """Whether all negative numbers become zeros."""
    return activation is not None and (activation[0] == "Relu" or tuple(activation[:2]) == ("Clip", 0))


def epilogue_tag(activation: Activation | None, residual: bool) -> str:
    """What is fused as a part of a kernel's name, e.g. ``_residual_clip_0_6``."""
    return ("_residual" if residual else "") + tag(activation)


def tag(activation: Activation | None) -> str:
    """The activation as a part of a kernel's name, e.g. ``_clip_0_6``."""
    if not activation:
        return ""
    numbers = (
        (number if isinstance(number, str) else f"{number:.9g}")
        .replace(".", "p")
        .replace("-", "m")
        .replace("+", "")
        for number in activation[1:]
    )
    return "_" + "_".join([str(activation[0]).lower(), *numbers])
