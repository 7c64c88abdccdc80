"""im2col and MEC: their matrices take exactly the published words; MEC's rule; strides, images, groups."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.codegen import Operand, Planar, resolve
from zeroskip.conv import ALGORITHMS, lowered, mec
from zeroskip.conv.algorithm import Site
from zeroskip.encodings import conv_memory

LAYERS = [
    {"c": 3, "h": 27, "w": 27, "k": 4, "kernel": (11, 11), "strides": (4, 4)},
    {"c": 5, "h": 12, "w": 20, "k": 4, "kernel": (3, 3), "pads": (1, 1, 1, 1)},
    {"n": 3, "c": 4, "h": 9, "w": 8, "k": 6, "kernel": (5, 2), "strides": (2, 1), "pads": (2, 0, 1, 1)},
    {"n": 2, "c": 6, "h": 10, "w": 7, "k": 6, "kernel": (3, 3), "strides": (3, 2), "groups": 2},
    {"c": 4, "h": 7, "w": 70, "k": 40, "kernel": (3, 5), "strides": (1, 2), "pads": (2, 2, 2, 2)},
    {"n": 2, "c": 3, "h": 5, "w": 5, "k": 70, "kernel": (2, 4), "pads": (1, 3, 0, 0)},
]


def allocated(layer, algorithm, variant):
    """Bytes that building asks for."""
    sizes: list[int] = []
    problem = layer.problem()
    n, (p, q) = layer.n, layer.size
    x = Planar(n, layer.c, layer.h, layer.w, layer.w + 4, layer.h + 4, 4 * layer.w)
    y = Planar(n, layer.k, p, q, q + 1, p + 1, 0)

    def allocate(size):
        sizes.append(size)
        return 2

    site = Site(Operand(0, x), Operand(1, y), None, resolve("host"), 1, allocate)
    algorithm.build(problem, variant, site)
    return sum(sizes)


@pytest.mark.parametrize("name", ["im2col", "mec"])
@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: "x".join(map(str, shape["kernel"])))
def test_workspace_is_what_the_paper_says(kit, name, shape):
    layer = kit.Layer(**shape)
    words = conv_memory(
        name,
        (layer.n, layer.c, layer.h, layer.w),
        layer.weights()[0].shape,
        stride=layer.strides,
        padding=layer.pads,
    )
    for variant in ALGORITHMS[name].variants(layer.problem(), resolve("host")):
        assert allocated(layer, ALGORITHMS[name], variant) == 4 * words


@pytest.mark.parametrize("name", ["im2col", "mec"])
@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: "x".join(map(str, shape["kernel"])))
def test_every_variant(runner, kit, name, shape):
    layer = kit.Layer(**shape, residual=True, activation=("Relu",))
    arrays = layer.inputs()
    expected, bound = kit.reference(layer, **arrays)
    for threads, variant in enumerate(ALGORITHMS[name].variants(layer.problem(), runner.target)):
        choose = kit.always(name, variant)
        ((got,),) = runner.run(kit.alone(layer), choose, arrays, threads=1 + threads % 2, borders=("y",))
        assert (np.abs(got - expected) <= bound).all(), variant


@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: "x".join(map(str, shape["kernel"])))
def test_the_callers_arrays(runner, kit, shape):
    """Given and wanted plain, by algorithms that can do so and by those that convert: nothing beside them."""
    layer = kit.Layer(**shape, activation=("Relu",))
    arrays = layer.inputs()
    for name, algorithm in ALGORITHMS.items():
        possible = not algorithm.refuses(layer.problem(), runner.target)
        variants = algorithm.variants(layer.problem(), runner.target) if possible else []
        for threads, variant in enumerate(variants if algorithm.plain else variants[:1]):
            choose = kit.always(name, variant)
            ((got,),) = runner.run(kit.alone(layer), choose, arrays, threads=1 + threads % 2, in_place=True)
            expected, bound = kit.reference(layer, **arrays, growth=algorithm.growth(variant))
            assert (np.abs(got - expected) <= bound).all(), (name, variant)


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"n": 1}, "B"),
        ({"n": 2}, "AB"),
        ({"n": 2, "w": mec.T + 2}, "AB"),  # Ow = T
        ({"n": 2, "w": mec.T + 3}, "B"),
        ({"n": 2, "k": 36}, "AB"),  # |O| = 36 * 8 * 8 <= |L| = 3 * 8 * 10 * 10
        ({"n": 2, "k": 38}, "B"),
    ],
)
def test_the_rule_of_solutions(kit, change, expected):
    layer = kit.Layer(**{"c": 10, "h": 10, "w": 10, "k": 8, "kernel": (3, 3), **change})
    assert mec.solutions(layer.problem()) == expected


def test_a_matrix_too_large_is_refused_in_words():
    assert lowered.too_large(2**31 - 2**20) is None
    assert "2.1 GB" in (lowered.too_large(2**31) or "")


def test_panels_cut_pixels_evenly():
    bounds, vectors = lowered.panel_bounds(100, 3, 16)
    assert bounds.tolist() == [0, 48, 80, 100] and vectors.tolist() == [3, 2, 2]
