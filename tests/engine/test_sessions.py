"""Sessions in use: from several threads, after a fork, with any array, at any size."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
import weakref

import numpy as np
import pytest
from onnx import helper

from zeroskip.bench.agreement import difference, tolerance
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.graph import load


def picture(n=1, h=12, w=12, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 3, h, w)).astype(np.float32)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("zeroskip-")]


@pytest.fixture(scope="module")
def session(networks):
    return InferenceSession(networks.small())


def test_a_path_bytes_or_a_graph(networks, tmp_path):
    content = networks.small()
    path = tmp_path / "small.onnx"
    path.write_bytes(content)
    x = {"x": picture()}
    answers = [InferenceSession(source).run(None, x)[0] for source in (path, str(path), content, load(path))]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_any_batch_and_size(networks, target, threads):
    model = networks.small(size="H")
    rival, options = networks.rival(model), SessionOptions(threads=threads, target=target)
    session = InferenceSession(model, options)
    for n, h, w in [(1, 12, 12), (5, 7, 9), (1, 1, 1), (2, 33, 3), (1, 12, 12), (17, 4, 4)]:
        x = {"x": picture(n, h, w)}
        assert difference(session.run(None, x)[0], rival.run(None, x)[0]) <= tolerance(session.graph)


ARRAYS = {
    "Fortran order": lambda x: np.asfortranarray(x),
    "a view of every second": lambda x: np.repeat(x, 2, axis=3)[:, :, :, ::2],
    "backwards": lambda x: x[:, :, ::-1].copy()[:, :, ::-1],
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "unaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape),
    "read-only": lambda x: x,
    "a subclass": lambda x: np.asarray(x).view(np.memmap) if False else np.ma.asarray(x),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_inputs_are_read_as_they_are_and_never_changed(session, kind):
    x = ARRAYS[kind](picture(2))
    plain = np.array(x)
    if x.flags.writeable:
        x.flags.writeable = False
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], session.run(None, {"x": plain})[0])
    np.testing.assert_array_equal(x, plain)


def test_outputs_belong_to_the_caller(networks):
    """Also those that are inputs or constants of the network."""
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Identity", ["c"], ["constant"]),
        helper.make_node("Flatten", ["x"], ["flat"]),
    ]
    shape = ["N", 3, 4, 4]
    outputs = {"y": shape, "same": shape, "constant": [2], "flat": ["N", 48]}
    model = networks.model(nodes, {"x": shape}, outputs, {"c": np.array([1, 2], np.float32)})
    session = InferenceSession(model)
    x = picture(2, 4, 4)
    kept = x.copy()
    first = [array.copy() for array in session.run(None, {"x": x})]
    for array in session.run(None, {"x": x}):
        array[...] = 7
    np.testing.assert_array_equal(x, kept)
    for array, expected in zip(session.run(None, {"x": x}), first):
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_threads_run_one_session(networks, threads):
    session = InferenceSession(networks.small(), SessionOptions(threads=threads))
    inputs = [{"x": picture(n, seed=n)} for n in range(1, 8)]
    expected = [session.run(None, x)[0] for x in inputs]
    wrong = []

    def work(number):
        for turn in range(40):
            i = (number + turn) % len(inputs)
            if not np.array_equal(session.run(None, inputs[i])[0], expected[i]):
                wrong.append((number, turn))

    callers = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive()
    assert not wrong


def test_threads_do_not_change_answers(networks):
    """Work is cut between threads, sums are not."""
    x = {"x": picture(3)}
    one, two, three = (
        InferenceSession(networks.small(), SessionOptions(threads=n)).run(None, x) for n in (1, 2, 3)
    )
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[0], three[0])


def test_all_processors(networks):
    session = InferenceSession(networks.small(), SessionOptions(threads=0))
    assert session.plan.threads == len(os.sched_getaffinity(0))


@pytest.fixture
def uncollected():
    """No search for dead objects that refer to each other."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("options", [SessionOptions(), SessionOptions(tune=True), SessionOptions(threads=2)])
def test_a_session_goes_with_its_last_user(networks, classifier, monkeypatch, uncollected, options):
    """Its plans, of tens of megabytes each, with it."""
    monkeypatch.setattr("zeroskip.engine.batches.SECOND_CACHE", 1)
    session = InferenceSession(classifier, options)
    plans = []
    for count in (1, 7):
        session.run(None, {"x": np.ones((count, 3, 12, 12), np.float32)})
        plans.append(weakref.ref(session.plan))
    del session
    assert [plan() for plan in plans] == [None, None]


