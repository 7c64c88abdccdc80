"""Softmax, LRN, resizing, and moves between space and channels."""

import numpy as np
import pytest

from zeroskip.codegen import Plain
from zeroskip.ops import planes
from zeroskip.ops.lrn import lrn
from zeroskip.ops.permute import permute
from zeroskip.ops.resize import Taps, resize
from zeroskip.ops.softmax import softmax
from zeroskip.ops.space import depth_to_space, shuffle_channels, space_to_depth


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(planes, "TASK_BYTES", 64)


def exact_softmax(x, axis, logarithm):
    x = x.astype(np.float64) - x.max(axis, keepdims=True)
    result = x - np.log(np.exp(x).sum(axis, keepdims=True))
    return result if logarithm else np.exp(result)


@pytest.mark.parametrize("logarithm", [False, True])
def test_softmax(kit, logarithm):
    b = kit.bench
    for shape, axis in (((1, 1000), 1), ((3, 10), -1), ((5, kit.lanes), 1), ((2, kit.lanes + 1, 1, 1), 1)):
        array = kit.random(*shape) * 20
        x, y = b.input(array), b.output(Plain(shape))
        b.run(softmax(x, y, axis=axis, logarithm=logarithm, target=b.target, threads=2))
        np.testing.assert_allclose(b.result(y), exact_softmax(array, axis, logarithm), rtol=1e-5, atol=1e-6)
    for shape in ((1, 21, 5, kit.lanes - 1), (3, 4, 2, 2 * kit.lanes + 1)):
        array, layout = kit.random(*shape) * 20, kit.planar(*shape, lead=2)
        x, y = b.input(array, layout), b.output(layout)
        b.run(softmax(x, y, axis=1, logarithm=logarithm, target=b.target, threads=2))
        np.testing.assert_allclose(b.result(y), exact_softmax(array, 1, logarithm), rtol=1e-5, atol=1e-6)


def test_softmax_over_other_axes_has_no_kernel(kit):
    b = kit.bench
    x = b.input(kit.random(2, 3, 4))
    assert softmax(x, b.output(Plain((2, 3, 4))), axis=1, target=b.target) is None


@pytest.mark.parametrize("size, beta", [(5, 0.75), (3, 0.5), (4, 0.6), (1, 1.0)])
def test_lrn(kit, size, beta):
    b = kit.bench
    for shape in ((1, 7, 3, kit.lanes), (3, 2, 2, kit.lanes + 3)):
        array, layout = kit.random(*shape) * 30, kit.planar(*shape, lead=2)
        x, y = b.input(array, layout), b.output(layout)
        b.run(lrn(x, y, size=size, alpha=0.01, beta=beta, bias=2.0, target=b.target, threads=2))
        before = (size - 1) // 2
        squares = np.pad(array.astype(np.float64) ** 2, ((0, 0), (before, size - 1 - before), (0, 0), (0, 0)))
        total = sum(squares[:, o : o + shape[1]] for o in range(size))
        np.testing.assert_allclose(b.result(y), array / (2 + 0.01 / size * total) ** beta, rtol=2e-6)


def nearest(size, outputs):
    return Taps((np.arange(outputs) * size // outputs)[:, None], np.ones((outputs, 1)))


def linear(size, outputs):
    place = np.clip((np.arange(outputs) + 0.5) * size / outputs - 0.5, 0, size - 1)
    low = np.floor(place).astype(int)
    weight = place - low
    return Taps(np.stack([low, np.minimum(low + 1, size - 1)], 1), np.stack([1 - weight, weight], 1))


def backwards(size, outputs):
    taps = linear(size, outputs)
    return Taps(taps.index[::-1], taps.weight[::-1])


def cubic(size, outputs):
    """Four neighbours, the outermost repeated at borders, with any weights up to a quarter."""
    low = linear(size, outputs).index[:, :1]
    weight = np.cos(np.arange(4 * outputs)).reshape(-1, 4) / 4
    return Taps(np.clip(low + np.arange(-1, 3), 0, size - 1), weight)


def matrix(taps, size):
    full = np.zeros((len(taps.index), size))
    for t in range(taps.index.shape[1]):
        full[np.arange(len(full)), taps.index[:, t]] += taps.weight[:, t]
    return full


@pytest.mark.parametrize("make", [nearest, linear, backwards, cubic])
@pytest.mark.parametrize("factor", [0.5, 2, 3, 1.7])
def test_resize(kit, make, factor):
    b = kit.bench
    for shape in ((1, 2, 4, kit.lanes), (3, 3, 5, kit.lanes + 1), (2, 1, 3, 2 * kit.lanes - 1), (1, 5, 2, 2)):
        n, c, h, w = shape
        size = (int(h * factor), int(w * factor))
        rows, columns = make(h, size[0]), make(w, size[1])
        array = kit.random(*shape)
        expected = matrix(rows, h) @ array.astype(np.float64) @ matrix(columns, w).T
        for source, out in (
            (kit.planar(*shape), kit.planar(n, c, *size, lead=3)),
            (Plain(shape), Plain((n, c, *size))),
        ):
            x, y = b.input(array, source), b.output(out)
            b.run(resize(x, y, rows=rows, columns=columns, target=b.target, threads=2))
            np.testing.assert_allclose(b.result(y), expected, rtol=0, atol=6 * 2.0**-24 * np.abs(array).max())


@pytest.mark.parametrize("block", [2, 3])
@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_and_space(kit, block, mode):
    b = kit.bench
    for n, c, h, w in ((1, 1, 2, 1), (3, 2, 3, kit.lanes // 2), (2, 3, 2, kit.lanes + 1)):
        deep = kit.random(n, c * block * block, h, w)
        if mode == "DCR":
            wide = deep.reshape(n, block, block, c, h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            wide = deep.reshape(n, c, block, block, h, w).transpose(0, 1, 4, 2, 5, 3)
        wide = wide.reshape(n, c, h * block, w * block)
        x, y = b.input(deep, kit.planar(*deep.shape)), b.output(kit.planar(*wide.shape, lead=2))
        b.run(depth_to_space(x, y, block=block, mode=mode, target=b.target, threads=2))
        np.testing.assert_array_equal(b.result(y), wide)
        if mode == "DCR":
            x, y = b.input(wide), b.output(kit.planar(*deep.shape))
            b.run(space_to_depth(x, y, block=block, target=b.target, threads=2))
            np.testing.assert_array_equal(b.result(y), deep)


def test_shuffled_channels(kit):
    b, array = kit.bench, kit.random(2, 6, 2, 5)
    x, y = b.input(array, kit.planar(*array.shape)), b.output(kit.planar(*array.shape))
    b.run(shuffle_channels(x, y, groups=3, target=b.target, threads=2))
    expected = array.reshape(2, 3, 2, 2, 5).transpose(0, 2, 1, 3, 4).reshape(array.shape)
    np.testing.assert_array_equal(b.result(y), expected)


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_permute(kit, order):
    b = kit.bench
    for shape in ((1, 3, 4, kit.lanes), (2, kit.lanes + 1, 3, 5)):
        array = kit.random(*shape)
        strides = [array.strides[axis] for axis in order]
        expected = array.transpose(order)
        for layout in (Plain(expected.shape), kit.planar(*expected.shape, lead=2)):
            x, y = b.input(array), b.output(layout)
            b.run(permute(x, y, strides, target=b.target, threads=2))
            np.testing.assert_array_equal(b.result(y), expected)
