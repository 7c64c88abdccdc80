"""Timing one convolution: the answer is right, the memory is what the algorithm says, refusals are errors."""

from __future__ import annotations

import numpy as np
import pytest

import zeroskip as zs
from zeroskip.bench import difference, tolerance
from zeroskip.bench.convolution import time_convolution
from zeroskip.engine.functional import conv_graph
from zeroskip.engine.store import store_path


def convolution() -> tuple[zs.Graph, np.ndarray]:
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 8, 9, 10), (6, 8, 3, 3)))
    return conv_graph(x.shape, w, pads=(1, 1, 1, 1)), x


@pytest.mark.parametrize("name", ["direct", "im2col", "mec", "sparse_direct", "cpo"])
def test_every_part_of_a_measurement(name: str) -> None:
    graph, x = convolution()
    found = time_convolution(graph, x, name, seconds=0)
    w = graph.constants["w"]
    expected = zs.conv2d(x, w, padding=1)
    assert difference(found.answer, expected) <= tolerance(graph)
    assert found.seconds > 0 and found.variant
    in_place = name in ("direct", "sparse_direct")
    words = 0 if in_place else zs.conv_memory(name, x.shape, w.shape, padding=1)
    assert found.workspace_bytes == 4 * words
    assert found.stored_bytes >= 4 * w.size


def test_the_store_is_left_alone() -> None:
    graph, x = convolution()
    before = store_path().read_bytes() if store_path().is_file() else None
    time_convolution(graph, x, "direct", seconds=0)
    assert (store_path().read_bytes() if store_path().is_file() else None) == before


def test_refusals() -> None:
    graph, x = convolution()
    with pytest.raises(zs.AlgorithmError, match="depthwise"):
        time_convolution(graph, x, "depthwise")
    with pytest.raises(zs.AlgorithmError, match="Known: auto"):
        time_convolution(graph, x, "directly")
