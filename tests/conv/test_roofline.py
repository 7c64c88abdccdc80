"""The roofline of direct sparse convolution: the paper's numbers, its shape, how a calibration is kept."""

from __future__ import annotations

import json
import math

import pytest

import zeroskip as zs
from zeroskip.codegen import resolve
from zeroskip.conv.roofline import (
    PUBLISHED,
    Calibration,
    SparseMachine,
    calibration,
    calibration_path,
    keep,
)
from zeroskip.errors import CacheWarning

# AlexNet's conv5 (two groups) with the batches of Park et al. 2017, section 3.
CONV5 = {"atom-c2750": 32, "xeon-e5-2697v4": 144}
MACHINE = SparseMachine(200e9, 40e9, 2.0, 1.5)


def conv5(machine, batch=None):
    batch = batch or CONV5[machine]
    return zs.sparse_roofline((batch, 384, 13, 13), (256, 192, 3, 3), padding=1, machine=machine)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "new" / "cache"))
    return calibration_path()


def test_the_layer_of_the_paper():
    """Read in the paper: 149.5 million operations and 432,640 bytes per image."""
    model = conv5("xeon-e5-2697v4", batch=1)
    assert model.flops == pytest.approx(149.5e6, rel=1e-3)
    assert model.activation_bytes == 432_640
    assert model.weight_bytes == 4 * 256 * 192 * 9


@pytest.mark.parametrize(
    "machine, knee, speedup", [("xeon-e5-2697v4", 0.0170, 3.7), ("atom-c2750", 0.00997, 9.3)]
)
def test_published_knees_and_speedups(machine, knee, speedup):
    """Knees are computed from the paper's formula without the weights' bytes, which add 0.3 % here."""
    model = conv5(machine)
    assert model.knee == pytest.approx(knee, rel=0.005)
    assert round(model.speedup(0.09), 1) == speedup
    assert model.useful == (model.knee, 1 / PUBLISHED[machine].alpha)


@pytest.mark.parametrize("machine, least, most", [("xeon-e5-2697v4", 2, 7), ("atom-c2750", 4, 14)])
def test_published_ranges(machine, least, most):
    """The paper quotes 2-7 times and 4-14 times for densities of 0.05-0.15, in whole numbers."""
    model = conv5(machine)
    low, high = model.speedup(0.15), model.speedup(0.05)
    assert least <= low < least + 2
    assert most - 1 < high < most + 3


def test_beyond_the_knee_nothing_is_gained():
    model = conv5("xeon-e5-2697v4")
    knee = model.knee
    assert model.seconds(knee) == pytest.approx(model.machine.alpha * knee * model.dense_seconds)
    assert model.speedup(0.0) < 1.01 * model.speedup(knee)
    assert model.speedup(1 / model.machine.alpha) == pytest.approx(1)
    assert model.effective_flops(0.09) == pytest.approx(2150e9 * model.speedup(0.09))


def test_a_pointwise_layer_that_memory_bounds_is_not_to_be_pruned():
    """GoogLeNet's 1x1 layers in the paper: bound by bandwidth from the start."""
    model = zs.sparse_roofline((144, 192, 28, 28), (16, 192, 1, 1), machine="xeon-e5-2697v4")
    assert model.knee > 1 / 3
    assert model.useful is None
    vector = zs.sparse_roofline((1, 4096, 1, 1), (4096, 4096, 1, 1), machine="xeon-e5-2697v4")
    assert math.isinf(vector.knee) and vector.useful is None
    assert json.loads(json.dumps(vector.to_dict()))["knee"] is None


def test_a_calibration_is_kept_for_this_processor_only(cache):
    with pytest.raises(zs.InputError, match="doctor --calibrate"):
        zs.sparse_roofline((1, 3, 8, 8), (4, 3, 3, 3))
    layers = ({"layer": "a", "points": [{"density": 0.5}]},)
    keep(Calibration(resolve().key, "2020-01-02", MACHINE, layers))
    found = calibration()
    assert found == Calibration(resolve().key, "2020-01-02", MACHINE, layers)
    assert zs.sparse_roofline((1, 3, 8, 8), (4, 3, 3, 3)).machine == MACHINE
    assert [p.name for p in cache.parent.iterdir()] == [cache.name]
    keep(Calibration("another processor", "2020-01-02", MACHINE, layers))
    assert calibration() is None


@pytest.mark.parametrize("content", ["", "[1]", '{"machine": {}}', '{"target": "a", "date": "b"}'])
def test_a_damaged_calibration_is_as_good_as_none(cache, content):
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    with pytest.warns(CacheWarning, match="--calibrate"):
        assert calibration() is None


@pytest.mark.parametrize(
    "call, names",
    [
        (lambda: zs.sparse_roofline((3, 8, 8), (4, 3, 3, 3), machine="cray-1"), "cray-1"),
        (lambda: zs.sparse_roofline((3, 8), (4, 3, 3, 3), machine=MACHINE), "x_shape"),
        (lambda: zs.sparse_roofline((3, 8, 8), (4, 2, 3, 3), machine=MACHINE), "channels"),
        (lambda: zs.sparse_roofline((3, 2, 2), (4, 3, 3, 3), machine=MACHINE), "pad"),
        (lambda: conv5("atom-c2750").speedup(1.5), "density"),
        (lambda: SparseMachine(1e9, 1e9, -1.0, 2.0), "alpha"),
        (lambda: SparseMachine(1e9, float("nan"), 1.0, 2.0), "bandwidth"),
    ],
)
def test_bad_input(call, names):
    with pytest.raises(zs.InputError, match=names):
        call()
