"""Convolutions one after the other: what one leaves in memory is what the next reads.

All numbers are small and whole, so that sums are exact in any order and results must be equal.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.graph import evaluate

BOUNDED = ("Clip", -3.0, 5.0)  # keeps numbers small
EXAMPLES = 60


def whole(rng, shape):
    return rng.integers(-3, 4, shape).astype(np.float32)


def check(runner, kit, chain, outputs, seed=0, threads=1):
    """Several inputs in the same memory, each as if it were alone."""
    rng = np.random.default_rng(seed)
    graph = chain.graph(*outputs)
    inputs = [{name: whole(rng, chain.shape(name)) for name in graph.inputs} for _ in range(3)]
    results = runner.run(graph, kit.mixed(seed), *inputs, threads=threads)
    for arrays, got in zip(inputs, results):
        for name, array, expected in zip(outputs, got, evaluate(graph, arrays)):
            np.testing.assert_array_equal(
                array, expected, err_msg=f"{name} of {[(n.op, n.inputs) for n in graph]}"
            )


def convolve(draw, kit, chain, name):
    x = draw(st.sampled_from([v for v in chain.values if v not in chain.constants]))
    n, c, h, w = chain.shape(x)
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (5, 1), (2, 2)]))
    kernel = tuple(min(taps, size) for taps, size in zip(kernel, (h, w)))
    groups = draw(st.sampled_from([1, 1, c, 2 if c % 2 == 0 else 1]))
    same = draw(st.booleans())
    pads = tuple(draw(st.integers(0, 2)) for _ in range(4))
    if same:
        pads = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2, kernel[0] // 2, kernel[1] // 2)
    layer = kit.Layer(
        n=n,
        c=c,
        h=h,
        w=w,
        k=groups * draw(st.sampled_from([1, 2, 4])),
        kernel=kernel,
        strides=(1, 1) if same else (draw(st.integers(1, 2)), draw(st.integers(1, 3))),
        pads=pads,
        groups=groups,
        density=draw(st.sampled_from([0.1, 0.5, 1.0])),
        bias=draw(st.booleans()),
        activation=BOUNDED,
        seed=draw(st.integers(0, 9)),
        whole=True,
    )
    shape = (n, layer.k, *layer.size)
    equals = [v for v in chain.values if v not in chain.constants and chain.shape(v) == shape]
    residual = draw(st.sampled_from(["", *equals]))
    chain.conv(name, layer, x, residual)


def concatenate(draw, kit, chain, name):
    first = draw(st.sampled_from([v for v in chain.values if v not in chain.constants]))
    n, _, h, w = chain.shape(first)
    others = [
        v
        for v in chain.values
        if v not in chain.constants and (chain.shape(v)[0], *chain.shape(v)[2:]) == (n, h, w)
    ]
    parts = [first, *draw(st.lists(st.sampled_from(others), min_size=1, max_size=2))]
    chain.node("Concat", name, parts, (n, sum(chain.shape(v)[1] for v in parts), h, w), axis=1)


def pool(draw, kit, chain, name):
    x = draw(st.sampled_from([v for v in chain.values if v not in chain.constants]))
    n, c, h, w = chain.shape(x)
    kernel = (min(2, h), min(3, w))
    shape = (n, c, (h - kernel[0]) // 2 + 1, w - kernel[1] + 1)
    chain.node(
        "MaxPool", name, [x], shape, kernel_shape=kernel, strides=(2, 1), pads=(0, 0, 0, 0), dilations=(1, 1)
    )


def halve(draw, kit, chain, name):
    """The pool that convolutions do themselves, if they can."""
    x = draw(st.sampled_from([v for v in chain.values if v not in chain.constants]))
    n, c, h, w = chain.shape(x)
    if min(h, w) > 1:
        chain.pool(name, x)
    else:
        chain.node("Relu", name, [x], (n, c, h, w))


def add(draw, kit, chain, name):
    x = draw(st.sampled_from([v for v in chain.values if v not in chain.constants]))
    others = [v for v in chain.values if v not in chain.constants and chain.shape(v) == chain.shape(x)]
    chain.node("Min", name, [x, draw(st.sampled_from(others))], chain.shape(x))


def activate(draw, kit, chain, name):
    x = draw(st.sampled_from([v for v in chain.values if v not in chain.constants]))
    chain.node("Relu", name, [x], chain.shape(x))


STEPS = [*[convolve] * 4, *[concatenate] * 2, pool, *[halve] * 2, add, activate]


@st.composite
def networks(draw, kit):
    chain = kit.Chain()
    for number in range(draw(st.integers(1, 2))):
        size = draw(st.sampled_from([(5, 6), (8, 15), (3, 17), (9, 9)]))
        chain.input(f"x{number}", draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 3, 4])), *size)
    for number in range(draw(st.integers(2, 9))):
        draw(st.sampled_from(STEPS))(draw, kit, chain, f"v{number}")
    made = [node.outputs[0] for node in chain.nodes]
    outputs = draw(st.lists(st.sampled_from(made), unique=True, max_size=2))
    return chain, list(dict.fromkeys([*outputs, made[-1]]))


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_network(runner, kit, data):
    chain, outputs = data.draw(networks(kit))
    check(runner, kit, chain, outputs, data.draw(st.integers(0, 99)), data.draw(st.sampled_from([1, 2])))


def test_a_plane_shared_by_readers_with_different_borders(runner, kit):
    """One value is read with no padding, with one pixel's, with three pixels', strided, and as a residual."""
    chain = kit.Chain()
    x = chain.input("x", 2, 3, 9, 10)
    base = kit.Layer(n=2, c=3, h=9, w=10, k=3, whole=True, activation=BOUNDED)
    a = chain.conv("a", base, x)
    outputs = [
        chain.conv("same", kit.Layer(**{**vars(base), "kernel": (3, 3), "pads": (1, 1, 1, 1)}), a, a),
        chain.conv("wide", kit.Layer(**{**vars(base), "kernel": (7, 7), "pads": (3, 3, 3, 3)}), a, a),
        chain.conv("none", kit.Layer(**{**vars(base), "kernel": (3, 3)}), a),
        chain.conv(
            "strided",
            kit.Layer(**{**vars(base), "kernel": (3, 3), "pads": (1, 0, 0, 1), "strides": (2, 2)}),
            a,
        ),
        a,
    ]
    for seed in range(4):
        check(runner, kit, chain, outputs, seed, threads=1 + seed % 2)


def test_parts_of_a_concatenation_keep_out_of_each_other(runner, kit):
    """Each part has a border at the top, which lies at the end of the part before it."""
    chain = kit.Chain()
    x = chain.input("x", 1, 2, 6, 7)
    base = kit.Layer(
        n=1, c=2, h=6, w=7, k=2, kernel=(5, 5), pads=(2, 2, 2, 2), whole=True, activation=BOUNDED
    )
    parts = [chain.conv(f"p{i}", kit.Layer(**{**vars(base), "seed": i}), x) for i in range(3)]
    joined = chain.node("Concat", "joined", [*parts, x], (1, 8, 6, 7), axis=1)
    inner = chain.node("Concat", "again", [joined, parts[1]], (1, 10, 6, 7), axis=1)
    last = chain.conv("last", kit.Layer(**{**vars(base), "c": 10, "k": 4}), inner)
    for seed in range(4):
        check(runner, kit, chain, [last, inner, parts[0]], seed, threads=1 + seed % 2)


def test_deep_chain_reuses_memory(runner, kit):
    """Twenty layers take the memory of three."""
    chain = kit.Chain()
    value = chain.input("x", 1, 4, 12, 12)
    for i in range(20):
        layer = kit.Layer(
            c=4, h=12, w=12, k=4, kernel=(3, 3), pads=(1, 1, 1, 1), seed=i, whole=True, activation=BOUNDED
        )
        value = chain.conv(f"v{i}", layer, value)
    check(runner, kit, chain, [value], threads=2)
