"""Operators spelled out as several, recognised: activations, layers, global pools."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.passes.editor import Editor

TOLERANCE = 1e-4
"""Relative; constants such as 1/sqrt(2) are written with few digits by some exporters."""


@dataclass
class _Product:
    """A tree of multiplications by private values: number times factors."""

    number: float = 1.0
    factors: list[str] = field(default_factory=list)


def _close(a: float | None, b: float) -> bool:
    return a is not None and math.isclose(a, b, rel_tol=TOLERANCE)


def _product(node: Node, e: Editor) -> _Product | None:
    result = _Product()
    return result if _collect(node, e, result) else None


def _collect(node: Node, e: Editor, into: _Product) -> bool:
    """Add a product to `into`; False, and nothing added, where the node is none."""
    if node.op not in ("Mul", "Div"):
        return False
    if node.op == "Div":
        divisor = e.scalar(node.inputs[1])
        if not divisor:
            return False
        into.number /= divisor
    for name in node.inputs if node.op == "Mul" else node.inputs[:1]:
        number = e.scalar(name)
        before = e.producer(name)
        if number is not None:
            into.number *= number
        elif before is None or not e.private(name) or not _collect(before, e, into):
            into.factors.append(name)
    return True


def _shifted(name: str, e: Editor, op: str, number: float) -> str | None:
    """The other operand of ``name = other (op) number``, op being Add, or Mul (also written as Div)."""
    node = e.producer(name)
    if node is None or not e.private(name):
        return None
    if op == "Mul" and node.op == "Div":
        return node.inputs[0] if _close(e.scalar(node.inputs[1]), 1 / number) else None
    if node.op != op:
        return None
    for i in (0, 1):
        if _close(e.scalar(node.inputs[i]), number):
            return node.inputs[1 - i]
    return None


def _relu6_of_x_plus_3(name: str, e: Editor) -> str | None:
    node = e.producer(name)
    if node is None or node.op != "Clip" or not e.private(name):
        return None
    if e.scalar(node.input(1)) != 0 or not _close(e.scalar(node.input(2)), 6):
        return None
    return _shifted(node.inputs[0], e, "Add", 3)


def _unary(name: str, e: Editor, op: str) -> str | None:
    """The operand of a private unary node."""
    node = e.producer(name)
    return node.inputs[0] if node is not None and node.op == op and e.private(name) else None


def _sixth_hard_sigmoid(name: str, e: Editor) -> str | None:
    node = e.producer(name)
    if node is None or node.op != "HardSigmoid" or not e.private(name):
        return None
    right = _close(node.attr("alpha", 0.2), 1 / 6) and _close(node.attr("beta", 0.5), 0.5)
    return node.inputs[0] if right else None


def _one_plus_erf(name: str, e: Editor) -> str | None:
    """x, where the value is ``1 + erf(x/√2)``."""
    inner = _shifted(name, e, "Add", 1)
    inner = _unary(inner, e, "Erf") if inner else None
    return _shifted(inner, e, "Mul", math.sqrt(0.5)) if inner else None


def _tanh_softplus(name: str, e: Editor) -> str | None:
    inner = _unary(name, e, "Tanh")
    return _unary(inner, e, "Softplus") if inner else None


_GATES = (
    ("HardSwish", 1 / 6, _relu6_of_x_plus_3),
    ("HardSwish", 1.0, _sixth_hard_sigmoid),
    ("Gelu", 0.5, _one_plus_erf),
    ("Mish", 1.0, _tanh_softplus),
)
"""Activation ``x · number · gate(x)``, its number, and the function that finds x in the gate."""


def _activation(node: Node, e: Editor) -> bool:
    found = _product(node, e)
    if found is None or not 1 <= len(found.factors) <= 2:
        return False
    out = node.outputs
    if len(found.factors) == 1:
        source = _relu6_of_x_plus_3(found.factors[0], e)
        if source is None or not _close(found.number, 1 / 6) or not _float(source, e):
            return False
        e.replace(node, Node("HardSigmoid", (source,), out, {"alpha": 1 / 6, "beta": 0.5}, node.name))
        return True
    for x, gate in (found.factors, found.factors[::-1]):
        for op, number, match in _GATES:
            if _close(found.number, number) and match(gate, e) == x and _float(x, e):
                attributes = {"approximate": "none"} if op == "Gelu" else {}
                e.replace(node, Node(op, (x,), out, attributes, node.name))
                return True
    return False


def _float(name: str, e: Editor) -> bool:
    return e.values[name].dtype.kind in "fV"


def recognise_activations(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """HardSigmoid, HardSwish, Gelu and Mish written as arithmetic become one node; so does a one-slope PRelu.

    The largest products are tried first.
    """
    e = Editor(graph)
    found = 0
    for _ in range(2):  # HardSwish may be built on a HardSigmoid that the first round finds
        found += sum(_activation(node, e) or _one_slope(node, e) for node in e.nodes(backwards=True))
    return e.finish(), {"recognised": found}


def _one_slope(node: Node, e: Editor) -> bool:
    slope = e.constant(node.inputs[1]) if node.op == "PRelu" else None
    if (
        slope is not None
        and slope.size
        and (slope == slope.reshape(-1)[0]).all()
        and _float(node.inputs[0], e)
    ):
        alpha = float(slope.reshape(-1)[0])
        e.replace(node, Node("LeakyRelu", node.inputs[:1], node.outputs, {"alpha": alpha}, node.name))
        return True
    return False


def matmul_to_gemm(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """MatMul of a matrix with constant weights is a fully connected layer."""
    e = Editor(graph)
    converted = 0
    for node in e.nodes():
        if node.op != "MatMul":
            continue
        a, b = e.values[node.inputs[0]], e.constant(node.inputs[1])
        if a.shape is not None and len(a.shape) == 2 and b is not None and b.ndim == 2:
            attributes = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
            e.replace(node, node.with_(op="Gemm", attributes=attributes))
            converted += 1
    return e.finish(), {"converted": converted}


_GLOBAL = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def reduce_to_global_pool(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """A mean or maximum over all spatial axes is a global pool (and a Flatten, where the axes go)."""
    e = Editor(graph)
    converted = 0
    for node in e.nodes():
        shape = e.values[node.inputs[0]].shape if node.op in _GLOBAL else None
        axes = e.constant(node.input(1)) if node.input(1) else None
        if shape is None or axes is None or len(shape) < 3 or not _float(node.inputs[0], e):
            continue
        if sorted(int(a) % len(shape) for a in axes.reshape(-1)) != list(range(2, len(shape))):
            continue
        converted += 1
        if node.attr("keepdims", 1):
            e.replace(node, Node(_GLOBAL[node.op], node.inputs[:1], node.outputs, {}, node.name))
            continue
        pooled = e.add_value(f"{node.outputs[0]}/pooled", None, e.values[node.inputs[0]].dtype)
        e.replace(
            node,
            Node(_GLOBAL[node.op], node.inputs[:1], (pooled,), {}, node.name),
            Node("Flatten", (pooled,), node.outputs, {"axis": 1}),
        )
    return e.finish(), {"converted": converted}


def merge_pads(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Zero padding in front of a convolution becomes the convolution's own."""
    e = Editor(graph)
    count = 0
    for node in e.nodes():
        pad = e.producer(node.inputs[0]) if node.op == "Conv" else None
        if pad is None or pad.op != "Pad":
            continue
        amounts = _zero_pads(pad, e)
        explicit = node.attr("auto_pad", "NOTSET") == "NOTSET" or node.attr("auto_pad") == "VALID"
        if amounts is None or not explicit:
            continue
        rank = len(amounts) // 2
        own = (
            (0,) * 2 * rank
            if node.attr("auto_pad") == "VALID"
            else tuple(node.attr("pads") or (0,) * 2 * rank)
        )
        attributes = {k: v for k, v in node.attributes.items() if k != "auto_pad"}
        pads = tuple(a + b for a, b in zip(own, amounts))
        merged = node.with_(inputs=(pad.inputs[0], *node.inputs[1:]), attributes={**attributes, "pads": pads})
        e.replace(node, merged)
        count += 1
    return e.finish(), {"merged": count}


def _zero_pads(pad: Node, e: Editor) -> tuple[int, ...] | None:
    """Spatial pads (begins, then ends) of a constant zero Pad; None where it is anything else."""
    amounts, shape = e.constant(pad.inputs[1]), e.values[pad.inputs[0]].shape
    if pad.attr("mode", "constant") != "constant" or amounts is None or shape is None:
        return None
    if pad.input(2) and e.scalar(pad.inputs[2]) != 0:
        return None
    rank = len(shape)
    full = np.zeros((2, rank), np.int64)
    if pad.input(3):
        axes = e.constant(pad.inputs[3])
        if axes is None:
            return None
        full[:, axes.reshape(-1) % rank] = amounts.reshape(2, -1)
    else:
        full[:] = amounts.reshape(2, -1)
    if full[:, :2].any() or full.min() < 0:
        return None
    return tuple(int(a) for a in full[:, 2:].reshape(-1))
