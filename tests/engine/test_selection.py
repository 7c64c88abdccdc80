"""What an untuned session takes: the variants predicted fastest, and which zeros predictions may count on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from onnx import helper

from zeroskip.codegen import resolve
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.engine.lowering import problems_of
from zeroskip.engine.network import Network
from zeroskip.engine.prepare import prepare
from zeroskip.engine.selection import Selector
from zeroskip.graph import load

# What comes between the input and the convolution, and whether it makes zeros of negative numbers.
BETWEEN = {
    "nothing": ([("Identity", ["x"], {})], False),
    "Relu": ([("Relu", ["x"], {})], True),
    "Clip": ([("Clip", ["x", "zero", "six"], {})], True),
    "Sigmoid": ([("Sigmoid", ["x"], {})], False),
    "Relu, MaxPool": ([("Relu", ["x"], {}), ("MaxPool", ["a0"], {"kernel_shape": [2, 2]})], True),
    "MaxPool": ([("MaxPool", ["x"], {"kernel_shape": [2, 2]})], False),
    "Relu, Concat": ([("Relu", ["x"], {}), ("Concat", ["a0", "a0"], {"axis": 1})], True),
    "Relu, Concat with others": ([("Relu", ["x"], {}), ("Concat", ["a0", "x"], {"axis": 1})], False),
}


def convolution(networks, between, channels, group=1, **attributes) -> bytes:
    """A pointwise convolution, what comes `between`, and the convolution called "last"."""
    rng = np.random.default_rng(4)
    nodes = [helper.make_node("Conv", ["image", "first"], ["x"])]
    for i, (op, inputs, own) in enumerate(between):
        nodes.append(helper.make_node(op, inputs, [f"a{i}"], **own))
    read = f"a{len(between) - 1}"
    nodes.append(helper.make_node("Conv", [read, "w"], ["y"], name="last", group=group, **attributes))
    constants = {
        "first": rng.standard_normal((16, 3, 1, 1)).astype(np.float32),
        "w": rng.standard_normal((16, channels // group, 3, 3)).astype(np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
    }
    return networks.model(nodes, {"image": [1, 3, 12, 12]}, {"y": [1, 16, "H", "W"]}, constants)


@pytest.mark.parametrize("name", BETWEEN)
def test_zero_activations_are_counted_on_after_a_relu_alone(networks, monkeypatch, name):
    between, rectified = BETWEEN[name]
    fast = replace(ALGORITHMS["activation_sparse"], cycles=lambda *layer: 1.0)
    offered = {"direct": ALGORITHMS["direct"], "activation_sparse": fast}
    monkeypatch.setattr("zeroskip.engine.selection.ALGORITHMS", offered)
    model = convolution(networks, between, 32 if "Concat" in name else 16)
    plan = InferenceSession(model, SessionOptions()).plan
    assert plan.step("last").algorithm == ("activation_sparse" if rectified else "direct")


def test_splitting_by_strides_has_its_price(networks):
    """Depthwise layers of stride 2 read the input as it is; others would have it split first."""
    model = convolution(networks, [("Relu", ["x"], {})], 16, group=16, strides=[2, 2], pads=[1] * 4)
    assert InferenceSession(model, SessionOptions()).plan.step("last").algorithm == "depthwise"


def test_what_was_measured_behind_a_relu_is_not_remembered_for_other_layers(networks):
    """Zeros among activations are fewer elsewhere: kernels that skip them take longer there."""
    keys = set()
    for name in ("Relu", "Sigmoid"):
        model = convolution(networks, [(name, ["x"], {})], 16)
        selector = Selector(resolve("host"), 1, "auto", "auto")
        graph = load(model)
        network = Network(prepare(graph, {"image": (1, 3, 12, 12)}), resolve("host"), 1)
        last = next(problem for problem in problems_of(network, False) if problem.R == 3)
        keys.add(selector.key(last).text)
    assert len(keys) == 2
