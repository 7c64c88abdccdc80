"""Convolutions and the pool of 2x2 pixels after them are one step, whether or not the algorithm does both."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.conv import ALGORITHMS
from zeroskip.engine.lowering import lower
from zeroskip.engine.network import Network
from zeroskip.graph import evaluate


def pooled(kit, h, w, activation=("Relu",), **changes):
    """A convolution, its pool, and a layer that reads the borders of that."""
    chain = kit.Chain()
    shape = {"n": 2, "c": 6, "k": 9, "kernel": (3, 3), "pads": (1, 1, 1, 1), "density": 0.5} | changes
    layer = kit.Layer(h=h, w=w, whole=True, activation=activation, **shape)
    chain.pool("z", chain.conv("y", layer, chain.input("x", layer.n, layer.c, h, w)))
    n, c, h, w = chain.shape("z")
    after = kit.Layer(n=n, c=c, h=h, w=w, k=3, kernel=(3, 3), pads=(1, 1, 1, 1), whole=True)
    chain.conv("last", after, "z")
    return chain, layer


def check(runner, kit, chain, algorithm, variant=0, threads=1):
    """Small whole numbers, whose sums are exact; twice in the same memory."""
    rng = np.random.default_rng(len(variant) if isinstance(variant, str) else variant)
    inputs = [{"x": rng.integers(-3, 4, chain.shape("x")).astype(np.float32)} for _ in range(2)]

    def choose(name, site):
        return kit.always(algorithm if name == "y" else "direct", variant if name == "y" else 0)(name, site)

    graph = chain.graph("last")
    found = runner.run(graph, choose, *inputs, threads=threads, borders=("z",))
    for arrays, (got,) in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(got, evaluate(graph, arrays)[0])


@pytest.mark.parametrize("size", [(2, 2), (5, 7), (14, 14), (13, 13), (8, 28), (9, 33), (31, 18), (21, 56)])
@pytest.mark.parametrize("name", ["sparse_direct", "block_sparse", "dual_sparse"])
def test_every_variant_of_algorithms_that_pool(runner, kit, name, size):
    chain, layer = pooled(kit, *size)
    row = ALGORITHMS[name]
    variants = row.variants(layer.problem(), runner.target)
    assert any(map(row.pools, variants))
    for number, variant in enumerate(variants):
        check(runner, kit, chain, name, variant, threads=1 + number % 2)


@pytest.mark.parametrize(
    "name", [name for name in ALGORITHMS if name not in ("winograd", "fft", "depthwise")]
)
def test_every_other_algorithm(runner, kit, name):
    """A pool follows them. (Transforms are not exact; `depthwise` is another layer.)"""
    for threads, size in ((1, (15, 20)), (2, (6, 9))):
        check(runner, kit, pooled(kit, *size)[0], name, threads=threads)


@pytest.mark.parametrize(
    "change",
    [
        {"strides": (2, 2)},
        {"strides": (1, 2), "kernel": (2, 5), "pads": (0, 2, 1, 2)},
        {"kernel": (1, 1), "pads": (0, 0, 0, 0)},
        {"groups": 3, "k": 12},
        {"c": 120, "k": 17, "density": 0.1},
        {"activation": ("Clip", 0.0, 6.0)},
        {"activation": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["sparse_direct", "block_sparse", "direct"])
def test_layers(runner, kit, name, change):
    for number in range(3):
        check(runner, kit, pooled(kit, 18, 23, **change)[0], name, number, threads=1 + number % 2)


@pytest.mark.parametrize(
    "change", ["activation", "another reader", "output", "residual", "window", "ceiling", "nothing"]
)
def test_when_they_are_one_step(runner, kit, change):
    """Not where somebody else wants what the convolution makes, nor other windows."""
    activation = ("Silu",) if change == "activation" else ("Relu",)
    chain, layer = pooled(kit, 9, 9, activation, k=6)
    if change == "another reader":
        chain.node("Relu", "other", ["y"], chain.shape("y"))
    if change == "residual":
        inputs = (*chain.nodes[0].inputs, "x")
        chain.nodes[0] = chain.nodes[0].with_(inputs=inputs)
    if change in ("window", "ceiling"):
        one = (1, 1) if change == "window" else (2, 2)
        rows, columns = (8, 8) if change == "window" else (5, 5)
        window = chain.nodes[1].with_(attributes={**chain.nodes[1].attributes, "strides": one})
        chain.nodes[1] = window
        chain.value("z", layer.n, 6, rows, columns)
    outputs = [
        "z",
        *(["other"] if change == "another reader" else []),
        *(["y"] if change == "output" else []),
    ]
    chain.nodes = [node for node in chain.nodes if node.outputs[0] != "last"]
    network = Network(chain.graph(*outputs), runner.target, 1)
    plan = lower(network, kit.always("sparse_direct"), forced=True)
    assert ("MaxPool" in {step.op for step in plan.steps}) is (change != "nothing")
