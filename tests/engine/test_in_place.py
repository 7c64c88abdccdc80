"""Sums that take the memory of their residual: right by every algorithm, and however often they are timed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.engine.tuning import Track


def residual_blocks(networks, kept: bool = False, name_of_all: str = "") -> bytes:
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
            helper.make_node("Conv", [last, f"w{block}a"], [a], name=name_of_all, pads=[1] * 4),
            helper.make_node("Relu", [a], [b]),
            helper.make_node("Conv", [b, f"w{block}b"], [c], name=name_of_all, pads=[1] * 4),
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
    x = np.random.default_rng(1).standard_normal((2, 8, 13, 21)).astype(np.float32)
    networks.agreeing(residual_blocks(networks), x, prefer=name, tune=False)


@pytest.mark.parametrize("name", ["", "twin"])
def test_every_run_of_tuning_is_the_networks_own(networks, tmp_path, monkeypatch, name):
    """However often it runs, and whoever takes a layer's place, each layer works on its true input."""
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    model = residual_blocks(networks, name_of_all=name)
    x = np.random.default_rng(1).standard_normal((1, 8, 13, 21)).astype(np.float32)
    (expected,) = networks.rival(residual_blocks(networks)).run(None, {"x": x})
    outputs, run = {}, Track.run

    def watched(self, entrants):
        seconds = run(self, entrants)
        for last in list(seconds)[-1:]:  # the run ends with it
            outputs.setdefault(last, []).append(self._context.memory(last.site.y).view(np.float32).copy())
        return seconds

    monkeypatch.setattr(Track, "run", watched)
    session = InferenceSession(model, SessionOptions(tune=True))
    assert sum(map(len, outputs.values())) >= 8
    for found in outputs.values():
        for output in found:
            np.testing.assert_allclose(output, found[0], rtol=1e-3, atol=1e-3)
    (got,) = session.run(None, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_memory_is_shared_where_nothing_reads_it_later(networks):
    """The first residual is the caller's input, an output must stay; the others are replaced."""
    options = SessionOptions(tune=False, algorithm="sparse_direct")
    assert shared(InferenceSession(residual_blocks(networks), options)) == 2
    assert shared(InferenceSession(residual_blocks(networks, kept=True), options)) == 1
