"""What the tests of the graph share: networks written as text, and onnxruntime as the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from zeroskip.graph import load

SHARED = Path(__file__).resolve().parents[2] / "../shared"


def model_of(inputs, outputs, body, opset=21, **constants):
    """An ONNX model from typed inputs, typed or bare outputs, a body as ONNX text, and initializers."""
    outputs = ", ".join(o if " " in o else f"float[] {o}" for o in outputs.split(", "))
    text = f'<ir_version: 10, opset_import: ["": {opset}]> net ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return model


def graph_of(inputs, outputs, body, opset=21, **constants):
    """The same as a graph."""
    return load(model_of(inputs, outputs, body, opset, **constants).SerializeToString())


def onnxruntime_answers(model, feeds):
    """What onnxruntime, unoptimised and on one thread, computes for a model (or its path)."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is the oracle; install zeroskip[bench]")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = model.SerializeToString() if hasattr(model, "SerializeToString") else str(model)
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


@pytest.fixture
def make():
    return graph_of


@pytest.fixture
def make_model():
    return model_of


@pytest.fixture
def ask():
    return onnxruntime_answers


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def shared_networks():
    """Every ONNX file of the shared folder, or one parameter that says why there is none."""
    files = sorted((*SHARED.glob("models/*.onnx"), *SHARED.glob("backbones/*.onnx")))
    if not files:
        return [pytest.param(None, marks=pytest.mark.skip(reason=f"{SHARED} is absent"), id="absent")]
    return [pytest.param(path, id=path.stem) for path in files]


def pytest_generate_tests(metafunc):
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", shared_networks())
