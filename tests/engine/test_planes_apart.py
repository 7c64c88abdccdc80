"""Layers whose padding is not in their neighbours' planes, right by every algorithm.

Far dilated taps have planes with room for it of their own; depthwise layers of small maps do without.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from zeroskip.codegen import resolve
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions

RNG = np.random.default_rng(4)
SIZE = (11, 14)


def pyramid(networks, dilations=(1, 6, 9)) -> bytes:
    """Pixels seen from near and far: a pointwise layer, dilated ones side by side, the last on a residual."""
    weights = {"w": RNG.standard_normal((8, 4, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="before"),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    for number, dilation in enumerate(dilations):
        weights[f"v{number}"] = RNG.standard_normal((8, 8, 3, 3)) * (RNG.random((8, 8, 3, 3)) < 0.4)
        far = {"pads": [dilation] * 4, "dilations": [dilation] * 2, "name": f"far{number}"}
        nodes.append(helper.make_node("Conv", ["b", f"v{number}"], [f"c{number}"], **far))
    last = len(dilations) - 1
    nodes += [
        helper.make_node("Add", [f"c{last}", "b"], ["d"]),
        helper.make_node("Concat", [*(f"c{number}" for number in range(last)), "d"], ["y"], axis=1),
    ]
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    return networks.model(nodes, {"x": ["N", 4, *SIZE]}, {"y": ["N", 8 * len(dilations), *SIZE]}, constants)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm(networks, name):
    x = RNG.standard_normal((2, 4, *SIZE)).astype(np.float32)
    networks.agreeing(pyramid(networks), x, prefer=name, tune=False)


@pytest.mark.parametrize("name", ["direct", "sparse_direct"])
def test_tuned(networks, name, tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    x = RNG.standard_normal((1, 4, *SIZE)).astype(np.float32)
    networks.agreeing(pyramid(networks), x, prefer=name, tune=True)


def test_the_planes_of_other_layers_stay_small(networks):
    """The layer before computes its own output, whoever reads it."""
    sizes = []
    for dilations in ((1, 1), (1, 9)):
        options = SessionOptions(tune=False, algorithm="sparse_direct", shapes={"x": (1, 4, *SIZE)})
        plan = InferenceSession(pyramid(networks, dilations), options).plan
        step = next(step for step in plan.steps if step.name == "before")
        sizes.append(sorted(plan.buffers[number].bytes for number in step.buffers))
    assert sizes[0] == sizes[1]


def separable(networks, size: int, stride: int = 1) -> bytes:
    """A pointwise, a depthwise and a pointwise layer."""
    shapes = {"v": (8, 4, 1, 1), "w": (8, 1, 3, 3), "u": (6, 8, 1, 1)}
    constants = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    around = {"pads": [1] * 4, "strides": [stride] * 2, "group": 8, "name": "depthwise"}
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], name="before"),
        helper.make_node("Clip", ["a", "low", "high"], ["b"]),
        helper.make_node("Conv", ["b", "w"], ["c"], **around),
        helper.make_node("Conv", ["c", "u"], ["y"], name="after"),
    ]
    constants |= {"low": np.float32(0), "high": np.float32(6)}
    shape = ["N", 6, -(-size // stride), -(-size // stride)]
    return networks.model(nodes, {"x": ["N", 4, size, size]}, {"y": shape}, constants)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_depthwise_layers_that_do_without_padding(networks, name, stride):
    for images, size in ((1, 14), (2, 13), (1, 31)):
        x = RNG.standard_normal((images, 4, size, size)).astype(np.float32)
        networks.agreeing(separable(networks, size, stride), x, prefer=name, tune=False)


@pytest.mark.skipif(resolve().lanes != 16, reason="sizes are chosen for vectors of 16 floats")
@pytest.mark.parametrize("size, padding", [(14, 0), (28, 0), (7, 1), (56, 1)])
def test_they_do_where_that_saves_vectors(networks, size, padding):
    """7x7 pixels take four vectors anyhow, and of 56x56 2 % are not worth it."""
    options = SessionOptions(shapes={"x": (1, 4, size, size)})
    plan = InferenceSession(separable(networks, size), options).plan
    planes = max(plan.buffers[number].bytes for number in plan.step("depthwise").buffers) / 8
    assert 0 <= planes - 4 * (size + padding) ** 2 < 4 * 64
