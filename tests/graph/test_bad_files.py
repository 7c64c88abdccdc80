"""Files that cannot be right: one `ModelError` each, which says what, where, and what would be."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from zeroskip.errors import InputError, ModelError, ZeroskipError
from zeroskip.graph import OPERATORS, bind, evaluate, load, save, simplify


def test_missing_truncated_and_foreign_files(tmp_path, make_model):
    with pytest.raises(ModelError, match=r"nowhere\.onnx does not exist"):
        load(tmp_path / "nowhere.onnx")
    with pytest.raises(ModelError, match="cannot read"):
        load(tmp_path)
    w = np.ones((8, 8, 3, 3), np.float32)
    content = make_model("float[1,8,9,9] x", "y", "y = Conv(x, w)", w=w).SerializeToString()
    for size in (0, 1, 10, 100, len(content) // 2, len(content) - 1):
        with pytest.raises(ModelError, match=r"cut\.onnx"):
            (tmp_path / "cut.onnx").write_bytes(content[:size])
            load(tmp_path / "cut.onnx")
    (tmp_path / "text.onnx").write_text("This is not a network.\n" * 40)
    with pytest.raises(ModelError, match=r"text\.onnx is not an ONNX model"):
        load(tmp_path / "text.onnx")


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_never_crash(make_model, data):
    w = np.random.default_rng(0).standard_normal((2, 3, 3, 3)).astype(np.float32)
    body = "t = Conv<pads=[1,1,1,1], kernel_shape=[3,3]>(x, w) r = Relu(t) "
    body += "p = MaxPool<kernel_shape=[2,2]>(r) y = Flatten(p)"
    content = bytearray(make_model("float[N,3,6,6] x", "y", body, w=w).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = load(bytes(content))
        bound = bind(graph, dict.fromkeys(graph.inputs, (1, 3, 6, 6)))
        evaluate(simplify(bound), {n: np.zeros((1, 3, 6, 6), bound.values[n].dtype) for n in bound.inputs})
    except ZeroskipError:
        pass


def test_unknown_operators_are_named_with_what_is_supported(make):
    with pytest.raises(ModelError) as caught:
        make("float[2] x", "y", "[strange] y = Selu(x)")
    message = str(caught.value)
    assert 'node "strange"' in message
    assert "operator Selu" in message
    assert all(name in message for name in OPERATORS)


def test_operators_of_other_domains_are_unknown():
    node = helper.make_node("FusedConv", ["x"], ["y"], domain="com.microsoft")
    info = helper.make_tensor_value_info("x", 1, [2]), helper.make_tensor_value_info("y", 1, [2])
    model = helper.make_model(
        helper.make_graph([node], "g", [info[0]], [info[1]]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )
    with pytest.raises(ModelError, match=r"com\.microsoft\.FusedConv"):
        load(model.SerializeToString())


WRONG = {
    "dangling name": ("y = Relu(z)", {}, 'reads "z", which no node computes'),
    "missing output": ("t = Relu(x)", {}, 'no node computes the output "y"'),
    "cycle": ("a = Add(x, y) y = Relu(a)", {}, "part of a cycle"),
    "duplicated name": ("y = Relu(x) y = Neg(x)", {}, '"y" is defined twice'),
    "output named as an input": ("x = Relu(x) y = Neg(x)", {}, '"x" is defined twice'),
    "too many inputs": ("y = Relu(x, x)", {}, "has 2 inputs; Relu takes 1"),
    "too few inputs": ("y = Add(x)", {}, "has 1 inputs; Add takes 2"),
    "too many outputs": ("y, z = Relu(x)", {}, "has 2 outputs; Relu has 1"),
    "unknown attribute": ("y = Relu<alpha=1.0>(x)", {}, 'the unknown attribute "alpha"'),
    "channels differ": ("y = Conv(x, w)", {"w": np.ones((2, 5, 3, 3), "f")}, "has 4 channels, weights"),
    "group does not divide": (
        "y = Conv<group=4>(x, w)",
        {"w": np.ones((6, 1, 3, 3), "f")},
        "group=4 does not divide",
    ),
    "kernel_shape differs": (
        "y = Conv<kernel_shape=[2,2]>(x, w)",
        {"w": np.ones((2, 4, 3, 3), "f")},
        "contradicts the weights",
    ),
    "kernel too large": (
        "y = Conv(x, w)",
        {"w": np.ones((2, 4, 9, 9), "f")},
        "does not fit into the padded input",
    ),
    "bias length": (
        "y = Conv(x, w, b)",
        {"w": np.ones((2, 4, 1, 1), "f"), "b": np.ones(3, "f")},
        "bias is 3, expected 2",
    ),
    "zero stride": ("y = MaxPool<kernel_shape=[2,2], strides=[0,1]>(x)", {}, "must be positive"),
    "pads of the wrong length": ("y = MaxPool<kernel_shape=[2,2], pads=[1,1]>(x)", {}, "pads has 1 axes"),
    "auto_pad": ('y = MaxPool<kernel_shape=[2,2], auto_pad="ALL">(x)', {}, "auto_pad is 'ALL'"),
    "shapes do not broadcast": ("y = Add(x, c)", {"c": np.ones(5, "f")}, "do not broadcast"),
    "types differ": ("y = Add(x, c)", {"c": np.ones(6, "d")}, "different types"),
    "reshape": ("y = Reshape(x, c)", {"c": np.array([7, -1])}, "cannot reshape 1×4×6×6"),
    "axis": ("y = Softmax<axis=4>(x)", {}, "axis 4 is outside -4..3"),
    "perm": ("y = Transpose<perm=[0,1,2]>(x)", {}, "is not an order of the axes"),
    "concat": ("y = Concat<axis=1>(x, c)", {"c": np.ones((1, 4, 6, 5), "f")}, "differ at axis 3"),
    "attribute of the wrong kind": (
        "y = Conv<strides=2>(x, w)",
        {"w": np.ones((2, 4, 3, 3), "f")},
        "malformed",
    ),
    "NaN weights": (
        "y = Conv(x, w)",
        {"w": np.full((2, 4, 3, 3), np.nan, "f")},
        'weights "w" contain NaN or infinity',
    ),
    "infinite bias": (
        "y = Conv(x, w, b)",
        {"w": np.ones((2, 4, 3, 3), "f"), "b": np.array([1, np.inf], "f")},
        'weights "b" contain NaN or infinity',
    ),
    "opposite infinities": (
        "y = Conv(x, w, b)",
        {"w": np.ones((2, 4, 3, 3), "f"), "b": np.array([-np.inf, np.inf], "f")},
        'weights "b" contain NaN or infinity',
    ),
    "string": ('y = Constant<value_string="a">()', {}, "has no numeric value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_networks(make, name):
    body, constants, message = WRONG[name]
    with pytest.raises(ModelError) as caught:
        make("float[1,4,6,6] x", "y", body, **constants)
    assert message in str(caught.value)


def test_infinite_bounds_are_no_weights(make):
    graph = make("float[2] x", "y", "y = Clip(x, c)", c=np.float32(-np.inf))
    assert evaluate(graph, {"x": np.array([1, 2], np.float32)})[0].tolist() == [1, 2]


def test_large_finite_weights_are_accepted(make):
    big = np.full((2, 4, 3, 3), 3e38, np.float32)  # their float32 sum overflows
    assert make("float[1,4,6,6] x", "y", "y = Conv(x, w)", w=big).nodes


def external(tmp_path, make_model):
    model = make_model("float[1,4,6,6] x", "y", "y = Conv(x, w)", w=np.ones((64, 4, 3, 3), np.float32))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return tmp_path / "m.onnx"


def test_external_data(tmp_path, make_model, ask):
    path = external(tmp_path, make_model)
    graph = load(path)
    assert graph.constants["w"].sum() == 64 * 4 * 9
    save(graph, tmp_path / "again.onnx", external=True)
    assert (tmp_path / "again.onnx.data").stat().st_size == 64 * 4 * 9 * 4
    x = np.ones((1, 4, 6, 6), np.float32)
    np.testing.assert_array_equal(ask(path, {"x": x})[0], ask(tmp_path / "again.onnx", {"x": x})[0])
    np.testing.assert_array_equal(load(tmp_path / "again.onnx").constants["w"], graph.constants["w"])


def test_external_data_that_is_missing_short_or_elsewhere(tmp_path, make_model):
    path = external(tmp_path, make_model)
    with pytest.raises(ModelError, match=r'"w" is stored in the file "w\.bin"; load the model from a path'):
        load(path.read_bytes())
    data = (tmp_path / "w.bin").read_bytes()
    (tmp_path / "w.bin").write_bytes(data[:-4])
    with pytest.raises(ModelError, match="holds 9212 bytes, expected 9216"):
        load(path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(ModelError, match=r'needs the file ".*w\.bin", which is missing'):
        load(path)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "../secret"
    with pytest.raises(ModelError, match="not a file beside the model"):
        path.write_bytes(model.SerializeToString())
        load(path)


def sparse_model(values, indices, dims):
    info = helper.make_tensor_value_info("x", 1, [4]), helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [info[0]], [info[1]])
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.array(values, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64), "w_indices"))
    sparse.dims.extend(dims)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()


def test_sparse_initializers_with_both_kinds_of_indices():
    expected = [[0, 5, 0, 0], [7, 0, 0, 9]]
    for indices in ([1, 4, 7], [[0, 1], [1, 0], [1, 3]]):
        assert load(sparse_model([5, 7, 9], indices, [2, 4])).constants["w"].tolist() == expected
    assert not load(sparse_model([], np.zeros(0, int), [2, 4])).constants["w"].any()


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([1, 4, 8], "outside its shape 2×4"),
        ([-1, 4, 7], "outside its shape 2×4"),
        ([[0, 1], [1, 0], [1, 4]], "outside its shape 2×4"),
        ([1, 4, 4], "an index twice"),
        ([1, 4], "3 values but indices of shape 2"),
    ],
)
def test_wrong_sparse_indices(indices, message):
    with pytest.raises(ModelError, match=message):
        load(sparse_model([5, 7, 9], indices, [2, 4]))


def test_sparse_saving_is_chosen_by_size(make, tmp_path, ask):
    rng = np.random.default_rng(0)
    thin, thick = rng.standard_normal((2, 8, 4, 3, 3)).astype(np.float32)
    thin[rng.random(thin.shape) < 0.9] = 0
    negative = thin.copy()
    negative[negative == 0] = -0.0
    body = "a = Conv(x, p) b = Conv(x, q) c = Conv(x, r) y = Concat<axis=1>(a, b, c)"
    graph = make("float[1,4,6,6] x", "y", body, p=thin, q=thick, r=negative)
    graph.save(tmp_path / "m.onnx", sparse=True)
    model = onnx.load(tmp_path / "m.onnx")
    assert [s.values.name for s in model.graph.sparse_initializer] == ["p"]
    for name, array in graph.constants.items():
        kept = load(tmp_path / "m.onnx").constants[name]
        np.testing.assert_array_equal(kept.view(np.int32), array.view(np.int32))
    onnx.checker.check_model(model)


def test_damaged_tensors(make_model):
    model = make_model("float[2] x", "y", "y = Add(x, w)", w=np.ones(2, np.float32))
    model.graph.initializer[0].raw_data = b"\0" * 7
    with pytest.raises(ModelError, match='initializer "w" holds 7 bytes, expected 8'):
        load(model.SerializeToString())
    model.graph.initializer[0].data_type = TensorProto.STRING
    with pytest.raises(ModelError, match="element type STRING is not supported"):
        load(model.SerializeToString())


def test_unwritable_paths(make, tmp_path):
    graph = make("float[2] x", "y", "y = Relu(x)")
    with pytest.raises(InputError, match="does not exist"):
        graph.save(tmp_path / "no" / "m.onnx")
    with pytest.raises(InputError, match="a folder"):
        graph.save(tmp_path)
