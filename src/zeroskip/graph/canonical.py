"""Older opsets to the newest meaning: one function per operator that changed.

Each takes the node as written, the model's opset and a `Rewriter` (which holds constants and invents
names) and returns the nodes that stand in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zeroskip.errors import ModelError
from zeroskip.graph.ir import Node, Value
from zeroskip.graph.operator import Array, describe

FLOAT_MAX = float(np.finfo(np.float32).max)


@dataclass
class Rewriter:
    """What rewriting a node may look up and add."""

    opset: int
    values: dict[str, Value]
    constants: dict[str, Array]
    taken: set[str]
    used: Mapping[str, int] = field(default_factory=dict)

    def name(self, base: str) -> str:
        """A name that nothing else has."""
        name, number = base, 0
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def constant(self, base: str, array: Array) -> str:
        """Add a constant and return its name."""
        name = self.name(base)
        self.constants[name] = array
        self.values[name] = Value(name, array.shape, array.dtype)
        return name

    def integers(self, node: Node, key: str) -> str:
        """An integer-list attribute as a constant's name; ``""`` where it is absent."""
        numbers = node.attr(key)
        if numbers is None:
            return ""
        return self.constant(f"{node.outputs[0]}/{key}", np.array(numbers, np.int64))

    def number(self, node: Node, key: str, value: float) -> str:
        """A scalar of the type of input 0."""
        dtype = self.values[node.inputs[0]].dtype
        return self.constant(f"{node.outputs[0]}/{key}", np.array(value, dtype))

    def rank(self, name: str) -> int | None:
        """The rank of a value that stands before the node."""
        shape = self.values[name].shape
        return None if shape is None else len(shape)


Rewrite = Callable[[Node, Rewriter], list[Node]]


def _without(node: Node, *keys: str, **more: Any) -> dict[str, Any]:
    return {**{k: v for k, v in node.attributes.items() if k not in keys}, **more}


def _clip(node: Node, r: Rewriter) -> list[Node]:
    if r.opset >= 11:
        return [node]
    low, high = node.attr("min", -FLOAT_MAX), node.attr("max", FLOAT_MAX)
    bounds = [
        "" if low <= -FLOAT_MAX else r.number(node, "min", low),
        "" if high >= FLOAT_MAX else r.number(node, "max", high),
    ]
    return [node.with_(inputs=(*node.inputs, *bounds), attributes=_without(node, "min", "max"))]


def _axes_as_input(newest: int) -> Rewrite:
    def rewrite(node: Node, r: Rewriter) -> list[Node]:
        if r.opset >= newest or node.attr("axes") is None:
            return [node]
        return [
            node.with_(inputs=(*node.inputs, r.integers(node, "axes")), attributes=_without(node, "axes"))
        ]

    return rewrite


def _split(node: Node, r: Rewriter) -> list[Node]:
    inputs = node.inputs
    if r.opset < 13 and node.attr("split") is not None:
        inputs = (*inputs, r.integers(node, "split"))
    attributes = _without(node, "split", "num_outputs")
    if len(inputs) < 2 or not inputs[1]:
        declared = node.attr("num_outputs", len(node.outputs))
        if declared != len(node.outputs):
            raise ModelError(
                f"{describe(node)}: num_outputs is {declared} but it has {len(node.outputs)} outputs"
            )
        attributes["num_outputs"] = len(node.outputs)
    return [node.with_(inputs=inputs, attributes=attributes)]


def _slice(node: Node, r: Rewriter) -> list[Node]:
    if r.opset >= 10:
        return [node]
    bounds = tuple(r.integers(node, key) for key in ("starts", "ends", "axes"))
    return [
        node.with_(
            inputs=(*node.inputs, *(bounds if bounds[2] else bounds[:2])),
            attributes=_without(node, "starts", "ends", "axes"),
        )
    ]


def _pad(node: Node, r: Rewriter) -> list[Node]:
    if r.opset >= 11:
        return [node]
    inputs = (*node.inputs, r.integers(node, "pads"))
    if node.attr("value", 0.0) and node.attr("mode", "constant") == "constant":
        inputs = (*inputs, r.number(node, "value", node.attr("value")))
    return [node.with_(inputs=inputs, attributes=_without(node, "pads", "value"))]


def _resize(node: Node, r: Rewriter) -> list[Node]:
    if node.op == "Resize" and r.opset >= 11:
        # An empty roi or scales is how older opsets skip an input.
        empty = tuple(
            "" if i in (1, 2) and name in r.constants and r.constants[name].size == 0 else name
            for i, name in enumerate(node.inputs)
        )
        return [node.with_(inputs=empty)]
    scales = (
        r.constant(f"{node.outputs[0]}/scales", np.array(node.attr("scales"), np.float32))
        if node.attr("scales") is not None
        else node.input(1)
    )
    known = r.constants.get(scales)
    shrinks = node.op == "Resize" and known is not None and bool((known < 1).any())
    attributes = {
        "mode": node.attr("mode", "nearest"),
        "coordinate_transformation_mode": "asymmetric",
        # Resize-10 leaves rounding open; its published examples round up where they shrink.
        "nearest_mode": "ceil" if shrinks else "floor",
    }
    return [node.with_(op="Resize", inputs=(node.inputs[0], "", scales), attributes=attributes)]


