"""Nodes that change nothing, and nodes that nobody reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from zeroskip.graph.dtypes import dtype_of
from zeroskip.graph.infer import infer_node
from zeroskip.graph.ir import Graph, Node, Shape
from zeroskip.graph.passes.editor import Editor


def equal_shapes(a: Shape | None, b: Shape | None) -> bool:
    """Whether two shapes are certainly equal: size by size the same number or the same symbol."""
    return a is not None and a == b and None not in a


def _same_shape(node: Node, e: Editor) -> bool:
    return equal_shapes(e.values[node.inputs[0]].shape, e.values[node.outputs[0]].shape)


def _dropout(node: Node, e: Editor) -> bool:
    training = e.constant(node.input(2)) if node.input(2) else np.zeros(())
    return training is not None and not training.any()


def _cast(node: Node, e: Editor) -> bool:
    return e.values[node.inputs[0]].dtype == dtype_of(node.attr("to"), "Cast")


def _transpose(node: Node, e: Editor) -> bool:
    perm = node.attr("perm")
    if perm is None:
        shape = e.values[node.inputs[0]].shape
        return shape is not None and len(shape) < 2
    return tuple(perm) == tuple(range(len(perm)))


def _pad(node: Node, e: Editor) -> bool:
    pads = e.constant(node.input(1))
    return pads is not None and not pads.any()


def _single(node: Node, e: Editor) -> bool:
    return len(node.inputs) == 1


def _clip(node: Node, e: Editor) -> bool:
    return not any(node.inputs[1:])


def _resize(node: Node, e: Editor) -> bool:
    crops = node.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    floors = node.attr("coordinate_transformation_mode") == "tf_half_pixel_for_nn"
    scales = e.constant(node.input(2)) if node.input(2) else None
    exact = scales is None or bool((scales == 1).all())
    return not crops and not floors and exact and _same_shape(node, e) and e.values[node.outputs[0]].static


def _slice(node: Node, e: Editor) -> bool:
    steps = e.constant(node.input(4)) if node.input(4) else np.ones(1)
    return steps is not None and bool((steps == 1).all()) and _same_shape(node, e)


def _always(node: Node, e: Editor) -> bool:
    return True


NOTHING_DONE: Mapping[str, Callable[[Node, Editor], bool]] = {
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _single,
    "Dropout": _dropout,
    "Expand": _same_shape,
    "Flatten": _same_shape,
    "Identity": _always,
    "Max": _single,
    "Min": _single,
    "Pad": _pad,
    "Reshape": _same_shape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": lambda node, e: len(node.outputs) == 1,
    "Squeeze": _same_shape,
    "Transpose": _transpose,
    "Unsqueeze": _same_shape,
}
"""Operator to the test whether a node only passes its first input on."""


def drop_no_ops(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Take away nodes whose output is their input; merge chains of reshapes and of transposes."""
    e = Editor(graph)
    dropped = merged = 0
    for node in e.nodes():
        test = NOTHING_DONE.get(node.op)
        if test is not None and test(node, e):
            dropped += e.bypass(node, node.inputs[0])
        elif node.op in ("Reshape", "Flatten", "Transpose"):
            merged += _merge(node, e)
    return e.finish(), {"dropped": dropped, "merged": merged}


def _merge(node: Node, e: Editor) -> bool:
    """Join a reshape or transpose with one right before it."""
    before = e.producer(node.inputs[0])
    if before is None:
        return False
    if node.op == "Transpose":
        first, second = before.attr("perm"), node.attr("perm")
        if before.op != "Transpose" or first is None or second is None:
            return False
        perm = tuple(first[i] for i in second)
        joined = node.with_(inputs=before.inputs, attributes={"perm": perm})
    else:
        if before.op not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze"):
            return False
        joined = node.with_(inputs=(before.inputs[0], *node.inputs[1:]))
        if not _keeps_meaning(node, joined, e):
            return False
    e.replace(node, joined)
    if joined.op == "Transpose" and _transpose(joined, e):
        e.bypass(joined, joined.inputs[0])
    return True


def _keeps_meaning(node: Node, joined: Node, e: Editor) -> bool:
    """Whether a reshape still means the same shape where its input is another one with as many numbers."""
    if node.op == "Flatten":
        flat = infer_node(joined, e.values, e.constants)[0].shape
        return equal_shapes(flat, e.values[node.outputs[0]].shape)
    sizes = e.constant(node.inputs[1])
    return sizes is not None and bool((sizes != 0).all())  # 0 copies a size of the input


def drop_dead(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Take away nodes that no output needs, and constants that no node reads."""
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(out in needed for out in node.outputs if out):
            needed.update(node.inputs)
            kept.append(node)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    removed = len(graph.nodes) - len(kept)
    if not removed and len(constants) == len(graph.constants):
        return graph, {"nodes": 0, "constants": 0}
    defined = {*graph.inputs, *constants, *(out for node in kept for out in node.outputs)}
    values = {name: value for name, value in graph.values.items() if name in defined}
    stats = {"nodes": removed, "constants": len(graph.constants) - len(constants)}
    return graph.with_(nodes=tuple(reversed(kept)), constants=constants, values=values), stats
