"""Older opsets: read in canonical form, they compute what onnxruntime computes; so does a new file."""

import numpy as np
import onnx
import onnx.checker
import pytest

from zeroskip.errors import ModelError
from zeroskip.graph import bind, evaluate, load, save, verify
from zeroskip.graph.onnx_reader import OLDEST_OPSET

I64 = np.int64

# Opset, inputs' type, body, initializers, the operators that it becomes.
OLD_FORMS = {
    "clip-6": (7, "float[N,4,6,6] x", "y = Clip<min=-0.5, max=0.25>(x)", {}, ["Clip"]),
    "clip-6-max-only": (7, "float[N,4,6,6] x", "y = Clip<max=0.25>(x)", {}, ["Clip"]),
    "slice-1": (
        9,
        "float[N,4,6,6] x",
        "y = Slice<axes=[1,-1], starts=[1,-4], ends=[99,-1]>(x)",
        {},
        ["Slice"],
    ),
    "slice-1-no-axes": (9, "float[N,4,6,6] x", "y = Slice<starts=[0,1], ends=[9,3]>(x)", {}, ["Slice"]),
    "pad-2": (10, "float[N,4,6,6] x", "y = Pad<pads=[0,0,1,2,0,0,3,0], value=1.5>(x)", {}, ["Pad"]),
    "pad-2-reflect": (
        10,
        "float[N,4,6,6] x",
        'y = Pad<pads=[0,0,1,2,0,0,3,0], mode="reflect">(x)',
        {},
        ["Pad"],
    ),
    "squeeze-1": (11, "float[N,1,6,1] x", "y = Squeeze<axes=[1,3]>(x)", {}, ["Squeeze"]),
    "squeeze-1-all": (11, "float[N,1,6,1] x", "y = Squeeze(x)", {}, ["Squeeze"]),
    "unsqueeze-1": (11, "float[N,4,6,6] x", "y = Unsqueeze<axes=[0,5]>(x)", {}, ["Unsqueeze"]),
    "split-2": (11, "float[N,4,6,6] x", "a, y = Split<axis=1, split=[1,3]>(x)", {}, ["Split"]),
    "split-2-equal": (11, "float[N,4,6,6] x", "a, y = Split<axis=1>(x)", {}, ["Split"]),
    "split-13-equal": (13, "float[N,4,6,6] x", "a, y = Split<axis=2>(x)", {}, ["Split"]),
    "reduce-sum-11": (11, "float[N,4,6,6] x", "y = ReduceSum<axes=[1,-1], keepdims=0>(x)", {}, ["ReduceSum"]),
    "reduce-mean-13": (17, "float[N,4,6,6] x", "y = ReduceMean<axes=[2,3]>(x)", {}, ["ReduceMean"]),
    "reduce-max-all": (12, "float[N,4,6,6] x", "y = ReduceMax(x)", {}, ["ReduceMax"]),
    "softmax-11": (11, "float[N,4,6,6] x", "y = Softmax(x)", {}, ["Softmax"]),
    "softmax-11-last": (11, "float[N,4,6,6] x", "y = Softmax<axis=3>(x)", {}, ["Softmax"]),
    "log-softmax-9": (9, "float[N,4,6,6] x", "y = LogSoftmax<axis=2>(x)", {}, ["LogSoftmax"]),
    "dropout-7": (7, "float[N,4,6,6] x", "y = Dropout<ratio=0.3>(x)", {}, ["Dropout"]),
    "dropout-10-mask": (10, "float[N,4,6,6] x", "y, m = Dropout(x)", {}, ["Dropout"]),
    "upsample-7": (8, "float[N,4,6,6] x", "y = Upsample<scales=[1.0,1.0,2.0,3.0]>(x)", {}, ["Resize"]),
    "upsample-9": (
        9,
        "float[N,4,6,6] x",
        'y = Upsample<mode="linear">(x, s)',
        {"s": np.array([1, 1, 2, 2], np.float32)},
        ["Resize"],
    ),
    "resize-10": (
        10,
        "float[N,4,6,6] x",
        "y = Resize(x, s)",
        {"s": np.array([1, 1, 0.5, 0.3], np.float32)},
        ["Resize"],
    ),
    "resize-11": (
        11,
        "float[N,4,6,6] x",
        'y = Resize<mode="linear">(x, e, e, s)',
        {"e": np.zeros(0, np.float32), "s": np.array([2, 4, 9, 3], I64)},
        ["Resize"],
    ),
    "batch-normalization-7": (
        7,
        "float[N,4,6,6] x",
        "y = BatchNormalization<epsilon=0.1, momentum=0.5>(x, s, b, m, v)",
        {k: np.linspace(a, 2, 4).astype(np.float32) for k, a in zip("sbmv", (0.5, -1, 0, 0.1))},
        ["BatchNormalization"],
    ),
    "gemm-7": (
        7,
        "float[N,4] x",
        "y = Gemm<transB=1>(x, w, c)",
        {"w": np.ones((3, 4), np.float32), "c": np.ones(3, np.float32)},
        ["Gemm"],
    ),
    "max-pool-8": (8, "float[N,4,6,6] x", "y = MaxPool<kernel_shape=[3,3]>(x)", {}, ["MaxPool"]),
    "average-pool-7": (
        7,
        "float[N,4,6,6] x",
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)",
        {},
        ["AveragePool"],
    ),
    "sum-8": (8, "float[N,4,6,6] x", "y = Sum(x, c, x)", {"c": np.ones(6, np.float32)}, ["Add", "Add"]),
    "constants": (
        12,
        "float[N,4,6,6] x",
        "a = Constant<value_int=2>() c = Cast<to=1>(a) y = Mul(x, c)",
        {},
        ["Cast", "Mul"],
    ),
}


