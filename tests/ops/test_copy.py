import numpy as np
import pytest

from zeroskip.codegen import Plain, Planar
from zeroskip.ops import planes
from zeroskip.ops.copy import copy, gather_planes


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(planes, "TASK_BYTES", 64)


def widths(lanes):
    return [1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes + 2]


def moved(kit, array, source, destination, **options):
    b = kit.bench
    x, y = b.input(array, source), b.output(destination)
    b.run(copy(x, y, target=b.target, threads=b.threads, **options))
    return b.result(y)


@pytest.mark.parametrize("images, channels, height", [(1, 1, 1), (1, 3, 5), (3, 2, 4), (3, 17, 1)])
@pytest.mark.parametrize("right, below, lead", [(0, 0, 0), (1, 1, 20), (3, 2, 1), (40, 1, 7)])
def test_plain_to_planar_and_back(kit, images, channels, height, right, below, lead):
    for width in widths(kit.lanes):
        array = kit.random(images, channels, height, width)
        layout = kit.planar(images, channels, height, width, right=right, below=below, lead=lead)
        other = kit.planar(images, channels, height, width, right=2, below=3, lead=5)
        plain = Plain(array.shape)
        np.testing.assert_array_equal(moved(kit, array, plain, layout), array)
        np.testing.assert_array_equal(moved(kit, array, layout, plain), array)
        np.testing.assert_array_equal(moved(kit, array, layout, other), array)
        np.testing.assert_array_equal(moved(kit, array, layout, layout), array)


@pytest.mark.parametrize("step", [(2, 2), (2, 1), (1, 2), (3, 3), (4, 4)])
@pytest.mark.parametrize("pads", [(0, 0), (1, 1), (3, 2)])
@pytest.mark.parametrize("from_planar", [False, True])
def test_phase_split(kit, step, pads, from_planar):
    for width in widths(kit.lanes):
        n, c, h = 2, 3, 7
        array = kit.random(n, c, h, width)
        height, across = ((size + 2 * pad) // s + 1 for size, pad, s in zip((h, width), pads, step))
        phases = tuple((a, b) for a in range(step[0]) for b in range(step[1]))
        layout = Planar(n, c, height, across, across + 2, height + 1, 9, step, phases)
        padded = np.zeros((n, c, height * step[0] + 9, across * step[1] + 9), np.float32)
        padded[:, :, pads[0] : pads[0] + h, pads[1] : pads[1] + width] = array
        split = [padded[:, :, a :: step[0], b :: step[1]][:, :, :height, :across] for a, b in phases]
        expected = np.stack(split, axis=2).reshape(n, -1, height, across)
        source = kit.planar(n, c, h, width) if from_planar else Plain(array.shape)
        np.testing.assert_array_equal(moved(kit, array, source, layout, pads=pads), expected)


@pytest.mark.parametrize("pads", [(1, 2), (-1, 3), (-2, -1), (0, -3)])
def test_pads_and_crops(kit, pads):
    array = kit.random(2, 3, 6, kit.lanes + 5)
    top, left = pads
    layout = kit.planar(2, 3, 5, kit.lanes + 3)
    big = np.pad(array, ((0, 0), (0, 0), (4, 4), (4, 4)))
    expected = big[:, :, 4 - top : 9 - top, 4 - left : kit.lanes + 7 - left]
    np.testing.assert_array_equal(moved(kit, array, Plain(array.shape), layout, pads=pads), expected)
    np.testing.assert_array_equal(
        moved(kit, array, Plain(array.shape), Plain(expected.shape), pads=pads), expected
    )


def test_plain_copies_reshape(kit):
    for count in (1, kit.lanes - 1, kit.lanes, 4 * kit.lanes + 1, 5000):
        array = kit.random(count)
        np.testing.assert_array_equal(moved(kit, array, Plain((count,)), Plain((1, count, 1))).ravel(), array)


def test_ranks_two_and_three(kit):
    np.testing.assert_array_equal(
        moved(kit, kit.random(2, 5), Plain((2, 5)), kit.planar(2, 5, 1, 1))[:, :, 0, 0], kit.random(2, 5)
    )
    signal = kit.random(2, 5, 37)
    np.testing.assert_array_equal(
        moved(kit, signal, Plain((2, 5, 37)), kit.planar(2, 5, 1, 37))[:, :, 0], signal
    )


def test_gathered_planes(kit):
    b, array = kit.bench, kit.random(2, 4, 3, 9)
    x, y = b.input(array, kit.planar(2, 4, 3, 9)), b.output(kit.planar(2, 5, 3, 9, lead=3))
    order = [3, 1, 1, 0, 2]
    b.run(gather_planes(x, y, [(c, 0, 0) for c in order], threads=2))
    np.testing.assert_array_equal(b.result(y), array[:, order])
