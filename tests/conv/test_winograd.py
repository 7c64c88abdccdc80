"""Winograd's own promises: its matrices, its error bound, its refusals, its tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.conv import ALGORITHMS
from zeroskip.conv.toom_cook import POINTS, transforms
from zeroskip.conv.winograd import LEAST_CHANNELS

UNIT = 2.0**-24
SIZES = list(POINTS)


def bounded(layer, x, m):
    """The result in float64 and the bound that the module states, per pixel; before the activation."""
    t = transforms(m, 3)
    w, bias = layer.weights()
    top, left, bottom, right = layer.pads
    (p, q), a = layer.size, m + 2
    down, across = -(-p // m), -(-q // m)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom + m), (left, right + m)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (a, a), axis=(2, 3))
    d = windows[:, :, : down * m : m, : across * m : m]
    parts = []
    for f in (lambda array: array, np.abs):
        at, g, bt = (f(matrix) for matrix in (t.AT, t.G, t.BT))
        u = g @ f(w.astype(np.float64)) @ g.T
        v = bt @ f(d) @ bt.T
        y = at @ np.einsum("kcij,nctuij->nktuij", u, v, optimize=True) @ at.T
        y = y.transpose(0, 1, 2, 4, 3, 5).reshape(len(x), len(w), down * m, across * m)[:, :, :p, :q]
        parts.append(y + (0 if bias is None else f(bias.astype(np.float64))[:, None, None]))
    exact, magnitude = parts
    return exact, (9 * layer.c + 4 * a * a + 2) * UNIT * magnitude


def check(runner, kit, layer, variant, threads=1):
    m = int(variant[0])
    x = layer.inputs()["x"]
    ((got,),) = runner.run(
        kit.alone(layer), kit.always("winograd", variant), {"x": x}, threads=threads, borders=("y",)
    )
    exact, bound = bounded(layer, x, m)
    np.testing.assert_allclose(exact, kit.reference(layer, x)[0], rtol=1e-9, atol=1e-9)
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("m", SIZES)
def test_matrices_filter(m):
    """y = A^T [(G g) * (B^T d)] is the sliding dot product."""
    t = transforms(m, 3)
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(m + 2), rng.standard_normal(3)
    np.testing.assert_allclose(t.AT @ ((t.G @ g) * (t.BT @ d)), np.correlate(d, g), atol=1e-12)


def test_growth_as_documented():
    assert {m: round(transforms(m, 3).growth) for m in SIZES} == {2: 7, 4: 60, 6: 509}


@settings(max_examples=25)  # fmt: skip
@given(data=st.data())
def test_any_layer_is_within_its_bound(runner, kit, data):
    layer = kit.Layer(
        n=data.draw(st.sampled_from([1, 1, 2, 3])),
        c=data.draw(st.sampled_from([1, 3, 16, 33, 130])),
        h=data.draw(st.integers(4, 20)),
        w=data.draw(st.sampled_from([4, 5, 7, 12, 15, 16, 17, 24, 33, 65])),
        k=data.draw(st.sampled_from([1, 2, 7, 8, 17, 65, 72])),
        kernel=(3, 3),
        pads=data.draw(st.tuples(*[st.integers(0, 3)] * 4)),
        density=data.draw(st.sampled_from([0.0, 0.1, 1.0])),
        bias=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 99)),
    )
    texts = ALGORITHMS["winograd"].variants(layer.problem(), runner.target)
    check(runner, kit, layer, data.draw(st.sampled_from(texts)), data.draw(st.sampled_from([1, 1, 1, 2])))


@pytest.mark.parametrize("m", SIZES)
def test_tiles_around_the_vector(runner, kit, m):
    """Widths and heights around one tile, a group of tiles and a vector of them."""
    lanes = runner.target.lanes
    for size in (m, lanes, m * lanes):
        for q in (size - 1, size, size + 1):
            layer = kit.Layer(c=16, h=m + 3, w=q, k=3, kernel=(3, 3), pads=(1, 1, 1, 1), seed=q)
            texts = ALGORITHMS["winograd"].variants(layer.problem(), runner.target)
            check(
                runner,
                kit,
                layer,
                next(text for text in texts if text.startswith(str(m))),
                threads=1 + (q == size),
            )


def test_residual_and_activation(runner, kit):
    """Against the reference, with m = 2, whose error is direct convolution's."""
    layer = kit.Layer(
        n=2, c=64, h=9, w=21, k=10, kernel=(3, 3), pads=(1, 1, 1, 1), activation=("Relu",), residual=True
    )
    for threads in (1, 2):
        for text in ALGORITHMS["winograd"].variants(layer.problem(), runner.target):
            arrays = layer.inputs()
            ((got,),) = runner.run(
                kit.alone(layer), kit.always("winograd", text), arrays, threads=threads, borders=("y",)
            )
            exact, bound = kit.reference(layer, **arrays)
            assert (np.abs(got - exact) <= bound * transforms(int(text[0]), 3).growth).all()


@pytest.mark.parametrize(
    "change, word",
    [
        ({"kernel": (5, 5)}, "5x5"),
        ({"strides": (2, 1)}, "stride"),
        ({"dilations": (2, 2)}, "dilations"),
        ({"groups": 2}, "groups"),
    ],
)
def test_refuses_in_words(runner, kit, change, word):
    layer = kit.Layer(**{"c": 8, "h": 12, "w": 12, "k": 8, "kernel": (3, 3), **change})
    assert word in ALGORITHMS["winograd"].refuses(layer.problem(), runner.target)


def test_six_needs_channels(runner, kit):
    layer = kit.Layer(c=LEAST_CHANNELS[6] - 1, h=12, w=12, k=8, kernel=(3, 3))
    texts = ALGORITHMS["winograd"].variants(layer.problem(), runner.target)
    assert texts and not any(text.startswith("6") for text in texts)
