"""Networks as files and bytes, onnxruntime's answers, and how far ours may be from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeroskip.engine import InferenceSession, SessionOptions


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str]],
    outputs: dict[str, Sequence[int | str]],
    constants: dict[str, np.ndarray] | None = None,
) -> bytes:
    """An ONNX file's bytes: float32 inputs and outputs by name and shape."""
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]
        for values in (inputs, outputs)
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "small", *infos, initializers)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()


def small_model(batch: int | str = "N", size: int | str = 12, seed: int = 0) -> bytes:
    """Two convolutions, the second with a residual, a pool and a classifier."""
    rng = np.random.default_rng(seed)
    w1 = rng.standard_normal((8, 3, 3, 3)).astype(np.float32)
    w2 = rng.standard_normal((8, 8, 3, 3)).astype(np.float32) * (rng.random((8, 8, 3, 3)) < 0.2)
    constants = {
        "w1": w1,
        "b1": rng.standard_normal(8).astype(np.float32),
        "w2": w2.astype(np.float32),
        "w3": rng.standard_normal((5, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="second", pads=[1] * 4),
        helper.make_node("Add", ["c", "b"], ["d"], name="add"),
        helper.make_node("GlobalAveragePool", ["d"], ["e"], name="pool"),
        helper.make_node("Flatten", ["e"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3"], ["y"], name="classify", transB=1),
    ]
    return model(
        nodes, {"x": [batch, 3, size, "W" if isinstance(size, str) else size]}, {"y": [batch, 5]}, constants
    )


def rival(path: Path | bytes) -> onnxruntime.InferenceSession:
    """onnxruntime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def agreeing(model: bytes, x: np.ndarray, atol: float = 1e-3, **options: Any) -> list[InferenceSession]:
    """Sessions on one and on two threads, both of which answered `x` twice as onnxruntime does."""
    (expected,) = rival(model).run(None, {"x": x})
    sessions = [InferenceSession(model, SessionOptions(threads=threads, **options)) for threads in (1, 2)]
    for session in sessions:
        for _ in range(2):
            (got,) = session.run(None, {"x": x})
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=atol)
    return sessions


@dataclass(frozen=True)
class Networks:
    """What the tests of sessions use from here."""

    model = staticmethod(model)
    small = staticmethod(small_model)
    rival = staticmethod(rival)
    agreeing = staticmethod(agreeing)


@pytest.fixture(scope="session")
def networks() -> Networks:
    """The helpers of this file."""
    return Networks()
