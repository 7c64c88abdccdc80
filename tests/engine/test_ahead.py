"""Convolutions ask for the weights of the products that follow, each for a part of its own."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from zeroskip.codegen import Asking, Call, Coming, Kernel, Part
from zeroskip.engine import InferenceSession, SessionOptions, ahead
from zeroskip.engine.ahead import ask_ahead
from zeroskip.engine.batches import in_parts
from zeroskip.engine.executor import Context
from zeroskip.engine.plan import Step

WIDTHS = (96, 160, 64)


@pytest.fixture
def network(networks):
    """Sparse 1x1 convolutions and, among them, products: WIDTHS channels, then a classifier."""
    rng, nodes, constants, c = np.random.default_rng(0), [], {}, 64
    for i, k in enumerate(WIDTHS):
        w = rng.standard_normal((k, c, 1, 1)).astype(np.float32)
        w[rng.random(w.shape) >= 0.1] = 0
        constants[f"w{i}"], c = w, k
        names = ["x" if i == 0 else f"v{i - 1}", f"w{i}"], [f"v{i}"]
        nodes.append(helper.make_node("Conv", *names, name=f"conv{i}"))
    nodes.append(helper.make_node("GlobalAveragePool", [f"v{i}"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    source = "flat"
    for name, size in (("hidden", 512), ("y", 1000)):
        constants[f"{name}_w"] = rng.standard_normal((size, c)).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [source, f"{name}_w"], [name], name=name, transB=1))
        source, c = name, size
    return networks.model(nodes, {"x": ["N", 64, 14, 14]}, {"y": ["N", 1000]}, constants)


def asked(steps):
    """What each call asks for, as (address of the array, first byte, bytes), in the order of running."""
    parts = []
    for call in (call for step in steps for call in step.calls):
        if call.asking is not None:
            part, task, turn = call.arguments[call.asking.slot : call.asking.slot + 3]
            if isinstance(part, Part):
                assert 0 < turn <= task
                parts.append((part.array.ctypes.data, part.offset, task * call.tasks))
    return parts


@pytest.mark.parametrize("threads", [1, 2])
def test_products_find_their_weights_asked_for(networks, network, threads):
    options = SessionOptions(prefer="sparse_direct", threads=threads)
    session = InferenceSession(network, options)
    gemms = [step.calls[0] for step in session.plan.steps if step.op == "Gemm"]
    streams = [call.arguments[call.stream] for call in gemms]
    parts = asked(session.plan.steps)
    assert parts[-1][:2] == (streams[0].ctypes.data, 0)  # the nearest, for what is read first
    assert {array for array, _, _ in parts} <= {stream.ctypes.data for stream in streams}
    for (array, start, _), (later, first, size) in pairwise(parts):
        assert first < start <= first + size if array == later else start == 0
    networks.agreeing(network, np.random.default_rng(1).standard_normal((1, 64, 14, 14)).astype(np.float32))


def test_a_product_with_zeros_alone_has_nothing_to_ask_for(networks):
    w = np.random.default_rng(0).standard_normal((96, 64, 1, 1)).astype(np.float32)
    constants = {"w": np.where(np.abs(w) > 1.6, w, 0).astype(np.float32), "z": np.zeros((9, 96), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "z"], ["y"], transB=1),
    ]
    model = networks.model(nodes, {"x": ["N", 64, 14, 14]}, {"y": ["N", 9]}, constants)
    session = InferenceSession(model, SessionOptions(prefer="sparse_direct"))
    assert asked(session.plan.steps) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_the_next_images_are_asked_for_where_they_are_known(networks, threads):
    rng = np.random.default_rng(2)
    w = rng.standard_normal((96, 64, 1, 1)).astype(np.float32)
    constants = {"w": np.where(np.abs(w) > 1.6, w, 0).astype(np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    model = networks.model(nodes, {"x": ["N", 64, 14, 14]}, {"y": ["N", 96, 14, 14]}, constants)
    session = InferenceSession(model, SessionOptions(prefer="sparse_direct", threads=threads))
    x = rng.standard_normal((3, 64, 14, 14)).astype(np.float32)
    call = next(call for step in session.plan.steps for call in step.calls if call.asking)
    slot = call.asking.slot
    what, task, turn = call.arguments[slot : slot + 3]
    assert what == Coming(next(n for n, b in enumerate(session.plan.buffers) if b.source == ("input", "x")))
    assert 0 < turn <= task <= x[0].nbytes + turn

    context, outputs = Context(session.plan), {"y": np.empty((1, 96, 14, 14), np.float32)}
    (program,) = context.prepare()
    block = next(array for array in program._keep if getattr(array, "size", 0) == len(call.arguments))
    for coming, expected in ((x[1:2], [x[1:2].ctypes.data, task]), (None, [0, 0])):
        context.run({"x": x[:1]}, outputs, session._pool, None if coming is None else {"x": coming})
        assert block[slot : slot + 2].tolist() == expected
    np.testing.assert_array_equal(outputs["y"], session.run(None, {"x": x[:1]})[0])


def test_parts_of_a_batch_hear_what_follows_them():
    heard = []

    def run(now, coming):
        heard.append((len(now["x"]), coming["x"].tolist() if coming else None))
        return {"y": now["x"] + 1}, "plan"

    outputs, plan = in_parts(run, {"x": np.arange(5)}, 2)
    assert heard == [(2, [2, 3]), (2, [4]), (1, None)]
    assert outputs["y"].tolist() == [1, 2, 3, 4, 5] and plan == "plan"


@given(
    sizes=st.lists(st.integers(0, 3000).map(lambda n: 64 * n), min_size=1, max_size=3),
    kernels=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 500), st.integers(1, 2000)), max_size=4),
)
def test_nothing_is_asked_for_twice_or_past_the_end(sizes, kernels):
    nothing = Kernel("nothing", lambda b: None)
    convolutions = [
        Call(nothing, (0, 0, 0), tasks, asking=Asking(0, tasks * turns, 64 * lines))
        for tasks, turns, lines in kernels
    ]
    streams = [np.zeros(size, np.uint8) for size in sizes]
    products = [Call(nothing, (stream,), stream=0) for stream in streams]
    steps = ask_ahead([Step("", "", (call,), ()) for call in (*convolutions, *products)])
    assert [len(step.calls) for step in steps] == [1] * len(kernels + sizes)
    left = {stream.ctypes.data: min(stream.nbytes, ahead.AT_MOST) for stream in streams}
    for call in reversed([step.calls[0] for step in steps[: len(kernels)]]):
        part, task, turn = call.arguments
        if isinstance(part, Part):
            assert task % turn == 0
            assert turn * call.asking.turns >= task * call.tasks - turn * call.tasks
            assert part.offset < left[part.array.ctypes.data]
            assert part.offset % 64 == 0
