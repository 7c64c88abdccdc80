"""Kernel rows and columns that only ever meet padding: a 3x3 of dilation 24 over 16x16 pixels is a 1x1."""

from __future__ import annotations

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.passes.editor import Editor


def crop_kernels(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Convolutions without the taps that read nothing but padding; all shapes are known."""
    e = Editor(graph)
    cropped = sum(node.op == "Conv" and _crop(node, e) for node in e.nodes())
    return e.finish(), {"cropped": cropped}


def _crop(node: Node, e: Editor) -> bool:
    weights = e.constants.get(node.inputs[1])
    if weights is None:
        return False
    axes = weights.ndim - 2
    pads, strides, dilations = (list(node.attr(key)) for key in ("pads", "strides", "dilations"))
    kept = [slice(None), slice(None)]
    for axis in range(axes):
        size, outputs = (e.values[name].sizes[2 + axis] for name in (node.inputs[0], node.outputs[0]))
        step = dilations[axis]
        kept.append(_alive(size, outputs, weights.shape[2 + axis], pads[axis], strides[axis], step))
        pads[axis] -= kept[-1].start * step
        pads[axis + axes] -= (weights.shape[2 + axis] - kept[-1].stop) * step
    cropped = np.ascontiguousarray(weights[tuple(kept)])
    if cropped.shape == weights.shape or min(pads) < 0:
        return False
    inputs = (node.inputs[0], e.add_constant(f"{node.inputs[1]}.cropped", cropped), *node.inputs[2:])
    attributes = {**node.attributes, "pads": tuple(pads), "kernel_shape": cropped.shape[2:]}
    e.replace(node, node.with_(inputs=inputs, attributes=attributes))
    return True


def _alive(size: int, outputs: int, taps: int, pad: int, stride: int, dilation: int) -> slice:
    """The taps along an axis from the first to the last that reads a pixel."""
    first = [tap * dilation - pad for tap in range(taps)]  # what the first output reads
    inside = [max(0, -(place // stride)) for place in first]  # the first output that reads at or behind 0
    alive = [tap for tap in range(taps) if inside[tap] < outputs and first[tap] + inside[tap] * stride < size]
    return slice(alive[0], alive[-1] + 1) if alive else slice(0, taps)
