"""What can be pruned: every layer that multiplies by constant weights, seen as rows of a matrix.

A convolution with G groups is G matrix products: row k of group g holds the taps ``w[k, c, r, s]`` of one
output channel, flattened to ``D = C/G * R * S``, and the layer's inputs are unrolled to columns of the same
order. Fully connected layers (``Gemm``, ``MatMul``) are the case G = 1 without unrolling. ``Rows`` below are
always ``[G, K/G, D]``; `columns` are ``[G, positions, D]``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.errors import InputError, ModelError
from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operator import Array
from zeroskip.graph.operators.window import Window, output_sizes, padded, resolve_pads, window_of

ROLES = ("first", "depthwise", "classifier")
"""What `spare` may name: layers with no layer before them, convolutions of one channel per group, layers with
no layer behind them."""

LAYER_OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """One layer with constant weights; `weight` names its constant, `shared` says that others read it too."""

    name: str
    node: Node
    weight: str
    shape: tuple[int, ...]
    groups: int
    roles: tuple[str, ...]
    shared: bool

    @property
    def size(self) -> int:
        """How many weights it has, zero or not."""
        return math.prod(self.shape)

    @property
    def residual(self) -> str:
        """The value that a fused convolution adds to its output, or ``""``."""
        return self.node.input(3) if self.node.op == "Conv" else ""


def find_layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers of `graph` that have constant, floating-point weights, in the order of its nodes.

    Raises `ModelError` where a weight is NaN or infinite.
    """
    readers = graph.consumers()
    nodes = [node for node in graph.nodes if _has_weights(graph, node)]
    roles = _roles(graph, nodes)
    layers: list[Layer] = []
    for index, node in enumerate(nodes):
        if any(layer.weight == node.input(1) for layer in layers):
            continue  # the first reader stands for all
        weight = graph.constants[node.input(1)]
        if not np.isfinite(weight).all():
            raise ModelError(
                f"weight '{node.input(1)}' of {node.op} '{_name(node)}' has NaN or infinite values; "
                "expected finite ones; export the model from a checkpoint that trained without overflow"
            )
        name = _name(node)
        layers.append(
            Layer(
                name=f"{name}#{index}" if any(layer.name == name for layer in layers) else name,
                node=node,
                weight=node.input(1),
                shape=tuple(weight.shape),
                groups=int(node.attr("group", 1)) if node.op == "Conv" else 1,
                roles=roles[node.outputs[0]],
                shared=len(readers[node.input(1)]) > 1 or node.input(1) in graph.outputs,
            )
        )
    return tuple(layers)


def _name(node: Node) -> str:
    return node.name or node.outputs[0]


def _has_weights(graph: Graph, node: Node) -> bool:
    if node.op not in LAYER_OPERATORS:
        return False
    weight = graph.constants.get(node.input(1))
    if weight is None or node.input(0) in graph.constants or weight.dtype.kind != "f":
        return False
    return weight.ndim >= 3 if node.op == "Conv" else weight.ndim == 2


def _roles(graph: Graph, nodes: Iterable[Node]) -> dict[str, tuple[str, ...]]:
    """The roles of each layer, keyed by its first output."""
    layers = {node.outputs[0]: node for node in nodes}
    behind: set[str] = set()  # values computed from some layer's output
    inner: set[str] = set()  # layers that have a layer before them
    for node in graph.nodes:
        if any(name in behind for name in node.inputs):
            behind.update(node.outputs)
            inner.update(name for name in node.outputs if name in layers)
        if node.outputs[0] in layers:
            behind.update(node.outputs)
    before: set[str] = set()  # values that some layer reads, directly or not
    for node in reversed(graph.nodes):
        if node.outputs[0] in layers or any(name in before for name in node.outputs):
            before.update(node.inputs)
    found = {}
    for output, node in layers.items():
        shape = graph.constants[node.input(1)].shape
        held = {
            "first": output not in inner,
            "depthwise": node.op == "Conv" and node.attr("group", 1) > 1 and shape[1] == 1,
            "classifier": output not in before,
        }
        found[output] = tuple(role for role in ROLES if held[role])
    return found


