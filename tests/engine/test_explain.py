"""A plan in words, to the letter: `pytest --update-golden` writes the texts anew."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import helper

from zeroskip.codegen import resolve
from zeroskip.codegen.target import runs_here
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions, store
from zeroskip.engine.lowering import problems_of
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Candidate
from zeroskip.engine.selection import Selector
from zeroskip.graph import bind, load, simplify

TARGET = "x86-64-v3"
OFFERED = ("direct", "depthwise", "sparse_direct", "block_sparse")
MEASURED = (Candidate("sparse_direct", "2*1x4", 12.25), Candidate("direct", "4x3", 20.5))


@pytest.fixture
def session(networks, tmp_path, monkeypatch):
    """A session on the AVX2 target, with few algorithms, and times of two candidates for each convolution."""
    if not runs_here(resolve(TARGET)):
        pytest.skip(f"needs a processor that runs {TARGET}")
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    # a new algorithm is no change of what a plan says
    monkeypatch.setattr("zeroskip.engine.selection.ALGORITHMS", {name: ALGORITHMS[name] for name in OFFERED})
    target, model = resolve(TARGET), networks.small(batch=1)
    network = Network(simplify(bind(load(model), {"x": (1, 3, 12, 12)})), target, 1, in_place=True)
    selector = Selector(target, 1, "auto")
    store.write({selector.key(problem): MEASURED for problem in problems_of(network, forced=False)})
    return InferenceSession(model, SessionOptions(target=TARGET))


def test_the_plan(session, golden):
    golden("plan.txt", session.plan.explain())


def test_a_layer(session, golden):
    golden("layer.txt", session.plan.explain("second"))


def test_a_layer_without_a_choice(session, golden):
    golden("gemm.txt", session.plan.explain("classify"))


def test_what_was_not_measured_is_said_to_be_predicted(networks):
    session = InferenceSession(networks.small(seed=90210), SessionOptions(algorithm="direct"))
    assert session.plan.step("second").how == "predicted"
    lines = session.plan.explain("second").splitlines()[3:]
    assert lines and all(line.endswith("cycles predicted, not measured") for line in lines)
    assert sum(line.startswith("  *") for line in lines) == 1


def test_columns_stand_under_each_other_whatever_the_names(networks):
    """The longest name of an algorithm and its variant used to push its line to the right."""
    w = np.ones((4, 3, 3, 3), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="a convolution of a rather long name", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["y"], name="relu"),
    ]
    model = networks.model(nodes, {"x": [1, 3, 6, 6]}, {"y": [1, 4, 6, 6]}, {"w": w})
    for algorithm in ("direct", "block_sparse"):
        lines = InferenceSession(model, SessionOptions(prefer=algorithm)).plan.explain().splitlines()[:-1]
        at = lines[0].index("layer")
        assert {line[at - 1 : at] for line in lines} <= {" ", ""}
        assert lines[1][at:].startswith("3x6x6 -> 4")


def test_the_same_as_data(session):
    plan = json.loads(json.dumps(session.plan.to_dict()))
    assert plan["target"] == TARGET and plan["inputs"] == {"x": [1, 3, 12, 12]}
    layer = next(step for step in plan["steps"] if step["name"] == "second")
    assert (layer["algorithm"], layer["variant"]) == ("sparse_direct", "2*1x4")
    assert layer["chosen_by"] == "measured"
    assert {c["algorithm"] for c in layer["candidates"] if c["reason"]} >= {"depthwise"}
    assert all(plan[key] > 0 for key in ("peak_bytes", "weight_bytes"))
