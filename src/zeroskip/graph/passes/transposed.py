"""Transposed convolutions become convolutions whose channels are then spread over space.

With stride s, tap m*s + a of a transposed kernel contributes to output pixels a, a + s, a + 2s ...: these
are an ordinary convolution with taps a, s + a, 2s + a ..., mirrored. Depth-to-space interleaves the s*s of
them ("sub-pixel convolution", Shi et al. 2016). Where s does not divide the kernel's size, zeros fill it up.
"""

from __future__ import annotations

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operator import Array
from zeroskip.graph.operators.window import window_of
from zeroskip.graph.passes.editor import Editor

_LAST = 2**62


def transposed_to_convolution(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """ConvTranspose with constant weights becomes Conv, DepthToSpace and, where pads are left over, Slice.

    Not where it is dilated, or not 2-D with one stride for both axes, or padded by more than its kernel.
    """
    e = Editor(graph)
    rewritten = sum(node.op == "ConvTranspose" and _rewrite(node, e) for node in e.nodes())
    return e.finish(), {"rewritten": rewritten}


def _rewrite(node: Node, e: Editor) -> bool:
    w = e.constant(node.inputs[1])
    bias = e.constant(node.input(2)) if node.input(2) else None
    if w is None or w.ndim != 4 or (node.input(2) and bias is None) or node.attr("output_shape"):
        return False
    window = window_of(node, w.shape[2:])
    stride = window.strides[0]
    explicit = window.auto == "NOTSET" or (window.auto == "VALID" and not any(window.begins + window.ends))
    if not explicit or window.strides != (stride, stride) or max(window.dilations) > 1:
        return False
    taps = [-(-size // stride) for size in window.kernel]
    extra = node.attr("output_padding") or (0, 0)
    # what begins and ends too late, in pixels of the output: whole strides are taken off the input's padding
    before = window.begins
    after = [m * stride - r + p - o for m, r, p, o in zip(taps, window.kernel, window.ends, extra)]
    pads = [m - 1 - p // stride for late in (before, after) for m, p in zip(taps, late)]
    if min(pads) < 0:
        return False
    group = int(node.attr("group", 1))
    weights = e.add_constant(f"{node.inputs[1]}/phases", _phases(w, stride, group))
    phases = stride * stride
    inputs = [node.inputs[0], weights]
    if bias is not None:
        inputs.append(e.add_constant(f"{node.input(2)}/phases", np.repeat(bias, phases)))
    attributes = {
        "kernel_shape": tuple(taps),
        "strides": (1, 1),
        "dilations": (1, 1),
        "pads": tuple(pads),
        "group": group,
    }
    if node.attr("activation"):
        attributes["activation"] = node.attr("activation")
    steps = [Node("Conv", tuple(inputs), (), attributes, node.name)]
    if stride > 1:
        steps.append(Node("DepthToSpace", (), (), {"blocksize": stride, "mode": "CRD"}))
    crops = [p % stride for p in (*before, *after)]
    if any(crops):
        starts, ends = crops[:2], [-crop or _LAST for crop in crops[2:]]
        bounds = [
            e.add_constant(f"{node.outputs[0]}/{name}", np.array(numbers, np.int64))
            for name, numbers in (("starts", starts), ("ends", ends), ("axes", (2, 3)))
        ]
        steps.append(Node("Slice", ("", *bounds), ()))
    e.replace(node, *_chained(steps, node, e))
    return True


def _phases(w: Array, stride: int, group: int) -> Array:
    """Weights (C, K/g, R, S) as those of the phases, (K * stride**2, C/g, M, M'), mirrored."""
    channels, outputs, *size = w.shape
    missing = [(0, -extent % stride) for extent in size]
    w = np.pad(w, ((0, 0), (0, 0), *missing))
    rows, columns = (extent // stride for extent in w.shape[2:])
    split = w.reshape(group, channels // group, outputs, rows, stride, columns, stride)
    phases = split.transpose(0, 2, 4, 6, 1, 3, 5)[..., ::-1, ::-1]
    return np.ascontiguousarray(phases).reshape(-1, channels // group, rows, columns)


def _chained(steps: list[Node], node: Node, e: Editor) -> list[Node]:
    """The nodes with each one's output as the next one's first input; the last computes what `node` did."""
    chained: list[Node] = []
    for number, step in enumerate(steps):
        inputs = (chained[-1].outputs[0], *step.inputs[1:]) if chained else step.inputs
        last = number == len(steps) - 1
        output = (
            node.outputs[0]
            if last
            else e.add_value(f"{node.outputs[0]}/{step.op}", None, e.values[node.inputs[0]].dtype)
        )
        chained.append(step.with_(inputs=inputs, outputs=(output,)))
    return chained