def to_rows(layer: Layer, weight: Array) -> Array:
    """The stored weights as rows ``[G, K/G, D]`` (a view where possible), scaled as they act on the input."""
    if layer.node.op == "Conv":
        return weight.reshape(layer.groups, weight.shape[0] // layer.groups, -1)
    rows = weight if layer.node.op == "Gemm" and layer.node.attr("transB", 0) else weight.T
    scaled: Array = rows[np.newaxis] * weight.dtype.type(layer.node.attr("alpha", 1.0))
    return scaled


def from_rows(layer: Layer, rows: Array) -> Array:
    """The inverse of `to_rows` in float, in the stored shape."""
    alpha = layer.node.attr("alpha", 1.0)
    return as_stored(layer, rows if layer.node.op == "Conv" or not alpha else rows / alpha)


def as_stored(layer: Layer, rows: Array) -> Array:
    """Rows, or a mask of them, in the shape of the stored weights."""
    if layer.node.op == "Conv" or layer.node.attr("transB", 0):
        return rows.reshape(layer.shape)
    return np.ascontiguousarray(rows[0].T)


def bias_rows(layer: Layer, graph: Graph) -> Array | None:
    """The bias as ``[G, K/G]``, zeros where the layer has none yet; ``None`` where it cannot be refitted.

    It cannot where the operator has no bias (``MatMul``), where the bias is computed, is not one number per
    output channel, or is read by another node as well.
    """
    node, name = layer.node, layer.node.input(2)
    channels = layer.shape[0] if node.op == "Conv" or node.attr("transB", 0) else layer.shape[1]
    if node.op == "MatMul" or node.attr("beta", 1.0) == 0:
        return None
    if not name:
        return np.zeros((layer.groups, channels // layer.groups))
    bias = graph.constants.get(name)
    if bias is None or (bias.size != channels) or len(graph.consumers()[name]) > 1:
        return None
    full: Array = np.broadcast_to(bias.reshape(-1), (channels,)) * bias.dtype.type(node.attr("beta", 1.0))
    return full.reshape(layer.groups, -1)


def output_positions(layer: Layer, x_shape: tuple[int, ...]) -> int:
    """How many output positions (rows of the matrix product) one image of ``x_shape`` has."""
    if layer.node.op == "Conv":
        return math.prod(_window(layer, x_shape)[1])
    return math.prod(x_shape[1:-1]) if layer.node.op == "MatMul" else 1


def columns(layer: Layer, x: Array, chosen: Array | None) -> Array:
    """The inputs as ``[G, positions, D]``: what each output position multiplies by the rows.

    `x` is the layer's input. `chosen`, int ``[N, m]``, picks m output positions of each image (an index into
    the flattened output plane); ``None`` takes all of them. Only the chosen positions are unrolled.
    """
    if layer.node.op == "Conv":
        return _unroll(layer, x, chosen)
    if layer.node.op == "Gemm":
        return (x.T if layer.node.attr("transA", 0) else x)[np.newaxis]
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    picked = flat if chosen is None else np.take_along_axis(flat, chosen[:, :, np.newaxis], 1)
    return picked.reshape(1, -1, x.shape[-1])


def _unroll(layer: Layer, x: Array, chosen: Array | None) -> Array:
    """im2col of the chosen positions, for any number of spatial dimensions."""
    window, sizes = _window(layer, x.shape)
    axes, images, channels = tuple(range(2, x.ndim)), len(x), x.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(padded(x, window, sizes, 0), window.extents, axes)
    steps = (*window.strides, *window.dilations)
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in steps))]
    if chosen is None:
        chosen = np.broadcast_to(np.arange(math.prod(sizes)), (images, math.prod(sizes)))
    # Indexing image and position together puts [N, m] first, then channels and kernel taps.
    where: Any = (np.arange(images)[:, np.newaxis], slice(None), *np.unravel_index(chosen, sizes))
    depth = channels // layer.groups * math.prod(window.kernel)
    grouped = windows[where].reshape(chosen.size, layer.groups, depth)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def _window(layer: Layer, x_shape: tuple[int, ...]) -> tuple[Window, tuple[int, ...]]:
    """A convolution's window with its pads for this input, and the output sizes."""
    window = resolve_pads(window_of(layer.node, layer.shape[2:]), x_shape[2:])
    return window, tuple(size for size in output_sizes(window, x_shape[2:]) if isinstance(size, int))


def check_names(layers: Iterable[Layer], names: Iterable[str]) -> None:
    """Raise `InputError` with the nearest known name where a name is no layer's."""
    known = [layer.name for layer in layers]
    for name in names:
        if name not in known:
            raise InputError(f"unknown layer '{name}' in per_layer; {nearest(name, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase that helps with a misspelt name: the nearest known one, or all of them."""
    from difflib import get_close_matches

    names = list(known)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{close[0]}'?"
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"expected one of: {listed or 'none exist here'}"
