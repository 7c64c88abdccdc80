"""Wide layers run in chunks on one thread, whole on several, with the same answers."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeroskip.engine import InferenceSession, SessionOptions

RNG = np.random.default_rng(2)


def wide_pair():
    """16 to 64 channels of 64x64, 1 MB between a pointwise and a depthwise layer."""
    weights = {"w": RNG.standard_normal((64, 16, 1, 1)), "v": RNG.standard_normal((64, 1, 3, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["t"], name="wide"),
        helper.make_node("Conv", ["t", "v"], ["y"], name="deep", group=64, pads=[1, 1, 1, 1]),
    ]
    info = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 64, 64]) for n, c in (("x", 16), ("y", 64))
    ]
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "pair", info[:1], info[1:], constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


@pytest.fixture(scope="module")
def sessions():
    model = wide_pair()
    return [InferenceSession(model, SessionOptions(threads=threads)) for threads in (1, 2)]


def test_names_tell_the_chunks(sessions):
    alone, together = ([step.name for step in s.plan.steps if step.op == "Conv"] for s in sessions)
    assert alone == ["wide", "deep", "wide (2/3)", "deep (2/3)", "wide (3/3)", "deep (3/3)"]
    assert together == ["wide", "deep"]


def test_what_lies_between_takes_less_memory(sessions):
    alone, together = (s.plan.peak_bytes for s in sessions)
    assert alone < 0.9 * together


def test_same_answers(sessions):
    x = RNG.standard_normal((1, 16, 64, 64)).astype(np.float32)
    alone, together = (s.run(None, {"x": x})[0] for s in sessions)
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-4)
