"""Channel shuffles (Zhang et al., CVPR 2018), which ONNX spells with two reshapes and a transposition."""

from __future__ import annotations

import numpy as np

from zeroskip.graph.ir import Graph, Node, Shape
from zeroskip.graph.passes.editor import Editor

_SWAP = (0, 2, 1)


def shuffles_to_gather(graph: Graph) -> tuple[Graph, dict[str, int]]:
    """Reshape to (N, groups, channels, ...), Transpose and Reshape back: a Gather of channels."""
    e = Editor(graph)
    found = sum(node.op == "Reshape" and _rewrite(node, e) for node in e.nodes())
    return e.finish(), {"found": found}


def _rewrite(last: Node, e: Editor) -> bool:
    swap = _private(last.inputs[0], "Transpose", e)
    first = _private(swap.inputs[0], "Reshape", e) if swap is not None else None
    if swap is None or first is None:
        return False
    x, apart, y = (e.values[name].shape for name in (first.inputs[0], first.outputs[0], last.outputs[0]))
    groups = _groups(x, apart, y)
    if groups is None or tuple(swap.attr("perm") or ()) != (*_SWAP, *range(3, len(apart or ()))):
        return False
    order = np.arange(groups[0] * groups[1]).reshape(groups).T.reshape(-1)
    indices = e.add_constant(f"{last.outputs[0]}/channels", order.astype(np.int64))
    e.replace(last, Node("Gather", (first.inputs[0], indices), last.outputs, {"axis": 1}, last.name))
    return True


def _private(name: str, op: str, e: Editor) -> Node | None:
    node = e.producer(name)
    return node if node is not None and node.op == op and e.private(name) else None


def _groups(x: Shape | None, apart: Shape | None, y: Shape | None) -> tuple[int, int] | None:
    """(groups, channels of each), where only the channels of `x` are split, and put together in `y`."""
    if x is None or apart is None or y is None or len(x) < 3 or len(apart) != len(x) + 1 or y != x:
        return None
    if None in x or (apart[0], *apart[3:]) != (x[0], *x[2:]):
        return None
    groups, channels = apart[1:3]
    return (groups, channels) if isinstance(groups, int) and isinstance(channels, int) else None
