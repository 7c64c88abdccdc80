"""Normalisations, and Dropout, which is one only while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Dim, Node
from zeroskip.graph.operator import BOOL, Array, Call, Operator, Type, axis_of, describe, same_type, show
from zeroskip.graph.operators.elementwise import widened


def _channelwise(x: Array, parameter: Array) -> Array:
    return widened(parameter).reshape(-1, *(1,) * (x.ndim - 2))


def _infer_batch_normalization(call: Call) -> list[Type]:
    x = call.shape(0)
    if x is not None and len(x) >= 2:
        for index in range(1, 5):
            shape = call.shape(index)
            if shape is None:
                continue
            if len(shape) != 1 or (isinstance(x[1], int) and isinstance(shape[0], int) and shape[0] != x[1]):
                raise call.fail(
                    f"input {index} is {show(shape)}; expected one number per channel of {show(x)}"
                )
    return [(x, call.dtype()), (call.shape(3), call.dtype(3)), (call.shape(4), call.dtype(4))]


def _batch_normalization(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, scale, shift, mean, variance = inputs
    wide = widened(x)
    outputs = []
    if node.attr("training_mode", 0):
        axes = (0, *range(2, x.ndim))
        momentum = node.attr("momentum", 0.9)
        seen = (wide.mean(axis=axes), wide.var(axis=axes))
        outputs = [
            (old * momentum + new * (1 - momentum)).astype(old.dtype)
            for old, new in zip((mean, variance), seen)
        ]
        mean, variance = seen
    factor = _channelwise(x, scale) / np.sqrt(
        _channelwise(x, variance) + np.float32(node.attr("epsilon", 1e-5))
    )
    y = (wide - _channelwise(x, mean)) * factor + _channelwise(x, shift)
    return [y.astype(x.dtype, copy=False), *outputs]


def _instance_normalization(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, scale, shift = inputs
    y = _standardised(widened(x), tuple(range(2, x.ndim)), node.attr("epsilon", 1e-5))[0]
    return [(y * _channelwise(x, scale) + _channelwise(x, shift)).astype(x.dtype, copy=False)]


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """`x` with mean 0 and variance 1 over `axes`, the mean, and the inverse standard deviation."""
    mean = x.mean(axis=axes, keepdims=True)
    inverse = (1 / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)).astype(x.dtype)
    return (x - mean) * inverse, mean, inverse


def _infer_layer_normalization(call: Call) -> list[Type]:
    x = call.shape(0)
    stash = np.dtype(np.float32)
    if x is None:
        return [(None, call.dtype()), (None, stash), (None, stash)]
    axis = axis_of(call, call.node.attr("axis", -1), len(x))
    reduced: tuple[Dim, ...] = (*x[:axis], *(1 for _ in x[axis:]))
    return [(x, call.dtype()), (reduced, stash), (reduced, stash)]


def _layer_normalization(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, scale, shift, *_ = (*inputs, None)
    axes = tuple(range(node.attr("axis", -1) % x.ndim, x.ndim))
    y, mean, inverse = _standardised(widened(x), axes, node.attr("epsilon", 1e-5))
    y = y * widened(scale)
    if shift is not None:
        y = y + widened(shift)
    return [y.astype(x.dtype, copy=False), mean.astype(np.float32), inverse.astype(np.float32)]


def _infer_lrn(call: Call) -> list[Type]:
    if call.node.attr("size", 0) < 1:
        raise call.fail("the attribute size must be positive")
    return same_type(call)


def _lrn(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x = widened(inputs[0])
    size = node.attr("size")
    before = (size - 1) // 2
    squares = np.pad(x * x, [(0, 0), (before, size - 1 - before), *[(0, 0)] * (x.ndim - 2)])
    total = np.zeros_like(x)
    for offset in range(size):
        total += squares[:, offset : offset + x.shape[1]]
    scale = node.attr("bias", 1.0) + node.attr("alpha", 1e-4) / size * total
    return [(x / scale ** node.attr("beta", 0.75)).astype(inputs[0].dtype, copy=False)]


def _infer_dropout(call: Call) -> list[Type]:
    return [(call.shape(0), call.dtype()), (call.shape(0), BOOL)]


def _dropout(node: Node, inputs: Sequence[Any]) -> list[Array]:
    x, ratio, training, *_ = (*inputs, None, None)
    if training is not None and bool(training) and (0.5 if ratio is None else float(ratio)) > 0:
        raise ModelError(
            f"{describe(node)} is in training mode and drops at random; export the network for inference"
        )
    return [x, np.ones(x.shape, np.bool_)]


ROWS: tuple[Operator, ...] = (
    Operator(
        "BatchNormalization",
        _infer_batch_normalization,
        _batch_normalization,
        least=5,
        most=5,
        attributes=frozenset({"epsilon", "momentum", "training_mode"}),
        outputs=3,
        parameters=(1, 2, 3, 4),
        floats=True,
    ),
    Operator(
        "InstanceNormalization",
        same_type,
        _instance_normalization,
        least=3,
        most=3,
        attributes=frozenset({"epsilon"}),
        parameters=(1, 2),
        floats=True,
    ),
    Operator(
        "LayerNormalization",
        _infer_layer_normalization,
        _layer_normalization,
        least=2,
        most=3,
        attributes=frozenset({"axis", "epsilon", "stash_type"}),
        outputs=3,
        parameters=(1, 2),
        floats=True,
    ),
    Operator("LRN", _infer_lrn, _lrn, attributes=frozenset({"alpha", "beta", "bias", "size"}), floats=True),
    Operator(
        "Dropout", _infer_dropout, _dropout, most=3, attributes=frozenset({"seed"}), outputs=2, floats=True
    ),
)
