"""The network as it is lowered: bound to shapes, simplified, in pieces that suit the machine's caches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from zeroskip.codegen.target import SECOND_CACHE
from zeroskip.graph import Graph, bind, simplify
from zeroskip.graph.passes.chunks import in_chunks
from zeroskip.graph.passes.cropping import crop_kernels

# What is made and used at once is to leave some of the second cache to inputs and weights. (5 % of a
# MobileNet v2's time.)
BETWEEN_BYTES = 3 * SECOND_CACHE // 4


def prepare(
    graph: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    numbers: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    threads: int = 1,
) -> Graph:
    """The graph for inputs of these shapes, and of these `numbers` where shapes depend on them.

    Several threads make planes for each other, which come by the last cache whatever their number: then
    chunks only cost barriers (a MobileNet v2 on two threads took 1.2 times as long).
    """
    simple = crop_kernels(simplify(bind(graph, shapes, numbers or {})))[0]
    return in_chunks(simple, BETWEEN_BYTES)[0] if threads == 1 else simple
