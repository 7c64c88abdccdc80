"""The embedded example: its data, its model, what pruning costs it, and the demo from end to end."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from zeroskip.compress import prune
from zeroskip.graph import arithmetic_cost, bind, evaluate, load, simplify
from zeroskip.preprocess import preprocess_for

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MODEL = EXAMPLES / "digits.onnx"


@pytest.fixture(scope="module")
def data():
    sys.path.insert(0, str(EXAMPLES))
    try:
        yield importlib.import_module("digits").load()
    finally:
        sys.path.remove(str(EXAMPLES))


def top1(graph, data, count=None):
    images, labels = data.held_back_images[:count], data.held_back_labels[:count]
    scores = [evaluate(graph, {"image": images[i : i + 100]})[0] for i in range(0, len(images), 100)]
    return float(np.mean(np.concatenate(scores).argmax(1) == labels))


def test_a_third_of_the_digits_is_held_back(data):
    assert len(data.held_back_labels) == 599 and len(data.train_labels) == 1198
    assert np.ptp(np.bincount(data.held_back_labels)) <= 4  # of every class about as many
    seen = {image.tobytes() for image in data.train_images}
    assert sum(image.tobytes() in seen for image in data.held_back_images) == 0


def test_the_model_is_small_and_says_how_to_prepare_its_images(data):
    graph = load(MODEL)
    assert MODEL.stat().st_size < 4e6
    assert graph.values["image"].shape == ("N", 1, 32, 32)
    bound = simplify(bind(graph, {"image": (1, 1, 32, 32)}))
    weights = sum(array.size for array in bound.constants.values() if array.ndim > 1)
    assert 0.3e6 < weights < 1e6
    assert 10e6 < arithmetic_cost(bound).dense_macs < 50e6
    steps = preprocess_for(None, graph.metadata)
    assert (steps.order, steps.layout, steps.mean, steps.std) == ("grey", "NCHW", (0.0,), (255.0,))


def test_the_model_reads_held_back_digits(data):
    assert top1(simplify(load(MODEL)), data) > 0.985


def test_ninety_percent_zeros_cost_at_most_one_point(data):
    dense = simplify(load(MODEL))
    pruned, report = prune(dense, sparsity=0.9, calibration=data.train_images[:200], positions=20_000)
    assert report.nonzero < 0.12 * report.weights
    assert top1(pruned, data) >= top1(dense, data) - 0.01


def test_training_writes_the_network_that_it_trained(data, tmp_path):
    torch = pytest.importorskip("torch", reason="training needs torch; install zeroskip[train]")
    script = importlib.import_module("train_digits")
    torch.manual_seed(1)
    network = script.Network().eval()
    for norm in network.norms.values():
        norm.running_mean.uniform_(-0.1, 0.1)
        norm.running_var.uniform_(0.5, 2.0)
    path = tmp_path / "untrained.onnx"
    path.write_bytes(script.to_onnx(network, 0.0).SerializeToString())
    images = data.held_back_images[:3]
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    found = evaluate(load(path), {"image": images})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_the_demo_prints_its_table(tmp_path):
    kept = tmp_path / "pruned.onnx"
    command = [sys.executable, EXAMPLES / "demo.py", "--seconds", "0.05", "--images", "100", "--output", kept]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "COLUMNS": "80"}, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    names = ("top-1", "latency, zeroskip", "latency, onnxruntime", "file", "zero weights", "MACs with them")
    assert all(any(line.startswith(name) for line in lines) for name in names)
    assert kept.stat().st_size < MODEL.stat().st_size / 2
