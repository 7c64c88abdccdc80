"""Concatenations within concatenations: parts are written once, where the last of them wants them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

RNG = np.random.default_rng(8)


def dense_block(networks, gathered: list[list[str]]) -> bytes:
    """Layer i reads the concatenation of `gathered[i]`: "a", a pool, and "f0", "f1" ..., layers before."""
    channels, nodes, weights = {"a": 6}, [helper.make_node("MaxPool", ["x"], ["a"], kernel_shape=[1, 1])], {}
    for number, names in enumerate(gathered):
        width = sum(channels[name] for name in names)
        weights[f"w{number}"] = 0.2 * RNG.standard_normal((5, width, 3, 3))
        nodes += [
            helper.make_node("Concat", names, [f"c{number}"], axis=1),
            helper.make_node("Conv", [f"c{number}", f"w{number}"], [f"f{number}"], pads=[1] * 4),
        ]
        channels[f"f{number}"] = 5
    constants = {name: array.astype(np.float32) for name, array in weights.items()}
    last = f"f{len(gathered) - 1}"
    return networks.model(nodes, {"x": ["N", 6, 9, 7]}, {last: ["N", 5, 9, 7]}, constants)


@pytest.mark.parametrize(
    "gathered, copies",
    [
        ([["a", "a"], ["a", "f0"], ["a", "f0", "f1"], ["a", "f0", "f1", "f2"]], 1),
        ([["a"], ["f0", "a"], ["f1", "f0", "a"], ["f2", "f1", "f0", "a"]], 0),
        ([["a"], ["a", "f0"], ["f0", "a", "f1"], ["a", "f0", "f2"]], 1),  # another order; one left out
        ([["a"], ["a", "f0"], ["f1", "f0"], ["f1", "a", "f2"]], 2),
    ],
)
@pytest.mark.parametrize("images", [1, 3])
def test_same_answers_with_few_copies(networks, gathered, copies, images):
    x = RNG.standard_normal((images, 6, 9, 7)).astype(np.float32)
    for session in networks.agreeing(dense_block(networks, gathered), x, atol=1e-4, tune=False):
        assert sum(step.op == "Concat" for step in session.plan.steps) == copies
