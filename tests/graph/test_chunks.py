"""Pairs of a pointwise and a depthwise convolution in chunks of channels: the same answers, where it pays."""

import numpy as np
import pytest

from zeroskip.graph import bind, evaluate, simplify
from zeroskip.graph.passes.chunks import in_chunks

RNG = np.random.default_rng(5)
BETWEEN = 4 * 20 * 8 * 8  # bytes between the two convolutions of the tests, for one image
WIDE = "t = Conv(x, w, b)"
DEEP = "y = Conv<pads=[1,1,1,1], group=20>(t, v, d)"


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def network(make, body, images=1, inputs="float[N,3,8,8] x", multiplier=1, **more):
    constants = {
        "w": f(20, int(inputs.split(",")[1]), 1, 1),
        "b": f(20),
        "v": f(20 * multiplier, 1, 3, 3),
        "d": f(20 * multiplier),
    }
    graph = make(
        inputs,
        "y",
        body,
        **{name: constants[name] for name in "wbvd" if f"{name})" in body or f"{name}," in body},
        **more,
    )
    shapes = {name: (images, *graph.values[name].shape[1:]) for name in graph.inputs}
    return simplify(bind(graph, shapes)), {name: f(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(
    "body",
    [
        f"{WIDE} {DEEP}",
        f"{WIDE} r = Relu(t) {DEEP.replace('(t', '(r')}",
        f"t = Conv(x, w) {DEEP.replace(', d', '')}",
        f"{WIDE} {DEEP.replace('pads', 'strides=[2,2], pads')}",
        f"{WIDE} u = {DEEP[4:]} y = Relu(u)",
    ],
)
def test_same_answers(make, body, multiplier, images):
    graph, feeds = network(make, body, images, multiplier=multiplier)
    chunked, report = in_chunks(graph, BETWEEN * images * 5 // 6)
    assert report == {"split": 1}
    ops = [node.op for node in chunked.nodes]
    # 20 channels, of which five twelfths are near: chunks of 16 and 4
    assert ops == ["Conv", "Conv", "Conv", "Conv", "Concat"]
    sizes = [chunked.values[node.outputs[0]].sizes[1] for node in chunked.nodes[::2]][:2]
    assert sizes == [16, 4]
    assert [node.name for node in chunked.nodes][2].endswith("(2/2)") or not graph.nodes[0].name
    for ours, theirs in zip(evaluate(chunked, feeds), evaluate(graph, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "body, between",
    [
        (f"{WIDE} {DEEP}", BETWEEN),  # near enough
        (f"{WIDE.replace('(x', '<strides=[2,2]>(x')} {DEEP}", 64),
        (f"{WIDE} y = Conv<pads=[1,1,1,1], group=10>(t, z)", BETWEEN - 1),
        (f"{WIDE} s = {DEEP[4:]} y = Add(s, t)", BETWEEN - 1),  # others read what lies between
        (f"t = Relu(x) {DEEP.replace('group=20', 'group=3').replace('v, d', 'k')}", 64),
    ],
)
def test_left_alone(make, body, between):
    more = {"z": f(20, 2, 3, 3)} if "z)" in body else {"k": f(3, 1, 3, 3)} if "k)" in body else {}
    graph, _ = network(make, body, **more)
    chunked, report = in_chunks(graph, between)
    assert chunked is graph and report == {"split": 0}


@pytest.mark.parametrize("channels, sizes", [(18, [8, 8, 4]), (40, [16, 4]), (44, None)])
def test_a_large_input_is_read_in_fewer_and_larger_chunks_or_once(make, channels, sizes):
    graph, _ = network(make, f"{WIDE} {DEEP}", inputs=f"float[N,{channels},8,8] x")
    chunked, _ = in_chunks(graph, BETWEEN // 2)
    if sizes is None:
        assert chunked is graph
    else:
        assert [chunked.values[node.outputs[0]].sizes[1] for node in chunked.nodes[:-1:2]] == sizes
