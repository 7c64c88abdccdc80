"""Transposed convolutions as convolutions: the same answers, for every kernel, stride and padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.graph import evaluate, simplify, verify

EPS = np.finfo(np.float32).eps


def normal(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def network(make, text, w, size, extra=""):
    inputs = f"float[2,{w.shape[0]},{size[0]},{size[1]}] x"
    bias = normal(w.shape[1] * (2 if "group=2" in text else 1))
    return make(inputs, "y", f"c = ConvTranspose<{text}>(x, w, b) y = Relu(c) {extra}", w=w, b=bias)


def same_answers(graph, simple, taps):
    verify(simple)
    x = normal(*graph.values["x"].sizes)
    (expected,), (got,) = evaluate(graph, {"x": x}), evaluate(simple, {"x": x})
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=taps * EPS * max(1, np.abs(expected).max()))


@settings(max_examples=60)
@given(st.data())
def test_same_answers(make, data):
    stride = data.draw(st.integers(1, 3), "stride")
    kernel = [data.draw(st.integers(1, 5), f"kernel {axis}") for axis in range(2)]
    size = [data.draw(st.integers(3, 5), f"size {axis}") for axis in range(2)]
    pads = [data.draw(st.integers(0, kernel[i % 2] - 1), f"pad {i}") for i in range(4)]
    extra = [data.draw(st.integers(0, stride - 1), f"output padding {axis}") for axis in range(2)]
    group = data.draw(st.sampled_from([1, 2]), "group")
    text = f"strides=[{stride},{stride}], group={group}, pads={pads}, output_padding={extra}"
    graph = network(make, text, normal(4, 3, *kernel), size)
    if min(graph.values["y"].sizes) < 1:
        return
    simple = simplify(graph)
    assert "ConvTranspose" not in {node.op for node in simple}
    same_answers(graph, simple, 4 * kernel[0] * kernel[1] + 1)


@pytest.mark.parametrize(
    ("text", "kernel", "expected"),
    [
        ("strides=[2,2]", (2, 2), "Conv DepthToSpace"),
        ("strides=[2,2], pads=[1,1,1,1]", (4, 4), "Conv DepthToSpace Slice"),
        ("strides=[2,2], pads=[2,2,2,2], output_padding=[1,1]", (5, 5), "Conv DepthToSpace"),
        ("pads=[1,1,1,1]", (3, 3), "Conv"),
        ("strides=[2,1]", (2, 2), "ConvTranspose"),
        ("dilations=[2,2]", (3, 3), "ConvTranspose"),
        ("pads=[2,2,2,2]", (2, 2), "ConvTranspose"),
    ],
)
def test_what_becomes_of_it(make, text, kernel, expected):
    graph = network(make, text, normal(4, 3, *kernel), (5, 6))
    simple = simplify(graph)
    assert " ".join(node.op for node in simple) == expected
    assert simple.nodes[0].attr("activation") == ("Relu",)
    same_answers(graph, simple, 4 * kernel[0] * kernel[1] + 1)
