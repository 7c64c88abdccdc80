"""Per-channel scales and shifts (BatchNormalization, Mul, Add, Sub, Div) folded into convolutions and Gemm.

Writing A for the linear layer, s for the scale and t for the shift, both one number per channel:
after it, ``s·(A x + b) + t = (s·A) x + (s·b + t)``; before it, ``A (s·x + t) + b = (A·s) x + (A t + b)``,
which zero padding spoils unless t is 0, because the padding lies after the shift. Numbers are computed in
float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operator import Array
from zeroskip.graph.passes.editor import Editor

_LINEAR = ("Conv", "ConvTranspose", "Gemm")


@dataclass(frozen=True)
class Affine:
    """``scale · source + shift``, each of one element or of one per channel, in float64."""

    source: str
    scale: Array
    shift: Array


def affine_of(node: Node, e: Editor) -> Affine | None:
    """What the node does as a per-channel affine map of one input; None where it is something else."""
    if node.op == "BatchNormalization":
        return _batch_normalization(node, e)
    if node.op not in ("Mul", "Add", "Sub", "Div"):
        return None
    first, second = node.inputs
    swapped = first in e.constants
    source, name = (second, first) if swapped else (first, second)
    number = _per_channel(source, name, e)
    if number is None:
        return None
    one, zero = np.ones(1), np.zeros(1)
    if node.op == "Mul":
        return Affine(source, number, zero)
    if node.op == "Add":
        return Affine(source, one, number)
    if node.op == "Sub":
        return Affine(source, -one, number) if swapped else Affine(source, one, -number)
    return None if swapped or not number.all() else Affine(source, 1 / number, zero)


def _batch_normalization(node: Node, e: Editor) -> Affine | None:
    arrays = [e.constant(name) for name in node.inputs[1:]]
    if node.attr("training_mode", 0) or any(array is None for array in arrays):
        return None
    scale, shift, mean, variance = (np.asarray(array, np.float64) for array in arrays)
    spread = variance + node.attr("epsilon", 1e-5)
    if not (spread > 0).all():
        return None
    factor = scale / np.sqrt(spread)
    return Affine(node.inputs[0], factor, shift - mean * factor)


def _per_channel(source: str, name: str, e: Editor) -> Array | None:
    """A constant operand as numbers per channel (axis 1) of `source`; None where it varies otherwise."""
    array, value = e.constant(name), e.values[source]
    if array is None or source in e.constants or value.shape is None or value.dtype.kind not in "fV":
        return None
    rank = len(value.shape)
    if rank < 2 or array.ndim > rank:
        return None
    full = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for axis, d in enumerate(full) if axis != 1):
        return None
    if full[1] != 1 and full[1] != value.shape[1]:
        return None
    return np.asarray(array, np.float64).reshape(-1)


def _weighted(e: Editor, node: Node) -> bool:
    """Whether the node is a linear layer whose weights and bias are constant."""
    if node.op not in _LINEAR or node.input(1) not in e.constants:
        return False
    return not node.input(2) or node.input(2) in e.constants


def _scaled(weights: Array, factors: Array) -> Array:
    """``weights · factors`` in the type of `weights`, rounded once."""
    return np.multiply(weights, factors, out=np.empty_like(weights), dtype=np.float64, casting="same_kind")


def _fold_after(node: Node, e: Editor) -> bool:
    """Fold an affine node into the linear layer that it follows."""
    affine = affine_of(node, e)
    if affine is None or not e.private(affine.source):
        return False
    layer = e.producer(affine.source)
    if layer is None or not _weighted(e, layer) or layer.attr("activation") or layer.input(3):
        return False
    w = e.constants[layer.inputs[1]]
    axes = _output_axes(layer, w)
    channels = int(np.prod([w.shape[a] for a in axes])) * _groups_beyond(layer)
    scale = np.broadcast_to(affine.scale, (channels,))
    shift = np.broadcast_to(affine.shift, (channels,))
    bias = _bias(layer, e)
    factor = layer.attr("alpha", 1.0) if layer.op == "Gemm" else 1.0
    new_weights = w if (scale == 1).all() and factor == 1 else _scaled(w, _spread(layer, w, scale * factor))
    _rewrite(e, node, layer, layer.inputs[0], new_weights, bias * scale + shift)
    return True


def _output_axes(layer: Node, w: Array) -> tuple[int, ...]:
    if layer.op == "Gemm":
        return (0,) if layer.attr("transB", 0) else (1,)
    return (0,) if layer.op == "Conv" else (1,)


def _groups_beyond(layer: Node) -> int:
    """ConvTranspose keeps output channels per group only, so its weights lack this factor."""
    return int(layer.attr("group", 1)) if layer.op == "ConvTranspose" else 1


def _spread(layer: Node, w: Array, scale: Array) -> Array:
    """Numbers per output channel, shaped to multiply the weights."""
    if layer.op == "Gemm":
        return scale.reshape(-1, 1) if layer.attr("transB", 0) else scale
    ones = (1,) * (w.ndim - 2)
    if layer.op == "Conv":
        return scale.reshape(-1, 1, *ones)
    per_group = np.repeat(
        scale.reshape(layer.attr("group", 1), -1), w.shape[0] // layer.attr("group", 1), axis=0
    )
    return per_group.reshape(w.shape[0], w.shape[1], *ones)


def _bias(layer: Node, e: Editor) -> Array:
    if not layer.input(2):
        return np.zeros(1)
    bias = e.constants[layer.inputs[2]].astype(np.float64)
    return bias * layer.attr("beta", 1.0) if layer.op == "Gemm" else bias


def _rewrite(e: Editor, place: Node, layer: Node, source: str, weights: Array, bias: Array) -> None:
    """Put the layer with new weights and bias at `place`, computing what `place` computed."""
    old = layer.inputs[1]
    w = old if weights is e.constants[old] else e.add_constant(f"{old}/folded", weights)
    attributes = dict(layer.attributes)
    if layer.op == "Gemm":
        attributes |= {"alpha": 1.0, "beta": 1.0}
    name = ""
    if layer.input(2) or bias.any():
        base = layer.input(2) or f"{layer.outputs[0]}/bias"
        name = e.add_constant(f"{base}/folded", bias.astype(weights.dtype))
    inputs = (source, w, name, *layer.inputs[3:])
    while not inputs[-1]:
        inputs = inputs[:-1]
    e.replace(place, layer.with_(inputs=inputs, outputs=place.outputs, attributes=attributes))


def _fold_before(node: Node, e: Editor) -> bool:
    """Fold an affine node into the convolution or Gemm that alone reads it."""
    affine = affine_of(node, e)
    layer = e.only_reader(node.outputs[0])
    if affine is None or layer is None or layer.op not in ("Conv", "Gemm") or not _weighted(e, layer):
        return False
    if layer.inputs[0] != node.outputs[0] or layer.attr("transA", 0):
        return False
    if affine.shift.any() and not _unpadded(layer):
        return False
    w = e.constants[layer.inputs[1]]
    factor = layer.attr("alpha", 1.0) if layer.op == "Gemm" else 1.0
    inputs = _per_input(layer, w, affine.scale * factor)
    moved = _per_input(layer, w, affine.shift * factor)
    if layer.op == "Gemm":
        extra = (w.astype(np.float64) * moved).sum(axis=1 if layer.attr("transB", 0) else 0)
    else:
        extra = (w.astype(np.float64) * moved).reshape(w.shape[0], -1).sum(axis=1)
    bias = _bias(layer, e) + (extra if affine.shift.any() else 0)
    _rewrite(
        e, layer, layer, affine.source, _scaled(w, inputs), np.broadcast_to(bias, _bias_shape(bias, w, layer))
    )
    return True


def _bias_shape(bias: Array, w: Array, layer: Node) -> tuple[int, ...]:
    """A convolution's bias is a vector of all channels; Gemm's may be anything that broadcasts."""
    return (w.shape[0],) if layer.op == "Conv" else bias.shape


def _unpadded(layer: Node) -> bool:
    return layer.op == "Gemm" or (
        not any(layer.attr("pads") or ()) and layer.attr("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    )


def _per_input(layer: Node, w: Array, numbers: Array) -> Array:
    """Numbers per input channel, shaped to multiply the weights."""
    if layer.op == "Gemm":
        return numbers if layer.attr("transB", 0) else numbers.reshape(-1, 1)
    if numbers.size == 1:
        return numbers.reshape((1,) * w.ndim)
    group = layer.attr("group", 1)
    rows = np.repeat(numbers.reshape(group, -1), w.shape[0] // group, axis=0)
    return rows.reshape(w.shape[0], w.shape[1], *(1,) * (w.ndim - 2))


def _merge(node: Node, e: Editor) -> bool:
    """Two affine nodes in a row as one BatchNormalization of mean 0 and variance 1."""
    last = affine_of(node, e)
    before = e.producer(last.source) if last is not None and e.private(last.source) else None
    first = affine_of(before, e) if before is not None else None
    if last is None or first is None:
        return False
    value = e.values[first.source]
    channels = value.shape[1] if value.shape is not None else None
    if not isinstance(channels, int):
        return False
    numbers = {
        "scale": last.scale * first.scale,
        "shift": last.scale * first.shift + last.shift,
        "mean": np.zeros(1),
        "variance": np.ones(1),
    }
    names = tuple(
        e.add_constant(f"{node.outputs[0]}/{key}", np.broadcast_to(array, (channels,)).astype(value.dtype))
        for key, array in numbers.items()
    )
    attributes = {"epsilon": 0.0}
    inputs = (first.source, *names)
    e.replace(node, Node("BatchNormalization", inputs, node.outputs, attributes, node.name))
    return True


def fold_affine(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Fold what follows a linear layer into it, then what precedes one; what is left in a row becomes one."""
    e = Editor(graph)
    after = sum(_fold_after(node, e) for node in e.nodes())
    before = sum(_fold_before(node, e) for node in e.nodes(backwards=True))
    merged = sum(_merge(node, e) for node in e.nodes())
    return e.finish(), {"after": after, "before": before, "merged": merged}
