"""Per-layer times: every step is there, the useful work adds up, and the limits are limits."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from rich.console import Console

from zeroskip.bench.limits import clock_ghz, fma_gflops, read_gbs
from zeroskip.bench.profile import Profile, StepTime, profile
from zeroskip.codegen import resolve
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.errors import InputError
from zeroskip.graph import arithmetic_cost, bind, load, simplify
from zeroskip.report.profile import profile_table

INPUTS = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_add_up(colour_model: Path, threads: int) -> None:
    session = InferenceSession(load(colour_model), SessionOptions(threads=threads))
    turns: list[tuple[int, int]] = []
    found = profile(session, INPUTS, seconds=0.02, progress=lambda done, total: turns.append((done, total)))
    cost = arithmetic_cost(simplify(bind(session.graph, {"input": INPUTS.shape})))
    assert [step.name for step in found.steps] == [step.name for step in session.plan.steps]
    assert found.total.dense_macs == cost.dense_macs
    assert found.total.effectual_macs == cost.effectual_macs == cost.dense_macs // 9 // 3
    assert found.total.bytes > INPUTS.nbytes
    assert (found.model, found.shape, found.threads) == ("colours", INPUTS.shape, threads)
    assert found.run_ms > 0
    assert turns[-1] == (1000, 1000)
    (conv,) = (step for step in found.steps if step.op == "Conv")
    assert conv.kernel.startswith(session.plan.step("mix").algorithm)
    assert 0 < conv.share_of_limit < 1.5  # the limits are measured too, on a machine that has other work


def test_steps_of_large_batches_are_of_the_images_that_run_at_once() -> None:
    weights = np.ones((64, 64, 3, 3), np.float32)
    x, y = (helper.make_tensor_value_info(name, 1, ["N", 64, 56, 56]) for name in "xy")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    graph = helper.make_graph([node], "wide", [x], [y], [numpy_helper.from_array(weights, "w")])
    session = InferenceSession(helper.make_model(graph).SerializeToString())
    found = profile(session, np.zeros((9, 64, 56, 56), np.float32), seconds=0.01)
    assert (found.shape[0], found.at_once) == (9, session.plan.shapes["x"][0])
    assert 1 <= found.at_once < 9
    assert found.total.dense_macs == found.at_once * weights.size * 56 * 56


def test_steps_of_what_a_batch_shares_are_shares() -> None:
    rng = np.random.default_rng(0)
    w, m = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 3, 3, 3), (64, 1000)))
    x = helper.make_tensor_value_info("x", 1, ["N", 3, 112, 112])
    y = helper.make_tensor_value_info("y", 1, ["N", 1000])
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * 4, name="conv"),
        helper.make_node("GlobalAveragePool", ["a"], ["b"], name="pool"),
        helper.make_node("Flatten", ["b"], ["c"], name="flatten"),
        helper.make_node("Gemm", ["c", "m"], ["y"], name="product"),
    ]
    constants = [numpy_helper.from_array(array, name) for array, name in ((w, "w"), (m, "m"))]
    graph = helper.make_graph(nodes, "classifier", [x], [y], constants)
    session = InferenceSession(helper.make_model(graph).SerializeToString())
    found = profile(session, rng.standard_normal((8, 3, 112, 112)).astype(np.float32), seconds=0.01)
    steps = {step.name: step for step in found.steps}
    assert found.at_once == 1
    assert steps["conv"].dense_macs == w.size * 112 * 112 and steps["product"].dense_macs == m.size
    assert m.nbytes / 8 < steps["product"].bytes < m.nbytes


def test_an_input_without_dimensions() -> None:
    x, y = (helper.make_tensor_value_info(name, 1, []) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "number", [x], [y])
    session = InferenceSession(helper.make_model(graph).SerializeToString())
    found = profile(session, np.array(1, np.float32), seconds=0.01)
    assert (found.shape, found.at_once) == ((), 1)
    assert profile_table(found)


def test_inputs_that_do_not_fit_are_refused(colour_model: Path) -> None:
    with pytest.raises(InputError, match="16"):
        profile(InferenceSession(load(colour_model)), INPUTS[:, :, :8], seconds=0.01)


def test_limits() -> None:
    target = resolve()
    clock, peak = clock_ghz(seconds=0.02), fma_gflops(seconds=0.02)
    assert 0.3 < clock < 10
    # between a sixteenth of a vector and four vectors of multiply-adds per cycle
    assert clock * target.lanes / 8 < peak < clock * target.lanes * 8
    assert 0 < read_gbs(64 << 20, seconds=0.05) < 1.5 * read_gbs(8 << 10, seconds=0.05)
    assert read_gbs(8 << 10, seconds=0.02, shift=4) > 0


def test_more_than_the_limit_is_explained() -> None:
    step = StepTime("a", "Conv", "64x8x8 -> 64, 3x3", "winograd 4x4/3", 10.0, 9, 9, 9, 8.0)

    def text(*steps: StepTime) -> str:
        console = Console(width=80, record=True, color_system=None, file=io.StringIO())
        console.print(profile_table(Profile("net", (1,), 1, 1, steps, 1.0, 280.0, 55.0, 1000, "A CPU")))
        return console.export_text()

    assert "Beyond 100 %" not in text(step)
    assert "Beyond 100 %" in text(step, replace(step, limit_microseconds=12.0))


def test_table(golden) -> None:  # type: ignore[no-untyped-def]
    first, strided = "3x224x224 -> 64, 7x7/2, 100 % dense", "1024x14x14 -> 2048, 1x1/2, 10 % dense"
    steps = (
        StepTime("a", "Conv", first, "direct 8x3/64", 1234.5, 10**8, 10**8, 10**6, 900),
        StepTime("b", "Conv", strided, "sparse_direct 1x10/128", 30.25, 10**7, 10**6, 10**5, 7.5),
        StepTime("c", "Conv", "64x7x7 -> 64, 3x3, 64 groups, 100 % dense", "depthwise 4", 10, 9, 9, 9, 1),
        StepTime("pooling layer with a long name", "MaxPool", "", "native", 5.0, 0, 0, 5000, 1.0),
    )
    found = Profile("net.onnx", (16, 3, 224, 224), 4, 2, steps, 1.3, 280.4, 55.2, 12_400_000, "A CPU")
    console = Console(width=80, record=True, color_system=None, file=io.StringIO())
    console.print(profile_table(found))
    golden("profile.txt", console.export_text())
    assert found.to_dict()["total"]["microseconds"] == pytest.approx(1279.75)
