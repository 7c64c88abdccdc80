"""Published topologies as old exporters wrote them (the onnx package's light models), with random weights."""

from pathlib import Path

import numpy as np
import onnx.backend.test
import pytest

from zeroskip.graph import OPERATORS, PASSES, bind, evaluate, load, simplify, verify

LIGHT = Path(onnx.backend.test.__file__).parent / "data/light"

# Nodes left: convolutions with all normalization, activation and addition in them, and what is between them.
# DenseNet's normalizations read concatenations: they become depthwise convolutions.
LEFT = {
    "densenet121": {"Conv": 121 + 62, "BatchNormalization": 0, "Relu": 0, "Concat": 58, "AveragePool": 3},
    "inception_v2": {"Conv": 69, "Concat": 10, "AveragePool": 8, "MaxPool": 5, "Gemm": 1},
    "resnet50": {"Conv": 53, "MaxPool": 1, "AveragePool": 1, "Gemm": 1},
    "shufflenet": {
        "Conv": 49,
        "Transpose": 0,
        "Gather": 16,
        "AveragePool": 4,
        "Concat": 3,
        "Relu": 3,
        "Gemm": 1,
    },
    "squeezenet": {"Conv": 26, "Concat": 8, "MaxPool": 3, "GlobalAveragePool": 1},
}


def with_random_weights(graph):
    """Weights as one would initialise them; statistics near those of standardised data."""
    rng = np.random.default_rng(0)
    constants = dict(graph.constants)
    for node in graph:
        for index, name in enumerate(node.inputs):
            old = constants.get(name)
            if old is None or old.dtype != np.float32 or old.size == 1:
                continue
            new = rng.standard_normal(old.shape) * 0.1
            if node.op in ("Conv", "Gemm") and index == 1:
                new = rng.standard_normal(old.shape) * np.sqrt(2 / old[0].size)
            elif (node.op, index) in (("BatchNormalization", 1), ("BatchNormalization", 4), ("Mul", 1)):
                new = 1 + new
            constants[name] = new.astype(np.float32)
    return graph.with_(constants=constants)


@pytest.mark.parametrize("name", LEFT)
def test_published_topologies(name, ask, tmp_path):
    path = LIGHT / f"light_{name}.onnx"
    if not path.exists():
        pytest.skip(f"this version of the onnx package has no {path.name}")
    graph = with_random_weights(PASSES["fold constants"](load(path))[0])
    source = graph.inputs[0]
    x = np.random.default_rng(1).standard_normal(graph.values[source].sizes).astype(np.float32)
    simple = simplify(bind(simplify(graph), {source: x.shape}))
    verify(simple)
    counts = {op: sum(node.op == op for node in simple) for op in OPERATORS}
    assert {op: counts[op] for op in LEFT[name]} == LEFT[name]
    assert not any(counts[op] for op in ("Mul", "Add", "Dropout", "Identity", "Constant", "Unsqueeze"))
    graph.save(tmp_path / "m.onnx")
    expected = ask(tmp_path / "m.onnx", {source: x})[0]
    layers = sum(node.op in ("Conv", "Gemm") for node in simple)
    # Every layer rounds sums of up to 4608 products; errors of layers add up as squares do.
    error = 4 * np.finfo(np.float32).eps * np.sqrt(4608 * layers) * np.abs(expected).max()
    np.testing.assert_allclose(evaluate(simple, {source: x})[0], expected, rtol=0, atol=error)
