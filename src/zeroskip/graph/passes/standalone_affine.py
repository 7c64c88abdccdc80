"""Affine maps that fold into nothing become depthwise 1x1 convolutions, which fuse with what follows them."""

from __future__ import annotations

from math import prod

import numpy as np

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.passes.affine import affine_of
from zeroskip.graph.passes.editor import Editor


def affine_to_depthwise(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """BatchNormalization of images (N, C, pixels) in float32 becomes Conv with one weight per channel."""
    e = Editor(graph)
    rewritten = sum(_rewrite(node, e) for node in e.nodes())
    return e.finish(), {"rewritten": rewritten}


def _rewrite(node: Node, e: Editor) -> bool:
    affine = affine_of(node, e) if node.op == "BatchNormalization" else None
    if affine is None:
        return False
    value = e.values[affine.source]
    if value.shape is None or len(value.shape) not in (3, 4) or value.dtype != np.float32:
        return False
    channels, spatial = value.shape[1], len(value.shape) - 2
    if not isinstance(channels, int) or prod(affine.scale.shape) != channels:
        return False
    weights = affine.scale.astype(np.float32).reshape(channels, *[1] * (spatial + 1))
    inputs = (
        affine.source,
        e.add_constant(f"{node.outputs[0]}.scale", weights),
        e.add_constant(
            f"{node.outputs[0]}.shift", np.broadcast_to(affine.shift, (channels,)).astype(np.float32)
        ),
    )
    ones = (1,) * spatial
    attributes = {
        "kernel_shape": ones,
        "strides": ones,
        "dilations": ones,
        "pads": (0,) * (2 * spatial),
        "group": channels,
    }
    e.replace(node, Node("Conv", inputs, node.outputs, attributes, node.name))
    return True
