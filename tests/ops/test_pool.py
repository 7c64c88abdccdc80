import numpy as np
import pytest

from zeroskip.codegen import Plain
from zeroskip.ops import planes, pool


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(planes, "TASK_BYTES", 64)


def reference(array, kernel, strides, pads, dilations, size, mode):
    """Pools of float64, cell by cell; cells of ceil_mode beyond the padding never count."""
    n, c, h, w = array.shape
    far = [max(0, (o - 1) * s + (k - 1) * d + 1) + 9 for o, s, k, d in zip(size, strides, kernel, dilations)]
    big = np.full((n, c, far[0] + h, far[1] + w), np.nan)
    if mode == "include":
        big[:, :, : pads[0] + h + pads[2], : pads[1] + w + pads[3]] = 0
    big[:, :, pads[0] : pads[0] + h, pads[1] : pads[1] + w] = array
    taps = [
        big[:, :, r * dilations[0] :, s * dilations[1] :][:, :, :: strides[0], :: strides[1]][
            :, :, : size[0], : size[1]
        ]
        for r in range(kernel[0])
        for s in range(kernel[1])
    ]
    cells = np.stack(taps)
    if mode in ("l1", "l2"):
        return np.nansum(np.abs(cells) ** int(mode[1]), axis=0) ** (1 / int(mode[1]))
    reduce = np.nanmax if mode == "max" else np.nanmean
    return reduce(cells, axis=0)


def sizes(shape, kernel, strides, pads, dilations, ceil):
    spans = [
        n + b + e - ((k - 1) * d + 1) for n, b, e, k, d in zip(shape, pads[:2], pads[2:], kernel, dilations)
    ]
    counts = [span // s + 1 for span, s in zip(spans, strides)]
    if not ceil:
        return counts
    up = [-(-span // s) + 1 for span, s in zip(spans, strides)]
    # the last window must begin inside the image or its begin padding
    return [u if (u - 1) * s < n + b else c for u, c, s, n, b in zip(up, counts, strides, shape, pads)]


KINDS = {
    "max": (pool.max_pool, {}),
    "exclude": (pool.average_pool, {}),
    "include": (pool.average_pool, {"count_include_pad": True}),
    "l1": (pool.lp_pool, {"p": 1}),
    "l2": (pool.lp_pool, {"p": 2}),
}
WINDOWS = [
    # kernel, strides, pads, dilations, ceil
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), False),
    ((3, 3), (2, 2), (0, 0, 0, 0), (1, 1), True),
    ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), False),
    ((2, 2), (2, 2), (0, 0, 0, 0), (1, 1), True),
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), False),
    ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1), False),
    ((3, 2), (3, 3), (1, 1, 0, 0), (1, 1), False),
    ((3, 3), (2, 2), (2, 2, 2, 2), (2, 2), False),
    ((2, 3), (1, 1), (1, 2, 0, 1), (2, 2), False),
    ((5, 9), (1, 1), (2, 4, 2, 4), (1, 1), False),
    ((3, 8), (2, 2), (1, 3, 1, 3), (1, 1), True),
]


@pytest.mark.parametrize("mode", KINDS)
@pytest.mark.parametrize("kernel, strides, pads, dilations, ceil", WINDOWS)
def test_windows(kit, kernel, strides, pads, dilations, ceil, mode):
    window = pool.Window(kernel, strides, pads, dilations)
    many = [9 * kit.lanes - 1] if strides[1] == 2 else []  # more vectors than are walked side by side
    for q in (1, kit.lanes - 1, kit.lanes, kit.lanes + 1, 3 * kit.lanes + 1, *many):
        for n, c, extra in ((1, 1, 0), (3, 5, 1)):
            width = (
                max(1, (q - 1) * strides[1] + (kernel[1] - 1) * dilations[1] + 1 - pads[1] - pads[3]) + extra
            )
            shape = (9, width)
            size = sizes(shape, kernel, strides, pads, dilations, ceil)
            array = kit.random(n, c, *shape) - 3
            expected = reference(array, kernel, strides, pads, dilations, size, mode)
            for plain in (False, True):
                b = kit.bench
                x = b.input(array, Plain(array.shape) if plain else kit.planar(n, c, *shape, right=2))
                y = b.output(Plain(expected.shape) if plain else kit.planar(n, c, *size, lead=3))
                make, own = KINDS[mode]
                b.run(make(x, y, window, **own, target=b.target, threads=2))
                got = b.result(y)
                # a sum of m cells errs by at most m units in the last place of its magnitude
                cells = kernel[0] * kernel[1]
                largest = (cells if mode in ("l1", "l2") else 1) * np.abs(array).max()
                bound = 0 if mode == "max" else (cells + 2) * 2.0**-24 * largest
                np.testing.assert_allclose(got, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (5, 33), (14, 14), (40, 40)])
@pytest.mark.parametrize("images, channels", [(1, 1), (3, 5), (1, 40)])
def test_whole_planes(kit, size, images, channels):
    b, array = kit.bench, kit.random(images, channels, *size) - 2
    out = Plain((images, channels, 1, 1))
    for source in (Plain(array.shape), kit.planar(images, channels, *size, lead=1)):
        x, y, z = b.input(array, source), b.output(out), b.output(out)
        b.run(pool.global_average_pool(x, y, target=b.target, threads=2))
        bound = (size[0] * size[1] + 2) * 2.0**-24 * np.abs(array).max()
        expected = array.astype(np.float64).mean((2, 3), keepdims=True)
        np.testing.assert_allclose(b.result(y), expected, rtol=0, atol=bound)
        b.run(pool.global_max_pool(x, z, target=b.target, threads=2))
        np.testing.assert_array_equal(b.result(z), array.max((2, 3), keepdims=True))
