"""What stays in memory: the plan's form of the weights, no other, and about as many bytes as it reports."""

from __future__ import annotations

import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from zeroskip import ModelError
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.graph import ModelFile, load

LARGE = 64 << 10
GROWN = """
import sys
import numpy as np
from zeroskip.engine import InferenceSession
from zeroskip.engine.memory import give_back

def resident():
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def opened():
    session = InferenceSession(sys.argv[1])
    return session, session.run(None, {"x": np.ones((1, 64, 32, 32), np.float32)})[0]

opened()  # imports, and all that compiling leaves behind
give_back()
start = resident()
session, output = opened()
print(resident() - start - output.nbytes, session.plan.memory_bytes)
"""


@pytest.fixture
def wide(networks):
    """A network of 1x1 convolutions with more weights than pixels, of which `density` are not zero."""

    def make(size: int, widths: tuple[int, ...], density: float = 1.0) -> bytes:
        rng, nodes, constants, c = np.random.default_rng(0), [], {}, 64
        for i, k in enumerate(widths):
            w = rng.standard_normal((k, c, 1, 1)).astype(np.float32)
            w[rng.random(w.shape) >= density] = 0
            constants[f"w{i}"], c = w, k
            names = ["x" if i == 0 else f"v{i - 1}", f"w{i}"], [f"v{i}"]
            nodes.append(helper.make_node("Conv", *names, name=f"conv{i}"))
        last = f"v{len(widths) - 1}"
        return networks.model(nodes, {"x": ["N", 64, size, size]}, {last: ["N", c, size, size]}, constants)

    return make


@pytest.mark.parametrize("tune", [False, True])
@pytest.mark.parametrize("from_file", [False, True])
def test_the_weights_as_read_are_not_kept(wide, tmp_path, monkeypatch, tune, from_file):
    read, seen = ModelFile.read, []

    def watched(self):
        graph = read(self)
        seen.extend(weakref.ref(array) for array in graph.constants.values() if array.nbytes > LARGE)
        return graph

    monkeypatch.setattr(ModelFile, "read", watched)
    model = wide(4, (256, 300), density=0.3)
    if from_file:
        (tmp_path / "wide.onnx").write_bytes(model)
    source = tmp_path / "wide.onnx" if from_file else model
    session = InferenceSession(source, SessionOptions(tune=tune))
    x = np.ones((2, 64, 4, 4), np.float32)
    first = session.run(None, {"x": x})[0]
    assert len(seen) >= 2 and not any(reference() is not None for reference in seen)
    assert np.array_equal(session.run(None, {"x": x})[0], first)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc to see its memory")
@pytest.mark.parametrize("density", [0.1, 1.0])
def test_a_session_takes_the_bytes_that_its_plan_reports(wide, tmp_path, density):
    """Within a tenth, plus 2 MB for the plan itself."""
    (tmp_path / "large.onnx").write_bytes(wide(32, (1024, 4096, 2048, 2048), density))
    command = [sys.executable, "-c", GROWN, str(tmp_path / "large.onnx")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    grown, reported = map(int, output.split())
    assert abs(grown - reported) <= 0.1 * reported + (2 << 20), (grown, reported)


def test_numbers_that_python_needs_are_weights_too(networks):
    table = np.ones((1, 3, 5, 7), np.float32)
    cumulated = helper.make_node("LpPool", ["t"], ["y"], kernel_shape=[2, 2], p=3, name="numpy")
    add = helper.make_node("Add", ["x", "table"], ["t"], name="add")
    model = networks.model([add, cumulated], {"x": [1, 3, 5, 7]}, {"y": [1, 3, 4, 6]}, {"table": table})
    assert InferenceSession(model).plan.weight_bytes >= table.nbytes


def test_a_model_is_read_again_for_other_shapes(networks, tmp_path):
    """Even after its file was replaced or deleted, but not after somebody wrote into it."""
    path = tmp_path / "model.onnx"
    for change in ("replace", "delete", "overwrite"):
        path.write_bytes(networks.small())
        session = InferenceSession(path)
        expected = session.run(None, {"x": np.ones((1, 3, 12, 12), np.float32)})[0]
        if change == "replace":
            (tmp_path / "other").write_bytes(b"other")
            (tmp_path / "other").replace(path)
        elif change == "delete":
            path.unlink()
        else:
            path.write_bytes(networks.small(seed=1)[:-1])
        two = {"x": np.ones((2, 3, 12, 12), np.float32)}
        if change == "overwrite":
            with pytest.raises(ModelError, match=r"model\.onnx was changed after it was opened"):
                session.run(None, two)
        else:
            np.testing.assert_allclose(session.run(None, two)[0][1:], expected, rtol=1e-5)


def test_a_graph_is_its_owners(networks):
    graph = load(networks.small())
    session = InferenceSession(graph)
    assert session.graph is graph and set(graph.constants) == set(load(networks.small()).constants)


def test_bytes_that_change_later(networks):
    content = bytearray(networks.small())
    session = InferenceSession(memoryview(content))
    x = np.ones((1, 3, 12, 12), np.float32)
    expected = session.run(None, {"x": x})[0]
    content[:] = bytes(len(content))
    np.testing.assert_allclose(session.run(None, {"x": np.repeat(x, 3, 0)})[0][1:2], expected, rtol=1e-5)


def test_external_weights_stay(networks, tmp_path):
    import onnx

    model = onnx.load_model_from_string(networks.small())
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    session = InferenceSession(tmp_path / "m.onnx")
    (tmp_path / "w.bin").unlink()
    assert session.run(None, {"x": np.ones((2, 3, 12, 12), np.float32)})[0].shape == (2, 5)
