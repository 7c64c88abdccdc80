"""Pointwise convolutions before depthwise ones in chunks of channels, so that what lies between stays near.

A depthwise convolution needs nothing of the other channels: a few planes are made, used at once, and their
memory serves the next few. At 112x112 pixels 96 channels take 4.8 MB, which would be written to and read from
the last cache, or memory, for three or four multiply-adds each.
"""

from __future__ import annotations

from math import prod

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.passes.editor import Editor

# Register tiles have up to so many output channels.
MULTIPLE = 8


def in_chunks(graph: Graph, between_bytes: int) -> tuple[Graph, dict[str, int]]:
    """Split pairs with more than `between_bytes` between them; all shapes are known."""
    e = Editor(graph)
    split = sum(_split(node, e, between_bytes) for node in e.nodes())
    return e.finish(), {"split": split}


def _split(last: Node, e: Editor, between_bytes: int) -> bool:
    """Whether `last` and what it reads became chunks, whose outputs are concatenated."""
    first = e.producer(last.inputs[0]) if _plain_conv(last, e) else None
    if first is None or not _plain_conv(first, e) or not e.private(first.outputs[0]):
        return False
    wide, deep = e.constants[first.inputs[1]], e.constants[last.inputs[1]]
    pointwise = (
        first.attr("group", 1) == 1 and prod(wide.shape[2:]) == 1 and set(first.attr("strides")) == {1}
    )
    if not pointwise or last.attr("group", 1) != len(wide):
        return False
    between, source = (4 * prod(e.values[name].sizes) for name in (first.outputs[0], first.inputs[0]))
    channels = len(wide)
    chunk = _chunk(channels, between, source, between_bytes)
    if chunk is None:
        return False
    count = -(-channels // chunk)
    nodes, parts = [], []
    for number in range(count):
        cut = slice(number * chunk, min((number + 1) * chunk, channels))
        made = _part(first, e, first.inputs[0], cut, 1, number, count)
        used = _part(last, e, made.outputs[0], cut, len(deep) // channels, number, count)
        nodes += [made, used]
        parts.append(used.outputs[0])
    e.replace(last, *nodes, Node("Concat", tuple(parts), last.outputs, {"axis": 1}, f"{last.name} (all)"))
    return True


def _chunk(channels: int, between: int, source: int, between_bytes: int) -> int | None:
    """How many channels to do at once: half of what may lie between, or all of it, or None for all channels.

    Every chunk reads the source again: the larger ones are for sources that would be read too often.
    """
    if between <= between_bytes:
        return None
    for share in (2, 1):
        chunk = -(-channels * between_bytes // between // share // MULTIPLE) * MULTIPLE
        again = -(-channels // chunk) - 1
        if again > 0 and again * source <= 2 * between:
            return chunk
    return None


def _plain_conv(node: Node, e: Editor) -> bool:
    """A float32 convolution with constant weights and nothing added."""
    if node.op != "Conv" or node.input(3) or node.inputs[1] not in e.constants:
        return False
    bias = node.input(2)
    return (not bias or bias in e.constants) and e.values[node.outputs[0]].dtype == np.float32


def _part(node: Node, e: Editor, source: str, cut: slice, each: int, number: int, count: int) -> Node:
    """The node for the channels of a cut, of which each has `each` filters."""
    filters = slice(cut.start * each, cut.stop * each)
    base = node.outputs[0]
    constants = [e.constants[name][filters] for name in (node.inputs[1], node.input(2)) if name]
    weights = [e.add_constant(f"{base}.part", np.ascontiguousarray(array)) for array in constants]
    images, _, *size = e.values[base].sizes
    output = e.add_value(f"{base}.part", (images, filters.stop - filters.start, *size), np.dtype(np.float32))
    group = cut.stop - cut.start if node.attr("group", 1) > 1 else 1
    name = node.name if number == 0 else f"{node.name} ({number + 1}/{count})"
    return Node("Conv", (source, *weights), (output,), {**node.attributes, "group": group}, name)