@pytest.mark.parametrize("name", OLD_FORMS)
def test_old_forms(name, make_model, ask, tmp_path):
    opset, inputs, body, constants, operators = OLD_FORMS[name]
    model = make_model(inputs, "y", body, opset, **constants)
    graph = load(model.SerializeToString())
    verify(graph)
    assert [node.op for node in graph] == operators
    shape = [2 if d is None or isinstance(d, str) else d for d in graph.values["x"].shape]
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = ask(model, {"x": x})[0]
    np.testing.assert_allclose(evaluate(graph, {"x": x})[0], expected, rtol=1e-5, atol=1e-6)
    save(bind(graph, {"x": x.shape}), tmp_path / "bound.onnx")
    onnx.checker.check_model(tmp_path / "bound.onnx", full_check=True)
    np.testing.assert_allclose(ask(tmp_path / "bound.onnx", {"x": x})[0], expected, rtol=1e-5, atol=1e-6)
    save(graph, tmp_path / "new.onnx")
    if graph.values["y"].shape is not None:  # the checker does not know what onnxruntime allows
        onnx.checker.check_model(tmp_path / "new.onnx", full_check=True)
    np.testing.assert_array_equal(ask(tmp_path / "new.onnx", {"x": x})[0], expected)
    np.testing.assert_allclose(
        evaluate(load(tmp_path / "new.onnx"), {"x": x})[0], expected, rtol=1e-5, atol=1e-6
    )


def test_per_element_batch_normalization(make_model):
    """spatial=0 has no successor; it becomes arithmetic (and onnxruntime no longer computes it)."""
    rng = np.random.default_rng(0)
    s, b, m, v = (rng.random((3, 2, 2)).astype(np.float32) + 0.1 for _ in range(4))
    model = make_model(
        "float[N,3,2,2] x", "y", "y = BatchNormalization<spatial=0>(x, s, b, m, v)", 7, s=s, b=b, m=m, v=v
    )
    x = rng.standard_normal((2, 3, 2, 2)).astype(np.float32)
    graph = load(model.SerializeToString())
    assert [n.op for n in graph] == ["Mul", "Add"]
    np.testing.assert_allclose(
        evaluate(graph, {"x": x})[0], (x - m) / np.sqrt(v + 1e-5) * s + b, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("opset", [*range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1)])
def test_every_opset_is_read(make_model, opset):
    assert load(make_model("float[2] x", "y", "y = Relu(x)", opset).SerializeToString()).nodes[0].op == "Relu"


@pytest.mark.parametrize("opset", [6, onnx.defs.onnx_opset_version() + 1])
def test_other_opsets_are_refused(make_model, opset):
    with pytest.raises(ModelError, match=f"opset {opset}; supported are 7 to"):
        load(make_model("float[2] x", "y", "y = Relu(x)", opset).SerializeToString())


def test_initializers_that_are_also_inputs_are_constants(make):
    graph = make("float[2] x, float[2] w", "y", "y = Add(x, w)", opset=8, w=np.ones(2, np.float32))
    assert graph.inputs == ("x",)
    assert set(graph.constants) == {"w"}


def test_nodes_in_any_order_are_sorted(make):
    graph = make("float[2] x", "y", "y = Relu(t) t = Neg(x)")
    assert [node.op for node in graph] == ["Neg", "Relu"]


def test_functions_are_inlined(tmp_path):
    import onnx.parser

    text = """
    <ir_version: 8, opset_import: ["": 17, "local": 1]>
    g (float[2] x) => (float[2] y) { y = local.twice(x) }
    <opset_import: ["": 17], domain: "local"> twice (a) => (b) { b = Add(a, a) }
    """
    model = onnx.parser.parse_model(text)
    graph = load(model.SerializeToString())
    assert [node.op for node in graph] == ["Add"]