def _softmax(node: Node, r: Rewriter) -> list[Node]:
    if r.opset >= 13:
        return [node]
    axis, rank = node.attr("axis", 1), r.rank(node.inputs[0])
    if rank is not None and axis % max(rank, 1) == rank - 1 and axis < rank:
        return [node.with_(attributes={"axis": -1})]
    return [node.with_(attributes={"axis": axis, "coerce_2d": 1})]


def _dropout(node: Node, r: Rewriter) -> list[Node]:
    if r.opset < 10 and len(node.outputs) > 1 and r.used.get(node.outputs[1]):
        raise ModelError(
            f"{describe(node)}: the mask of Dropout before opset 10 is used; export for inference"
        )
    if r.opset >= 12:
        return [node]
    ratio = r.constant(f"{node.outputs[0]}/ratio", np.array(node.attr("ratio", 0.5), np.float32))
    return [node.with_(inputs=(node.inputs[0], ratio), attributes=_without(node, "ratio"))]


def _batch_normalization(node: Node, r: Rewriter) -> list[Node]:
    if node.attr("training_mode", 0) == 0:
        extra = [name for name in node.outputs[1:] if name and r.used.get(name)]
        if extra:
            raise ModelError(
                f'{describe(node)}: its training output "{extra[0]}" is used; export for inference'
            )
        node = node.with_(outputs=node.outputs[:1], attributes=_without(node, "momentum"))
    if r.opset >= 14 or node.attr("spatial", 1):
        return [node.with_(attributes=_without(node, "spatial"))]
    return _per_element_normalization(node, r)


def _per_element_normalization(node: Node, r: Rewriter) -> list[Node]:
    """BatchNormalization with spatial=0 (opset 7 and 8): one scale per element, so a product and a sum."""
    if any(name not in r.constants for name in node.inputs[1:]):
        raise ModelError(f"{describe(node)} has spatial=0, which is supported for constant parameters only")
    scale, shift, mean, variance = (r.constants[name].astype(np.float64) for name in node.inputs[1:])
    factor = scale / np.sqrt(variance + node.attr("epsilon", 1e-5))
    dtype = r.values[node.inputs[0]].dtype
    out = node.outputs[0]
    product = r.name(f"{out}/scaled")
    multiplier = r.constant(f"{out}/scale", factor.astype(dtype))
    offset = r.constant(f"{out}/shift", (shift - mean * factor).astype(dtype))
    return [
        Node("Mul", (node.inputs[0], multiplier), (product,), {}, node.name),
        Node("Add", (product, offset), (out,), {}, node.name),
    ]


def _cast(node: Node, r: Rewriter) -> list[Node]:
    return [node.with_(attributes=_without(node, "round_mode"))]


def _sum(node: Node, r: Rewriter) -> list[Node]:
    """A Sum of any number of inputs as Adds."""
    if len(node.inputs) == 1:
        return [node.with_(op="Identity")]
    total, nodes = node.inputs[0], []
    for index, name in enumerate(node.inputs[1:], start=2):
        last = index == len(node.inputs)
        out = node.outputs[0] if last else r.name(f"{node.outputs[0]}/sum{index}")
        nodes.append(Node("Add", (total, name), (out,), {}, node.name))
        total = out
    return nodes


REWRITES: Mapping[str, Rewrite] = {
    "BatchNormalization": _batch_normalization,
    "Cast": _cast,
    "Clip": _clip,
    "Dropout": _dropout,
    "LogSoftmax": _softmax,
    "Pad": _pad,
    "ReduceMax": _axes_as_input(18),
    "ReduceMean": _axes_as_input(18),
    "ReduceSum": _axes_as_input(13),
    "Resize": _resize,
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Squeeze": _axes_as_input(13),
    "Sum": _sum,
    "Unsqueeze": _axes_as_input(13),
    "Upsample": _resize,
}
"""Operator, as the file names it, to its rewriting."""

REPLACED = ("Sum", "Upsample")
"""Operators that files may use although `OPERATORS` lacks them: rewriting leaves none."""


def canonical(node: Node, rewriter: Rewriter) -> list[Node]:
    """The node in canonical form; most operators never changed and come back as they are."""
    rewrite = REWRITES.get(node.op)
    return [node] if rewrite is None else rewrite(node, rewriter)
