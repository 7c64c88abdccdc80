"""Sums that take the memory of their residual: right by every algorithm, and however often they are timed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions


def residual_blocks(networks, kept: bool = False) -> bytes:
    """Three residual blocks of 3x3 layers; `kept`: the second one's residual is also an output."""
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for block in range(3):
        for layer in "ab":
            name = f"w{block}{layer}"
            constants[name] = (0.3 * rng.standard_normal((8, 8, 3, 3))).astype(np.float32)
            constants[name] *= rng.random((8, 8, 3, 3)) < 0.4
        a, b, c, d = (f"{letter}{block}" for letter in "abcd")
        nodes += [
            helper.make_node("Conv", [last, f"w{block}a"], [a], pads=[1] * 4),
            helper.make_node("Relu", [a], [b]),
            helper.make_node("Conv", [b, f"w{block}b"], [c], pads=[1] * 4),
            helper.make_node("Add", [c, last], [d]),
        ]
        last = d
    outputs = {"d2": ["N", 8, 13, 21], **({"d0": ["N", 8, 13, 21]} if kept else {})}
    return networks.model(nodes, {"x": ["N", 8, 13, 21]}, outputs, constants)


def shared(session: InferenceSession) -> int:
    """How many sums (every other convolution) touch two buffers, not three."""
    sums = [step for step in session.plan.steps if step.op == "Conv"][1::2]
    return sum(len(step.buffers) == 2 for step in sums)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm(networks, name):
    model = residual_blocks(networks)
    x = np.random.default_rng(1).standard_normal((2, 8, 13, 21)).astype(np.float32)
    (expected,) = networks.rival(model).run(None, {"x": x})
    for threads in (1, 2):
        session = InferenceSession(model, SessionOptions(threads=threads, prefer=name, tune=False))
        for _ in range(2):
            (got,) = session.run(None, {"x": x})
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_timing_leaves_the_sums_alone(networks, tmp_path, monkeypatch):
    """Tuning runs a layer many times over; the layers after it are measured on its true output."""
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    model = residual_blocks(networks)
    x = np.random.default_rng(1).standard_normal((1, 8, 13, 21)).astype(np.float32)
    (expected,) = networks.rival(model).run(None, {"x": x})
    session = InferenceSession(model, SessionOptions(tune=True))
    (got,) = session.run(None, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_memory_is_shared_where_nothing_reads_it_later(networks):
    """The first residual is the caller's input, an output must stay; the others are replaced."""
    options = SessionOptions(tune=False, algorithm="sparse_direct")
    assert shared(InferenceSession(residual_blocks(networks), options)) == 2
    assert shared(InferenceSession(residual_blocks(networks, kept=True), options)) == 1
