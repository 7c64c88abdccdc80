"""Files read, simplified, written and read again give the answers that onnxruntime gives for the original."""

import numpy as np
import onnx
import pytest

from zeroskip.graph import bind, evaluate, load, simplify, verify

EPSILON = np.finfo(np.float32).eps


def picture(graph, batch=1):
    value = graph.values[graph.inputs[0]]
    shape = [batch if isinstance(d, str) else d for d in value.shape]
    return {value.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


def tolerance(graph, answer):
    """Rounding of the longest sums, layer after layer, relative to the largest answer.

    A layer of reduction length L adds errors of about sqrt(L)·epsilon, and errors of layers add up likewise.
    """
    lengths = [graph.constants[n.inputs[1]][0].size for n in graph if n.op in ("Conv", "Gemm")]
    return 4 * EPSILON * np.sqrt(sum(lengths)) * np.abs(answer).max()


def test_saved_models_are_exact(network, ask, tmp_path):
    graph = load(network)
    feeds = picture(graph)
    expected = ask(network, feeds)
    for name, sparse in (("dense.onnx", False), ("sparse.onnx", True)):
        graph.save(tmp_path / name, sparse=sparse)
        for a, b in zip(ask(tmp_path / name, feeds), expected):
            np.testing.assert_array_equal(a, b)
        again = load(tmp_path / name)
        verify(again)
        assert [n.op for n in again] == [n.op for n in graph]
        assert again.constants.keys() == graph.constants.keys()
        for key, array in graph.constants.items():
            np.testing.assert_array_equal(again.constants[key], array)


def test_simplified_networks_agree(network, ask, tmp_path):
    graph = load(network)
    feeds = picture(graph, batch=2)
    expected = ask(network, feeds)
    bound = bind(graph, {name: array.shape for name, array in feeds.items()})
    simple = simplify(bound)
    verify(simple)
    assert len(simple.nodes) < len(graph.nodes)
    assert not any(n.op in ("Relu", "Clip") and simple.producers()[n.inputs[0]].op == "Conv" for n in simple)
    for candidate in (bound, simple, simplify(graph)):
        for a, b in zip(evaluate(candidate, feeds), expected):
            assert np.abs(a - b).max() <= tolerance(graph, b)
    simple.save(tmp_path / "simple.onnx")
    for a, b in zip(ask(tmp_path / "simple.onnx", feeds), expected):
        assert np.abs(a - b).max() <= tolerance(graph, b)


def test_metadata_and_types_survive(make, tmp_path):
    graph = make("float[N,2] x, int64[3] i", "float[N,2] y, int64[3] j", "y = Relu(x) j = Identity(i)")
    graph = graph.with_(metadata={"author": "nobody"})
    graph.save(tmp_path / "m.onnx")
    again = load((tmp_path / "m.onnx").read_bytes())
    assert again.metadata == {"author": "nobody"}
    assert {n: (v.shape, v.dtype) for n, v in again.values.items()} == {
        n: (v.shape, v.dtype) for n, v in graph.values.items()
    }
    assert (again.inputs, again.outputs) == (graph.inputs, graph.outputs)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint16", "int32", "int64", "bool"])
def test_constants_of_every_type_survive(make, tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    kind = {"float16": "float16", "float64": "double"}.get(dtype, dtype)
    graph = make(f"{kind}[2,3] x", f"{kind}[4,3] y", "y = Concat<axis = 0>(x, c)", c=array)
    graph.save(tmp_path / "m.onnx")
    kept = load(tmp_path / "m.onnx").constants["c"]
    assert kept.dtype == array.dtype
    np.testing.assert_array_equal(kept, array)


def test_bfloat16_survives(tmp_path, make):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([1, -2.5, 3], ml_dtypes.bfloat16)
    graph = make("bfloat16[3] x", "bfloat16[3] y", "y = Add(x, c)", c=array)
    graph.save(tmp_path / "m.onnx")
    kept = load(tmp_path / "m.onnx").constants["c"]
    np.testing.assert_array_equal(kept.astype(np.float32), array.astype(np.float32))


def test_fused_nodes_are_written_apart(make, ask, rng, tmp_path):
    w = rng.standard_normal((4, 3, 3, 3)).astype(np.float32)
    body = "a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(x, w) "
    body += "s = Add(a, b) g = Sigmoid(s) y = Mul(s, g)"
    graph = make("float[1,3,6,6] x", "y", body, w=w)
    simple = simplify(graph)
    assert [n.op for n in simple] == ["Conv", "Conv"]
    assert simple.nodes[1].attr("activation") == ("Silu",)
    assert simple.nodes[1].input(3)
    simple.save(tmp_path / "m.onnx")
    assert [n.op for n in load(tmp_path / "m.onnx")] == ["Conv", "Conv", "Add", "Sigmoid", "Mul"]
    x = rng.standard_normal((1, 3, 6, 6)).astype(np.float32)
    expected = evaluate(graph, {"x": x})[0]
    np.testing.assert_allclose(ask(tmp_path / "m.onnx", {"x": x})[0], expected, rtol=0, atol=1e-5)


def test_an_interrupted_save_leaves_the_old_file(make, tmp_path, monkeypatch):
    graph = make("float[2] x", "y", "y = Relu(x)")
    path = tmp_path / "m.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        graph.save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


NEWER = {
    "Gelu": (20, 'y = Gelu<approximate="tanh">(x)'),
    "AveragePool": (19, "y = AveragePool<kernel_shape=[2,2], dilations=[2,2]>(x)"),
    "Pad": (19, 'y = Pad<mode="wrap">(x, k)'),
    "Resize": (
        19,
        'y = Resize<coordinate_transformation_mode="half_pixel_symmetric", mode="linear">(x, , s)',
    ),
    "Relu": (18, "y = Relu(x)"),
}


@pytest.mark.parametrize("op", NEWER)
def test_the_oldest_sufficient_opset_is_written(make, ask, tmp_path, op):
    opset, body = NEWER[op]
    k, s = np.array([0, 0, 1, 1, 0, 0, 1, 1]), np.array([1, 1, 1.5, 1.5], np.float32)
    graph = make("float[N,2,5,5] x", "y", body, k=k, s=s)
    graph.save(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    x = np.random.default_rng(0).standard_normal((2, 2, 5, 5)).astype(np.float32)
    np.testing.assert_allclose(ask(model, {"x": x})[0], evaluate(graph, {"x": x})[0], rtol=1e-5, atol=1e-6)
