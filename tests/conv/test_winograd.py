"""Winograd's own promises: its matrices, its error bound, its refusals, its tiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.conv import ALGORITHMS
from zeroskip.conv.toom_cook import POINTS, transforms
from zeroskip.conv.winograd import LARGEST_KERNEL, LEAST_TERMS
from zeroskip.conv.winograd_variant import kernels, parse_variant

UNIT = 2.0**-24
PRODUCTS = list(POINTS)
KERNELS = range(2, LARGEST_KERNEL + 1)


def phases(layer, x, extra):
    """The padded input as planes split by the strides, (N, C*phases, H, W), with `extra` zeros after it."""
    top, left, bottom, right = layer.pads
    (down, across), problem = layer.strides, layer.problem()
    ends = ((0, 0), (0, 0), (top, bottom + extra * down), (left, right + extra * across))
    padded = np.pad(x.astype(np.float64), ends)
    height, width = padded.shape[2] // down * down, padded.shape[3] // across * across
    split = [padded[:, :, a:height:down, b:width:across] for a, b in problem.phases]
    return np.stack(split, axis=2).reshape(len(x), -1, height // down, width // across)


def bounded(layer, x, variant):
    """The result in float64 and the bound that the module states, per pixel; before the activation."""
    m, r = variant.m, variant.r
    t = transforms(m, r)
    w, (_, bias) = kernels(layer.problem()), layer.weights()
    (p, q), a = layer.size, m + r - 1
    down, across = -(-p // m), -(-q // m)
    windows = np.lib.stride_tricks.sliding_window_view(phases(layer, x, m + a), (a, a), axis=(2, 3))
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
    return exact, (w[0].size + 4 * a * a + 2) * UNIT * magnitude


def check(runner, kit, layer, text, threads=1):
    x = layer.inputs()["x"]
    ((got,),) = runner.run(
        kit.alone(layer), kit.always("winograd", text), {"x": x}, threads=threads, borders=("y",)
    )
    exact, bound = bounded(layer, x, parse_variant(text))
    np.testing.assert_allclose(exact, kit.reference(layer, x)[0], rtol=1e-9, atol=1e-9)
    assert (np.abs(got - exact) <= bound).all()


def texts_of(layer, runner):
    return ALGORITHMS["winograd"].variants(layer.problem(), runner.target)


@pytest.mark.parametrize("r", KERNELS)
@pytest.mark.parametrize("a", PRODUCTS)
def test_matrices_filter(a, r):
    """y = A^T [(G g) * (B^T d)] is the sliding dot product."""
    t = transforms(a - r + 1, r) if a >= r else pytest.skip("the kernel is larger than the tile's input")
    rng = np.random.default_rng(0)
    d, g = rng.standard_normal(a), rng.standard_normal(r)
    np.testing.assert_allclose(t.AT @ ((t.G @ g) * (t.BT @ d)), np.correlate(d, g), atol=1e-12)


def test_growth_as_documented():
    assert [round(transforms(a - 2, 3).growth) for a in PRODUCTS] == [7, 60, 509]


@settings(max_examples=25)  # fmt: skip
@given(data=st.data())
def test_any_layer_is_within_its_bound(runner, kit, data):
    layer = kit.Layer(
        n=data.draw(st.sampled_from([1, 1, 2, 3])),
        c=data.draw(st.sampled_from([1, 3, 16, 33, 130])),
        h=data.draw(st.integers(5, 20)),
        w=data.draw(st.sampled_from([5, 7, 12, 15, 16, 17, 24, 33, 65])),
        k=data.draw(st.sampled_from([1, 2, 7, 8, 17, 65, 72])),
        kernel=data.draw(st.sampled_from([(3, 3), (3, 3), (3, 3), (1, 2), (5, 4), (5, 5)])),
        pads=data.draw(st.tuples(*[st.integers(0, 3)] * 4)),
        density=data.draw(st.sampled_from([0.0, 0.1, 1.0])),
        bias=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 99)),
    )
    texts = texts_of(layer, runner)
    check(runner, kit, layer, data.draw(st.sampled_from(texts)), data.draw(st.sampled_from([1, 1, 1, 2])))


@pytest.mark.parametrize(
    "kernel, strides",
    [((7, 7), (2, 2)), ((3, 3), (2, 2)), ((5, 3), (2, 1)), ((3, 3), (1, 2)), ((2, 5), (3, 2))],
)
@pytest.mark.parametrize("n, pads", [(1, (0, 0, 0, 0)), (3, (3, 1, 2, 3))])
def test_strides_by_phases(runner, kit, kernel, strides, n, pads):
    """Strided layers are sums over phases; heights and widths that the stride does not divide."""
    layer = kit.Layer(n=n, c=7, h=21, w=38, k=9, kernel=kernel, strides=strides, pads=pads)
    texts = texts_of(layer, runner)
    assert texts
    for text in texts[:: 1 if n == 1 else 3]:
        check(runner, kit, layer, text, threads=1 + (n > 1))


@pytest.mark.parametrize("m", [2, 4, 6])
def test_tiles_around_the_vector(runner, kit, m):
    """Widths and heights around one tile, a group of tiles and a vector of them."""
    lanes = runner.target.lanes
    for size in (m, lanes, m * lanes):
        for q in (size - 1, size, size + 1):
            layer = kit.Layer(c=16, h=m + 3, w=q, k=3, kernel=(3, 3), pads=(1, 1, 1, 1), seed=q)
            variants = [variant for variant in map(parse_variant, texts_of(layer, runner)) if variant.m == m]
            for variant in {bool(variant.mr): variant for variant in variants}.values():
                check(runner, kit, layer, str(variant), threads=1 + (q == size))


def test_tiles_or_channels_in_the_vector_give_the_same(runner, kit):
    """Both sum the input channels in their order."""
    layer = kit.Layer(c=130, h=13, w=27, k=17, kernel=(3, 3), pads=(1, 1, 1, 1))
    outputs: dict[int, list[np.ndarray]] = {}
    for text in texts_of(layer, runner):
        ((y,),) = runner.run(kit.alone(layer), kit.always("winograd", text), layer.inputs())
        outputs.setdefault(parse_variant(text).m, []).append(y)
    for first, *others in outputs.values():
        assert others
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_residual_and_activation(runner, kit):
    """Against the reference, with m = 2, whose error is direct convolution's."""
    layer = kit.Layer(
        n=2, c=64, h=9, w=21, k=10, kernel=(3, 3), pads=(1, 1, 1, 1), activation=("Relu",), residual=True
    )
    for threads in (1, 2):
        for text in texts_of(layer, runner):
            arrays = layer.inputs()
            ((got,),) = runner.run(
                kit.alone(layer), kit.always("winograd", text), arrays, threads=threads, borders=("y",)
            )
            exact, bound = kit.reference(layer, **arrays)
            assert (np.abs(got - exact) <= bound * ALGORITHMS["winograd"].growth(text)).all()


@pytest.mark.parametrize(
    "change, word",
    [
        ({"kernel": (7, 7)}, "7x7"),
        ({"kernel": (1, 1)}, "products"),
        ({"strides": (3, 3)}, "products"),
        ({"dilations": (2, 2)}, "dilations"),
        ({"groups": 2}, "groups"),
    ],
)
def test_refuses_in_words(runner, kit, change, word):
    layer = kit.Layer(**{"c": 8, "h": 12, "w": 12, "k": 8, "kernel": (3, 3), **change})
    assert word in ALGORITHMS["winograd"].refuses(layer.problem(), runner.target)


def test_many_products_need_many_terms(runner, kit):
    layer = kit.Layer(c=LEAST_TERMS[8] // 9 - 1, h=12, w=12, k=8, kernel=(3, 3))
    sizes = {parse_variant(text).m for text in texts_of(layer, runner)}
    assert sizes == {2, 4}
