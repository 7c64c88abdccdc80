"""Convolution by transforms: its butterflies, its error bound, its refusals, its windows."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zeroskip.codegen import Kernel, load, resolve
from zeroskip.conv import ALGORITHMS, fft, spectra

UNIT = 2.0**-24
FFT = ALGORITHMS["fft"]


def bound(layer, x, text):
    """The module's stated bound on what the sums err by, per image and output channel."""
    variant = fft.parse_variant(text)
    n, inputs = variant.ty * variant.tx, layer.c // layer.groups
    w, bias = layer.weights()
    filters = np.abs(w.astype(np.float64)).max((2, 3)).reshape(layer.groups, -1, inputs)
    largest = np.abs(x.astype(np.float64)).max((2, 3)).reshape(len(x), layer.groups, inputs)
    sums = np.einsum("gkc,ngc->ngk", filters, largest).reshape(len(x), -1)
    factor = np.sqrt(n) * (14 * np.log2(n) + 2 * inputs + 8) * w[0, 0].size
    added = 2 * UNIT * (0 if bias is None else np.abs(bias))
    return (factor * UNIT * sums + added)[:, :, None, None]


def run(runner, kit, layer, text, threads=1):
    """The result and the exact one."""
    x = layer.inputs()["x"]
    ((got,),) = runner.run(
        kit.alone(layer), kit.always("fft", text), {"x": x}, threads=threads, borders=("y",)
    )
    return x, got, kit.reference(layer, x)[0]


def evaluate(emit, x):
    """A kernel that reads rows of vectors and writes rows of vectors."""
    target = resolve("host")

    def body(b):
        rows = [b.load_vector(b.pointer(0) + i * b.vector_bytes) for i in range(len(x))]
        for i, value in enumerate(emit(b, rows)):
            b.store(value, b.pointer(1) + i * b.vector_bytes)

    kernel = Kernel(f"spectra_{emit.__name__}_{len(x)}", body)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    out = np.zeros((2 * len(x) + 2, target.lanes), np.float32)
    arguments = np.array([x.ctypes.data, out.ctypes.data], np.int64)
    function(load([kernel], target)[kernel.name])(arguments.ctypes.data, 0, 0)
    return out


def real(b, rows):
    return [part for pair in spectra.transform_real(b, rows) for part in pair]


def there_and_back(b, rows):
    return spectra.inverse_real(b, spectra.transform_real(b, rows), len(rows))


def complex_pairs(b, rows):
    pairs = list(zip(rows[::2], rows[1::2]))
    return [part for pair in spectra.transform(b, pairs) for part in pair]


@pytest.mark.parametrize("n", [2, 4, 6, 8, 12, 16, 24, 32, 48])
def test_butterflies(n):
    """Against NumPy's; a transform errs by at most 7 u log2(n) of the 2-norm."""
    lanes = resolve("host").lanes
    x = np.random.default_rng(n).standard_normal((n, lanes)).astype(np.float32)
    tolerance = 7 * UNIT * max(1, np.log2(n)) * np.linalg.norm(x, axis=0) * np.sqrt(n)
    pairs = evaluate(real, x)[: n + 2].reshape(-1, 2, lanes)
    wanted = np.fft.rfft(x.astype(np.float64), axis=0)
    assert (np.abs(pairs[:, 0] + 1j * pairs[:, 1] - wanted) <= tolerance).all()
    assert (np.abs(evaluate(there_and_back, x)[:n] / n - x) <= 2 * tolerance).all()
    z = x.reshape(-1, 2, lanes)
    pairs = evaluate(complex_pairs, x)[:n].reshape(-1, 2, lanes)
    wanted = np.fft.fft(z[:, 0].astype(np.float64) + 1j * z[:, 1], axis=0)
    assert (np.abs(pairs[:, 0] + 1j * pairs[:, 1] - wanted) <= tolerance).all()


