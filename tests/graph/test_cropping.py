"""Kernels without the taps that read nothing but padding: the same answers, in fewer taps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.graph import bind, evaluate
from zeroskip.graph.passes.cropping import crop_kernels

RNG = np.random.default_rng(3)


def network(make, size, kernel, **attributes):
    """A convolution of 2 channels, 2 groups, and its input."""
    texts = ", ".join(f"{key}={list(value)}".replace(" ", "") for key, value in attributes.items())
    weights = RNG.standard_normal((4, 1, *kernel)).astype(np.float32)
    names = ",".join(["N", "2", *map(str, size)])
    graph = make(f"float[{names}] x", "y", f"y = Conv<{texts}, group=2>(x, w)", w=weights)
    return bind(graph, {"x": (2, 2, *size)})


def kernel_of(graph):
    return graph.constants[graph.nodes[0].inputs[1]].shape[2:]


@pytest.mark.parametrize(
    "size, kernel, pads, dilations, left",
    [
        ((16, 16), (3, 3), (24,) * 4, (24, 24), (1, 1)),
        ((16, 30), (3, 3), (24,) * 4, (24, 24), (1, 3)),
        ((5, 5), (7, 3), (3, 1, 3, 1), (1, 1), (7, 3)),  # every row meets a pixel
        ((3, 5), (7, 3), (3, 1, 3, 1), (1, 1), (5, 3)),
        ((9,), (5,), (0, 20), (5,), (2,)),  # on one side only
        ((2, 3, 4), (5, 1, 3), (2, 0, 1, 2, 0, 1), (1, 1, 1), (3, 1, 3)),
    ],
)  # fmt: skip
def test_kernels(make, size, kernel, pads, dilations, left):
    graph = network(make, size, kernel, pads=pads, dilations=dilations)
    cropped, report = crop_kernels(graph)
    assert kernel_of(cropped) == left
    assert report == {"cropped": int(left != kernel)} and (cropped is graph) == (left == kernel)
    assert cropped.values["y"].sizes == graph.values["y"].sizes


@given(st.data())
def test_same_answers(make, data):
    number = st.integers
    size, kernel, strides, dilations = (
        data.draw(st.tuples(number(1, high), number(1, high))) for high in (6, 4, 3, 5)
    )
    low = [max(0, d * (k - 1) + 1 - s) for s, k, d in zip(size, kernel, dilations, strict=True)]
    begins, ends = (
        data.draw(st.tuples(number(low[0], 16), number(low[1], 16))),
        data.draw(st.tuples(number(0, 9), number(0, 9))),
    )
    graph = network(make, size, kernel, pads=(*begins, *ends), strides=strides, dilations=dilations)
    feeds = {"x": RNG.standard_normal((2, 2, *size)).astype(np.float32)}
    cropped, _ = crop_kernels(graph)
    for ours, theirs in zip(evaluate(cropped, feeds), evaluate(graph, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
