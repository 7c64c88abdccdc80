"""Real networks agree with onnxruntime: every batch, thread count, target and algorithm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from zeroskip.bench.agreement import difference, tolerance
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.evaluation import preprocess_of
from zeroskip.graph import load
from zeroskip.images import open_images

SHARED = Path(__file__).resolve().parents[2] / "../shared"
BATCHES = (1, 3, 16)
CLASSIFIERS = {
    # pictures to compare: all of them
    "squeezenet1.1.onnx": 500,
    "mobilenet_v2_1.0_224_qat.onnx": 500,
    "mobilenet_v1_1.0_224.onnx": 500,
    "squeezenet1.0-deepcompression.onnx": 500,
}


def real_networks():
    found = sorted([*SHARED.glob("models/*.onnx"), *SHARED.glob("backbones/*.onnx")])
    reason = "needs the real networks in shared/ beside the repository, which is not there"
    missing = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="real networks")
    return [pytest.param(path, id=path.stem) for path in found] or [missing]


def smaller(path: Path, side: int) -> bytes:
    """The network for pictures of at most this height and width; its weights do not care."""
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim in dims[2:]:
        dim.dim_value = min(side, dim.dim_value)
    del model.graph.value_info[:]
    for output in model.graph.output:
        for dim in list(output.type.tensor_type.shape.dim)[2:]:
            dim.ClearField("dim_value")
    return model.SerializeToString()


@pytest.fixture(scope="module", params=real_networks())
def small(request, networks):
    """A network at reduced size, its inputs by batch, and onnxruntime's answers to them."""
    model = smaller(request.param, 75)
    rival = networks.rival(model)
    entry = rival.get_inputs()[0]
    inputs = {
        n: np.random.default_rng(n).standard_normal((n, *entry.shape[1:])).astype(np.float32) for n in BATCHES
    }
    answers = {n: rival.run(None, {entry.name: x}) for n, x in inputs.items()}
    return load(model), entry.name, inputs, answers


@pytest.mark.parametrize("algorithm", ["auto", *ALGORITHMS])
def test_agrees(small, target, algorithm):
    """Each algorithm on the layers that it accepts, others on the rest; every batch on one thread or two."""
    graph, name, inputs, answers = small
    bound = tolerance(graph)
    first = 1 + list(ALGORITHMS).index(algorithm) % 2 if algorithm != "auto" else 1
    runs = {first: BATCHES[:2], 3 - first: BATCHES[2:]}
    if (algorithm, target) == ("auto", "host"):
        runs = dict.fromkeys((1, 2), BATCHES)
    used = set()
    for threads, batches in runs.items():
        shapes = {name: inputs[batches[0]].shape}
        options = SessionOptions(prefer=algorithm, target=target, threads=threads, shapes=shapes)
        session = InferenceSession(graph, options)
        for n in batches:
            kept = inputs[n].copy()
            got = session.run(None, {name: inputs[n]})
            used |= {step.algorithm for step in session.plan.steps}
            for ours, theirs in zip(got, answers[n], strict=True):
                assert ours.shape == theirs.shape
                assert difference(ours, theirs) <= bound, f"batch {n}, {threads} threads"
            np.testing.assert_array_equal(inputs[n], kept)
    if algorithm != "auto" and algorithm not in used:
        problems = [step for step in session.plan.steps if step.op == "Conv"]
        assert all(any(c.algorithm == algorithm and c.reason for c in step.candidates) for step in problems)


@pytest.mark.parametrize("path", real_networks())
def test_agrees_at_full_size(path, networks):
    rival = networks.rival(path)
    entry = rival.get_inputs()[0]
    x = np.random.default_rng(0).standard_normal((1, *entry.shape[1:])).astype(np.float32)
    expected = rival.run(None, {entry.name: x})
    session = InferenceSession(path)
    assert session.get_inputs()[0].name == entry.name
    assert session.get_inputs()[0].shape == entry.shape
    assert session.get_inputs()[0].type == entry.type
    assert [(o.name, o.type) for o in session.get_outputs()] == [
        (o.name, o.type) for o in rival.get_outputs()
    ]
    for ours, theirs in zip(session.run(None, {entry.name: x}), expected, strict=True):
        assert difference(ours, theirs) <= tolerance(session.graph)


@pytest.mark.parametrize("file, count", CLASSIFIERS.items())
def test_same_top_1_picture_by_picture(shared, networks, file, count):
    path = shared / "models" / file
    ours, theirs = InferenceSession(path), networks.rival(path)
    pictures = open_images(shared / "images").take(count)
    name, differ = ours.get_inputs()[0].name, []
    for number, x in enumerate(pictures.batches(preprocess_of(path), (224, 224))):
        scores, expected = (session.run(None, {name: x})[0][0] for session in (ours, theirs))
        if scores.argmax() != expected.argmax():
            differ.append(pictures.files[number])
    assert not differ