@settings(max_examples=20)
@given(data=st.data())
def test_any_layer_is_within_its_bound(runner, kit, data):
    groups = data.draw(st.sampled_from([1, 1, 2]))
    layer = kit.Layer(
        n=data.draw(st.sampled_from([1, 2])),
        c=groups * data.draw(st.sampled_from([1, 3, 16, 33])),
        h=data.draw(st.sampled_from([1, 5, 17, 33])),
        w=data.draw(st.sampled_from([1, 7, 16, 40])),
        k=groups * data.draw(st.sampled_from([1, 8, 17, 40])),
        kernel=data.draw(st.sampled_from([(7, 7), (1, 9), (11, 1), (3, 15)])),
        strides=data.draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (4, 3)])),
        pads=data.draw(st.tuples(*[st.integers(0, 7)] * 4)),
        groups=groups,
        density=data.draw(st.sampled_from([0.0, 0.1, 1.0])),
        bias=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 99)),
    )
    assume(min(layer.size) >= 1)
    text = data.draw(st.sampled_from(FFT.variants(layer.problem(), runner.target)))
    x, got, exact = run(runner, kit, layer, text, data.draw(st.sampled_from([1, 2])))
    assert (np.abs(got - exact) <= bound(layer, x, text)).all(), text


def test_dilated_kernels_are_larger_ones(runner, kit):
    layer = kit.Layer(c=5, h=19, w=23, k=6, kernel=(3, 3), dilations=(3, 4), pads=(3, 4, 3, 4))
    assert fft.spans(layer.problem()) == (7, 9)
    for text in FFT.variants(layer.problem(), runner.target):
        x, got, exact = run(runner, kit, layer, text)
        assert (np.abs(got - exact) <= bound(layer, x, text)).all(), text


def test_what_is_met_is_about_what_direct_summation_errs_by(runner, kit):
    """The bound is of the worst case; errors of random sign stay a hundred times below it."""
    layer = kit.Layer(c=64, h=32, w=32, k=16, kernel=(7, 7), pads=(3, 3, 3, 3), bias=False)
    for text in FFT.variants(layer.problem(), runner.target):
        _, got, exact = run(runner, kit, layer, text)
        assert np.abs(got - exact).max() <= 2e-6 * np.abs(exact).max(), text


@pytest.mark.parametrize(
    "change, word",
    [
        ({"kernel": (3, 3)}, "spans 3x3"),
        ({"kernel": (6, 6)}, "7 or more"),
        ({"kernel": (1, 33), "w": 50}, "longest"),
    ],
)
def test_refuses_in_words(kit, change, word):
    layer = kit.Layer(**{"c": 8, "h": 12, "w": 12, "k": 8, **change})
    assert word in FFT.refuses(layer.problem(), resolve("host"))


def test_refuses_spectra_that_are_too_large(kit, monkeypatch):
    problem = kit.Layer(c=8, h=12, w=12, k=8, kernel=(7, 7)).problem()
    size = fft.weight_bytes(problem, fft.tilings(problem, resolve("host"))[0])
    monkeypatch.setattr(fft, "LARGEST", size)
    assert FFT.refuses(problem, resolve("host")) is None
    monkeypatch.setattr(fft, "LARGEST", size - 1)
    assert "spectra" in FFT.refuses(problem, resolve("host"))


def test_windows_fit_the_map(kit):
    """No longer transform than the padded map needs; lines share a vector evenly."""
    target = resolve("host")
    small = kit.Layer(c=8, h=7, w=7, k=8, kernel=(7, 7), pads=(3, 3, 3, 3))
    assert max(t.ty for t in fft.tilings(small.problem(), target)) < 32
    lines = kit.Layer(c=8, h=40, w=target.lanes + 1, k=8, kernel=(7, 1))
    for tiling in fft.tilings(lines.problem(), target):
        assert (tiling.tx, tiling.lines) == (1, target.lanes // 2 + 1)


def test_blocks_hold_whole_register_tiles(kit):
    layer = kit.Layer(n=3, c=48, h=60, w=60, k=48, kernel=(7, 7), pads=(3, 3, 3, 3))
    target = resolve("host")
    for text in FFT.variants(layer.problem(), target):
        blocks = fft.Blocks(layer.problem(), fft.parse_variant(text), target)
        assert blocks.lines % blocks.mr == 0
        assert blocks.tiles * (blocks.blocks - 1) < blocks.count <= blocks.tiles * blocks.blocks
