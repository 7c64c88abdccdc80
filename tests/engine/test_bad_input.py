"""What is wrong is said once, clearly: what, where, and how to fix it; the session works on."""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import helper

from zeroskip import AlgorithmError, InputError, ModelError
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.engine.memory import memory_limit


def picture(n=1, c=3, h=12, w=12, dtype=np.float32):
    return np.random.default_rng(0).standard_normal((n, c, h, w)).astype(dtype)


@pytest.fixture(scope="module")
def session(networks):
    return InferenceSession(networks.small())


INPUTS = {
    "no dict": ([picture()], "expected a dict of name to array, got list"),
    "nothing": ({}, r"missing \['x'\].*inputs are \['x'\]"),
    "misnamed": ({"X": picture()}, r"missing \['x'\] and unknown \['X'\]"),
    "one too many": ({"x": picture(), "z": picture()}, r"unknown \['z'\]"),
    "double": ({"x": picture(dtype=np.float64)}, "expected float32, got float64; use .astype"),
    "bytes swapped": ({"x": picture(dtype=">f4")}, "expected float32, got >f4"),
    "whole numbers": ({"x": np.zeros((1, 3, 12, 12), np.uint8)}, "expected float32, got uint8"),
    "a list": ({"x": picture().tolist()}, "expected a NumPy array, got list"),
    "no batch": ({"x": picture()[0]}, "expected shape Nx3x12x12, got 3x12x12"),
    "a scalar": ({"x": np.float32(1) * np.ones(())}, "got a?.*scalar|expected a NumPy array"),
    "channels": ({"x": picture(c=4)}, "expected shape Nx3x12x12, got 1x4x12x12"),
    "size": ({"x": picture(h=11)}, "expected shape Nx3x12x12, got 1x3x11x12"),
    "batch of none": ({"x": picture(n=0)}, "batch is 0"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs(session, case):
    inputs, message = INPUTS[case]
    with pytest.raises(InputError, match=message):
        session.run(None, inputs)
    assert session.run(None, {"x": picture()})[0].shape == (1, 5)


def test_outputs(session):
    with pytest.raises(InputError, match=r"unknown \['z'\].*outputs are \['y'\]"):
        session.run(["z"], {"x": picture()})
    with pytest.raises(InputError, match="expected a list of names or None, got the text 'y'"):
        session.run("y", {"x": picture()})
    assert session.run([], {"x": picture()}) == []
    assert len(session.run(["y", "y"], {"x": picture()})) == 2


OPTIONS = {
    "a negative thread count": ({"threads": -1}, "threads: expected a number from 0"),
    "a thread count in words": ({"threads": "2"}, "threads: expected a number from 0"),
    "an unknown algorithm": ({"algorithm": "sparse_driect"}, "did you mean 'sparse_direct'"),
    "an algorithm that is no text": ({"algorithm": None}, "no convolution algorithm is called None"),
    "a shape in words": ({"shapes": {"x": "1x3x12x12"}}, "expected whole numbers for input 'x'"),
    "an unknown preference": ({"prefer": "cudnn"}, "no convolution algorithm is called 'cudnn'"),
    "an unknown target": ({"target": "z80"}, "target 'z80' is unknown"),
    "a foreign target": ({"target": "aarch64-linux-gnu"}, "cannot run on this machine|unknown"),
    "an algorithm that refuses": (
        {"algorithm": "depthwise"},
        "layer 'first' is refused by algorithm 'depthwise'",
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options(networks, case):
    options, message = OPTIONS[case]
    with pytest.raises(InputError, match=message):
        InferenceSession(networks.small(), SessionOptions(**options))


def test_a_refusal_is_an_algorithm_error(networks):
    with pytest.raises(AlgorithmError):
        InferenceSession(networks.small(), SessionOptions(algorithm="depthwise"))


def test_stray_arguments(networks):
    with pytest.raises(InputError, match="providers"):
        InferenceSession(networks.small(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("model", [None, 3, ["model.onnx"]])
def test_what_is_no_model(model):
    with pytest.raises(InputError, match="expected a path, an ONNX file's bytes or a Graph"):
        InferenceSession(model)


def test_options_of_another_kind(networks):
    with pytest.raises(InputError, match="expected SessionOptions, got dict"):
        InferenceSession(networks.small(), {"threads": 2})


def test_opening_shapes(networks):
    for shapes in ({"x": (1, 3, 12)}, {"z": (1, 3, 12, 12)}, {"x": (1, 4, 12, 12)}):
        with pytest.raises((InputError, ModelError)):
            InferenceSession(networks.small(), SessionOptions(shapes=shapes))


def test_no_plan_yet(networks):
    session = InferenceSession(networks.small(size="S"))
    with pytest.raises(InputError, match=r"no plan yet.*call run first"):
        _ = session.plan
    session.run(None, {"x": picture()})
    assert session.plan.shapes == {"x": (1, 3, 12, 12)}
    with pytest.raises(InputError, match=r"no step called 'secnod'.*did you mean 'second'"):
        session.plan.explain("secnod")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(networks, value):
    w = np.ones((4, 3, 3, 3), np.float32)
    w[1, 2, 0, 1] = value
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="bad")
    model = networks.model([conv], {"x": ["N", 3, 6, 6]}, {"y": ["N", 4, 4, 4]}, {"w": w})
    with pytest.raises(ModelError, match=r"(?i)w.*(nan|inf|finite)"):
        InferenceSession(model)


@pytest.mark.parametrize("size", [12_000, 200_000, 2**31])
def test_an_image_that_cannot_fit(networks, size):
    """Too much for 32-bit offsets, for the machine, for anything."""
    model = networks.small(size="H")
    with pytest.raises(ModelError, match=r"GB|memory"):
        InferenceSession(model, SessionOptions(shapes={"x": (1, 3, size, size)}))


def test_a_batch_fits_image_by_image(networks):
    session = InferenceSession(networks.small(size=224), SessionOptions(shapes={"x": (2**31, 3, 224, 224)}))
    assert session.plan.shapes["x"] == (1, 3, 224, 224)


def test_an_arena_that_cannot_fit(networks, monkeypatch):
    """Each value would fit, but not all that are needed at once."""
    session = InferenceSession(networks.small(), SessionOptions(shapes={"x": (4, 3, 12, 12)}))
    largest = session.plan.arena_bytes - 1
    monkeypatch.setattr("zeroskip.engine.runner.memory_limit", lambda: largest)
    with pytest.raises(ModelError, match="activations"):
        InferenceSession(networks.small(), SessionOptions(shapes={"x": (4, 3, 12, 12)}))


def test_a_container_may_have_less_memory_than_its_machine(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr("zeroskip.engine.memory.CONTAINER_LIMITS", (limit, tmp_path / "absent"))
    machine = memory_limit()
    limit.write_text("max\n")
    assert memory_limit() == machine
    limit.write_text("1000000\n")
    assert memory_limit() == 1_000_000


def test_memory_that_runs_out(networks, monkeypatch):
    """What the system refuses is an error of the model, not of Python; the session works on."""
    session = InferenceSession(networks.small())

    def refuse(size):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("zeroskip.engine.executor.allocate", refuse)
        with pytest.raises(ModelError, match="smaller batch"):
            session.run(None, {"x": picture(n=2)})
    assert session.run(None, {"x": picture(n=2)})[0].shape == (2, 5)


def test_messages_fit_a_line(session):
    for inputs, _ in INPUTS.values():
        with pytest.raises(InputError) as caught:
            session.run(None, inputs)
        assert not re.search(r"\n|0x[0-9a-f]{6}", str(caught.value))
