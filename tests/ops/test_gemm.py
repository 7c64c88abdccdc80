import numpy as np
import pytest

from zeroskip.codegen import Plain
from zeroskip.ops import gemm as dense
from zeroskip.ops import gemm_lookup as looked_up
from zeroskip.ops import planes
from zeroskip.ops.gemm import IMAGES, gemm
from zeroskip.ops.gemm_lookup import lookup_of


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(planes, "TASK_BYTES", 64)


def assert_product(found, array, w, bias=0.0, rectified=False):
    """The product in doubles; the bound is that of sums in any order."""
    expected = array.astype(np.float64) @ w.T.astype(np.float64) + bias
    if rectified:
        expected = np.maximum(expected, 0)
    bound = (w.shape[1] + 2) * 2.0**-24 * (np.abs(array) @ np.abs(w).T + 4)
    assert np.all(np.abs(found - expected) <= bound)


@pytest.mark.parametrize("images", [1, 3, IMAGES, IMAGES + 1, 2 * IMAGES + 1])
@pytest.mark.parametrize(
    "sparse, density", [(False, 1), (True, 0.1), (True, 0), (None, 0.1), (None, 0.25), (None, 0)]
)
def test_against_numpy(kit, sparse, density, images):
    b = kit.bench
    for outputs in (1, kit.lanes - 1, kit.lanes, kit.lanes + 1, 10 * kit.lanes + 3):
        for inputs in (1, 7, 100, 8 * kit.lanes + 1):
            array, bias = kit.random(images, inputs), kit.random(outputs)
            w = kit.random(outputs, inputs)
            w = np.where(np.random.default_rng(0).random(w.shape) < density, w, 0).astype(np.float32)
            x, y = b.input(array), b.output(Plain((images, outputs)))
            fused = outputs > kit.lanes
            options = {"bias": bias, "activation": ("Relu",)} if fused else {}
            b.run(gemm(x, y, w, **options, sparse=sparse, target=b.target, threads=2))
            assert_product(b.result(y), array, w, bias if fused else 0.0, rectified=fused)


def test_inputs_of_any_shape_and_wide_indices(kit):
    b = kit.bench
    array, w = kit.random(2, 70000, 1, 1), kit.random(3, 70000)
    w[np.random.default_rng(1).random(w.shape) < 0.99] = 0
    x, y = b.input(array), b.output(Plain((2, 3)))
    b.run(gemm(x, y, w, sparse=True, target=b.target))
    expected = array[:, :, 0, 0].astype(np.float64) @ w.T
    bound = 70000 * 2.0**-24 * (np.abs(array[:, :, 0, 0]) @ np.abs(w).T)
    assert np.all(np.abs(b.result(y) - expected) <= bound)


@pytest.mark.parametrize("images", [1, 2, IMAGES])
@pytest.mark.parametrize("zeros", [0.02, 0.5, 0.98, 1])
def test_weights_of_inputs_that_are_all_zero_are_not_read(kit, images, zeros):
    b, inputs, outputs = kit.bench, 200, 40 * kit.lanes + 1
    array, w, bias = kit.random(images, inputs), kit.random(outputs, inputs), kit.random(outputs)
    dead = np.random.default_rng(2).random(inputs) < zeros
    dead[0], dead[-1] = True, zeros > 0.5  # at the ends, too
    array[:, dead] = 0
    array[0, ~dead] *= np.arange((~dead).sum()) % 2  # zero in one image only
    x, y = b.input(array), b.output(Plain((images, outputs)))
    unread = np.where(dead, np.float32(np.nan), w) if zeros > 0.1 else w  # few gaps are read over
    b.run(gemm(x, y, unread, bias, target=b.target))
    assert_product(b.result(y), array, w, bias)


def test_an_input_that_is_not_a_number_is_not_a_zero(kit):
    b = kit.bench
    array = np.array([[0, np.nan, 1]], np.float32)
    x, y = b.input(array), b.output(Plain((1, 5)))
    b.run(gemm(x, y, kit.random(5, 3), target=b.target))
    assert np.isnan(b.result(y)).all()


@pytest.mark.parametrize("inputs", [31, 32, 33, 100])
def test_chunks_of_inputs_add_up(kit, inputs, monkeypatch):
    b, images, outputs = kit.bench, 2 * IMAGES + 1, 10 * kit.lanes + 3
    kb = 4 * kit.lanes  # what a block of four vectors needs for an input, in floats
    monkeypatch.setattr(dense, "CHUNK_BYTES", 32 * 4 * kb)
    array, w, bias = kit.random(images, inputs), kit.random(outputs, inputs), kit.random(outputs)
    x, y = b.input(array), b.output(Plain((images, outputs)))
    for threads in (1, 2):
        b.run(gemm(x, y, w, bias, ("Relu",), target=b.target, threads=threads))
        assert_product(b.result(y), array, w, bias, rectified=True)


@pytest.mark.parametrize("inputs, outputs", [(129, 1), (1000, 33), (256, 200)])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_any_number_of_nonzeros_are_looked_up(kit, inputs, outputs, threads, monkeypatch):
    b, rng = kit.bench, np.random.default_rng(inputs)
    array, w, bias = kit.random(1, inputs), kit.random(outputs, inputs), kit.random(outputs)
    w[rng.random(w.shape) > 0.3 * rng.random((outputs, 1))] = 0
    w[::5] = 0
    w[0, -1] = 1
    x, y = b.input(array), b.output(Plain((1, outputs)))
    monkeypatch.setattr(looked_up, "PADDED", 100)
    b.run(gemm(x, y, w, bias, ("Relu",), target=b.target, threads=threads))
    assert_product(b.result(y), array, w, bias, rectified=True)


def test_what_is_looked_up_and_what_is_not(kit):
    target = kit.bench.target
    rng = np.random.default_rng(3)
    w = np.where(rng.random((64, 512)) < 0.1, 1, 0).astype(np.float32)
    lonely = np.where(rng.random((64, 512)) < 0.002, 1, 0).astype(np.float32)
    assert (lookup_of(w, target) is not None) == target.looks_up
    assert lookup_of(lonely, target) is None  # each would stand beside fifteen that are missing
    assert lookup_of(np.zeros_like(w), target) is None
