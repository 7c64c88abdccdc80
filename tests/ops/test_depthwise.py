import numpy as np
import pytest

from zeroskip.ops import planes
from zeroskip.ops.depthwise import depthwise
from zeroskip.ops.down import Windows, reads_through


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(planes, "TASK_BYTES", 64)


def reference(x, w, bias, strides, pads, dilations, size):
    multiplier = len(w) // x.shape[1]
    x = np.repeat(x.astype(np.float64), multiplier, axis=1)
    big = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    out = np.zeros((*x.shape[:2], *size))
    for r in range(w.shape[1]):
        for s in range(w.shape[2]):
            view = big[:, :, r * dilations[0] :: strides[0], s * dilations[1] :: strides[1]]
            out += w[:, r, s][:, None, None] * view[:, :, : size[0], : size[1]]
    return out + bias[:, None, None]


LAYERS = [
    # taps, strides, pads, dilations, multiplier
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    ((3, 3), (2, 2), (0, 0, 1, 1), (1, 1), 1),
    ((5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 2),
    ((5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 1),
    ((3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 3),
    ((3, 3), (2, 2), (2, 2, 2, 2), (2, 2), 1),
    ((2, 3), (3, 3), (0, 1, 1, 1), (1, 1), 1),
    ((1, 7), (1, 2), (0, 3, 0, 3), (1, 1), 1),
    ((7, 1), (2, 1), (3, 0, 3, 0), (1, 1), 1),
]


@pytest.mark.parametrize("wide_borders", [True, False])
@pytest.mark.parametrize("taps, strides, pads, dilations, multiplier", LAYERS)
def test_against_numpy(kit, taps, strides, pads, dilations, multiplier, wide_borders):
    b = kit.bench
    many = [9 * kit.lanes - 1] if strides[1] == 2 else []  # more vectors than are walked side by side
    for q in (1, kit.lanes - 1, kit.lanes, kit.lanes + 1, 2 * kit.lanes + 3, *many):
        for n, c, extra, fused in ((1, 1, 0, not wide_borders), (3, 3, 1, True)):
            width = (
                max(1, (q - 1) * strides[1] + (taps[1] - 1) * dilations[1] + 1 - pads[1] - pads[3]) + extra
            )
            shape = (9, width)
            size = tuple(
                (m + p + e - (t - 1) * d - 1) // s + 1
                for m, p, e, t, d, s in zip(shape, pads[:2], pads[2:], taps, dilations, strides)
            )
            below, right = (max(pads[0], pads[2]), max(pads[1], pads[3])) if wide_borders else (0, 0)
            lead = (pads[0] * (width + right) + pads[1]) if wide_borders else 0
            source = kit.planar(n, c, *shape, right=right, below=below, lead=lead)
            layout = kit.planar(n, c * multiplier, *size, lead=3)
            array, w = kit.random(n, c, *shape), kit.random(c * multiplier, *taps)
            bias, addend = kit.random(c * multiplier), kit.random(n, c * multiplier, *size)
            expected = reference(array, w, bias, strides, pads, dilations, size)
            if wide_borders and strides[1] <= 2:
                assert reads_through(source, layout, Windows(taps, strides, dilations), pads)
            x, y, residual = b.input(array, source), b.output(layout), b.input(addend, layout)
            options = {"activation": ("Relu",), "residual": residual} if fused else {}
            if fused:
                expected = np.maximum(expected + addend, 0)
            call = depthwise(
                x,
                y,
                weight=w,
                bias=bias,
                strides=strides,
                pads=pads,
                dilations=dilations,
                target=b.target,
                threads=2,
                **options,
            )
            b.run(call)
            bound = (w[0].size + 3) * 2.0**-24 * (np.abs(array).max() * np.abs(w).max() * w[0].size + 8)
            np.testing.assert_allclose(b.result(y), expected, rtol=0, atol=bound)