def test_a_session_that_goes_takes_its_workers_along(networks, uncollected):
    before = len(workers())
    sessions = [InferenceSession(networks.small(), SessionOptions(threads=3)) for _ in range(3)]
    for session in sessions:
        session.run(None, {"x": picture()})
    assert len(workers()) == before + 6
    del session, sessions
    for _ in range(100):
        if len(workers()) == before:
            break
        time.sleep(0.02)
    assert len(workers()) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_workers_of_its_own(networks):
    session = InferenceSession(networks.small(), SessionOptions(threads=2))
    x = {"x": picture(4)}
    expected = session.run(None, x)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # later Pythons warn of forks beside threads
        child = os.fork()
    if child == 0:
        same = all(np.array_equal(session.run(None, x)[0], expected) for _ in range(20))
        os._exit(0 if same else 1)
    deadline = time.monotonic() + 30
    while (result := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if result == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert result[0] == child and os.waitstatus_to_exitcode(result[1]) == 0
    np.testing.assert_array_equal(session.run(None, x)[0], expected)


def test_plans_of_old_shapes_go(networks):
    session = InferenceSession(networks.small())
    for n in range(1, 20):
        session.run(None, {"x": picture(n)})
    assert len(session._whole.plans) <= 8
    assert session.plan.shapes["x"][0] == 19


def test_memory_is_reported(session):
    session.run(None, {"x": picture(4)})
    four = session.plan
    session.run(None, {"x": picture(1)})
    one = session.plan
    assert one.peak_bytes < four.peak_bytes < 5 * one.peak_bytes
    assert one.peak_bytes >= 2 * 8 * 12 * 12 * 4
    assert one.weight_bytes > 0


@pytest.mark.parametrize("prefer", ["sparse_direct", "block_sparse", "winograd"])
def test_preferred_where_accepted(networks, prefer):
    plan = InferenceSession(networks.small(), SessionOptions(prefer=prefer)).plan
    steps = [step for step in plan.steps if step.op == "Conv"]
    assert len(steps) == 2
    assert {step.algorithm for step in steps} == {prefer}


@pytest.mark.parametrize("images", [1, 3, 4])
def test_large_batches_run_some_images_at_a_time(networks, monkeypatch, images):
    """The answers are those of the whole batch, whether or not the last part is smaller."""
    model = networks.small(size="H")
    peak = InferenceSession(model, SessionOptions(shapes={"x": (1, 3, 12, 12)})).plan.peak_bytes
    monkeypatch.setattr("zeroskip.engine.batches.SECOND_CACHE", images * peak)
    session = InferenceSession(model)
    x = np.random.default_rng(0).standard_normal((7, 3, 12, 12)).astype(np.float32)
    np.testing.assert_allclose(
        session.run(None, {"x": x})[0], networks.rival(model).run(None, {"x": x})[0], 1e-4, 1e-4
    )
    parts = -(-7 // images)
    assert session.plan.shapes["x"][0] in (-(-7 // parts), 7 - (parts - 1) * -(-7 // parts))


@pytest.fixture
def classifier(networks) -> bytes:
    """A convolution, whose output is asked for too, then products by two matrices."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="first", pads=[1] * 4),
        helper.make_node("MaxPool", ["a"], ["b"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["b"], ["c"], name="flatten"),
        helper.make_node("Gemm", ["c", "m"], ["d"], name="hidden"),
        helper.make_node("Relu", ["d"], ["e"], name="relu"),
        helper.make_node("MatMul", ["e", "n"], ["f"], name="classify"),
        helper.make_node("Softmax", ["f"], ["y"], name="softmax"),
    ]
    shapes = {"w": (6, 3, 3, 3), "m": (6 * 36, 128), "n": (128, 10)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    outputs = {"y": ["N", 10], "a": ["N", 6, 12, 12]}
    return networks.model(nodes, {"x": ["N", 3, 12, 12]}, outputs, constants)


@pytest.mark.parametrize("count", [7, 150])
@pytest.mark.parametrize("prepared", [False, True])
def test_products_of_large_batches_are_done_at_once(networks, monkeypatch, classifier, count, prepared):
    """Images one by one, matrices read for up to 64 of them; also where the last part is smaller."""
    monkeypatch.setattr("zeroskip.engine.batches.SECOND_CACHE", 1)
    x = np.random.default_rng(1).standard_normal((count, 3, 12, 12)).astype(np.float32)
    session = InferenceSession(classifier, SessionOptions(shapes={"x": x.shape} if prepared else None))
    for _ in range(2):
        answers = session.run(None, {"x": x})
        for ours, theirs in zip(answers, networks.rival(classifier).run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(ours, theirs, 1e-3, 1e-4)
    plan = session.plan
    assert plan is session.plan and plan.shapes["x"][0] == 1
    assert next(iter(plan.then.shapes.values()))[0] == (count if count <= 64 else 50)
    assert plan.step("first").op == "Conv" and plan.step("hidden").op == "Gemm"
    assert "for 1 of the images:" in plan.explain() and "images at once:" in plan.explain()
    described = plan.to_dict()
    assert [step["op"] for step in described["then"]["steps"]][-1] == "Output"
    assert described["weight_bytes"] > described["then"]["weight_bytes"] > 4 * 6 * 36 * 128
    assert described["peak_bytes"] > described["then"]["peak_bytes"]
    assert session.run(["a"], {"x": x[:3]})[0].shape == (3, 6, 12, 12)


def test_images_that_depend_on_each_other_run_together(networks, monkeypatch):
    monkeypatch.setattr("zeroskip.engine.batches.SECOND_CACHE", 1)
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Softmax", ["a"], ["y"], axis=0),
    ]
    model = networks.model(nodes, {"x": ["N", 6]}, {"y": ["N", 6]})
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    np.testing.assert_allclose(
        InferenceSession(model).run(None, {"x": x})[0], networks.rival(model).run(None, {"x": x})[0], 1e-6
    )
