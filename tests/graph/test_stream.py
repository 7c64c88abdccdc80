"""Reading weights past protobuf gives what protobuf gives, and refuses what it refuses."""

from io import BytesIO

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from zeroskip.errors import ModelError
from zeroskip.graph import load
from zeroskip.graph.onnx_stream import LARGE, StreamError, split


def big_model(make_model):
    rng = np.random.default_rng(0)
    at = LARGE // 4
    arrays = {
        f"w{n}": rng.standard_normal(n).astype(np.float32) for n in (1, at - 30, at - 1, at, at + 1, 9 * at)
    }
    body = " ".join(f"y{n} = Add(x, {n})" for n in arrays)
    model = make_model("float x", ", ".join(f"y{n}" for n in arrays), body, **arrays)
    model.metadata_props.add(key="k", value="v")
    return model, arrays


def test_small_messages_and_large_arrays(make_model):
    model = big_model(make_model)[0]
    content = model.SerializeToString()
    rest, payloads = split(BytesIO(content), len(content))
    assert len(rest) < 5 * LARGE < len(content)
    assert [p is None for p in payloads] == [True, True, False, False, False, False]
    parsed = onnx.ModelProto.FromString(rest)
    for tensor, payload in zip(model.graph.initializer, payloads):
        if payload is not None:
            assert payload.tobytes() == tensor.raw_data
            tensor.ClearField("raw_data")
    assert parsed == model


def test_loaded_weights_are_aligned_and_equal(make_model, tmp_path):
    model, arrays = big_model(make_model)
    onnx.save(model, tmp_path / "m.onnx")
    for source in (tmp_path / "m.onnx", model.SerializeToString(), bytearray(model.SerializeToString())):
        graph = load(source)
        assert graph.metadata == {"k": "v"}
        for name, array in arrays.items():
            np.testing.assert_array_equal(graph.constants[name], array)
            assert graph.constants[name].flags.aligned
            assert not graph.constants[name].flags.writeable


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x3a\x05ab", "exceeds its message"),
        (b"\x3a", "ends within a number"),
        (b"\x3b\x01", "wire type 3"),
        (b"\xff" * 12, "more than 64 bits"),
        (b"\x3a\x04\x2a\x7fab", "exceeds its message"),
    ],
)
def test_messages_that_cannot_be_walked(content, message):
    with pytest.raises(StreamError, match=message):
        split(BytesIO(content), len(content))
    with pytest.raises(
        ModelError, match=f"the model is not an ONNX model, or is truncated \\({len(content)} bytes"
    ):
        load(content)


def test_files_that_end_within_a_tensor(make_model, tmp_path):
    content = big_model(make_model)[0].SerializeToString()
    (tmp_path / "m.onnx").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match=r"m\.onnx is not an ONNX model, or is truncated"):
        load(tmp_path / "m.onnx")


def test_large_tensors_of_packed_types_and_functions(make_model):
    """What must be parsed whole still is."""
    values = (np.arange(3 * LARGE) % 7).astype(np.int64)
    tensor = helper.make_tensor("w", onnx.TensorProto.INT4, [values.size], values)
    assert len(tensor.raw_data or b"") == 0
    tensor.ClearField("int32_data")
    tensor.raw_data = bytes(int(a) | int(b) << 4 for a, b in zip(values[::2], values[1::2]))
    model = make_model(f"int4[{values.size}] x", f"int4[{values.size}] y", "y = Identity(w)")
    model.graph.initializer.append(tensor)
    np.testing.assert_array_equal(load(model.SerializeToString()).constants["w"].astype(np.int64), values)
    text = """
    <ir_version: 8, opset_import: ["": 17, "local": 1]> g (float[2] x) => (float[N] y) { y = local.f(x, w) }
    <opset_import: ["": 17], domain: "local"> f (a, b) => (c) { c = Concat<axis = 0>(a, b) }
    """
    model = onnx.parser.parse_model(text)
    array = np.arange(2 * LARGE, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(array, "w"))
    np.testing.assert_array_equal(load(model.SerializeToString()).constants["w"], array)
