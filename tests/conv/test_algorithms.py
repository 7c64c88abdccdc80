"""Every algorithm of the registry, every variant, against the definition of convolution in float64."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zeroskip.conv import ALGORITHMS

EXAMPLES = 50


@pytest.fixture(params=list(ALGORITHMS))
def algorithm(request):
    return ALGORITHMS[request.param]


def accepts(algorithm, runner, layer):
    return not algorithm.refuses(layer.problem(), runner.target)


def variants(algorithm, runner, layer):
    return algorithm.variants(layer.problem(), runner.target)


def check(runner, kit, layer, algorithm, variant=0, threads=1):
    """Twice in the same memory, with different inputs; the variant is its text, or its number."""
    if isinstance(variant, int):
        texts = variants(algorithm, runner, layer)
        variant = texts[variant % len(texts)]
    first, second = layer.inputs(1), layer.inputs(2)
    choose = kit.always(algorithm.name, variant)
    results = runner.run(kit.alone(layer), choose, first, second, threads=threads, borders=("y",))
    for arrays, (got,) in zip((first, second), results):
        expected, bound = kit.reference(layer, **arrays, growth=algorithm.growth(variant))
        assert got.shape == expected.shape
        wrong = ~(np.abs(got - expected) <= bound)
        assert not wrong.any(), (
            f"{wrong.sum()} of {wrong.size} wrong, first at {np.argwhere(wrong)[0]}: "
            f"{got[wrong][0]} for {expected[wrong][0]} by {variant} of {layer}"
        )


SIZES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 23])
CHANNELS = st.sampled_from([1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 33])
DENSITIES = st.integers(0, 20).map(lambda twentieths: twentieths / 20)
SPECIAL = st.sampled_from(["", "", "", "denormal", "mixed", "signed zeros", "zero channels"])
TAPS = st.sampled_from([1, 1, 2, 3, 3, 5, 7])
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
DILATIONS = st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3)])
# Every algorithm takes some layers of one of these kinds, and a random layer is seldom of them.
KINDS = ["any", "one-dimensional", "depthwise", "3x3", "groups", "large", "pixel"]


@st.composite
def layers(draw, kit):
    """Any convolution."""
    kind = draw(st.sampled_from(KINDS))
    kernel, strides, dilations = draw(st.tuples(TAPS, TAPS)), draw(PAIRS), draw(DILATIONS)
    pads = draw(st.tuples(*[st.integers(0, 3)] * 4))
    c, h, k, groups = draw(CHANNELS), draw(SIZES), draw(CHANNELS), 1
    if kind == "one-dimensional":
        h, kernel, pads = 1, (1, kernel[1]), (0, pads[1], 0, pads[3])
        strides, dilations = (1, strides[1]), (1, dilations[1])
    elif kind == "3x3":
        kernel, strides, dilations = (3, 3), (1, 1), (1, 1)
    elif kind == "large":
        kernel, dilations = draw(st.sampled_from([(7, 7), (1, 7), (9, 1), (4, 11)])), (1, 1)
    elif kind == "pixel":
        kernel, pads = draw(st.sampled_from([((1, 1), (0,) * 4), ((3, 3), (1,) * 4), ((7, 7), (3,) * 4)]))
        h, strides, dilations = 1, (1, 1), (1, 1)
    elif kind == "groups":
        groups = draw(st.sampled_from([2, 3, 4]))
        c, k = min(c, 9) * groups, min(k, 9) * groups
    elif kind == "depthwise":
        groups = c = max(c, 2)
        k = c * draw(st.sampled_from([1, 1, 2, 3]))
    fused = draw(st.booleans())  # two epilogues: each other one is a kernel to be compiled
    layer = kit.Layer(
        n=draw(st.sampled_from([1, 1, 2, 3])),
        c=c,
        h=h,
        w=1 if kind == "pixel" else draw(SIZES),
        k=k,
        kernel=kernel,
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
        density=draw(DENSITIES),
        bias=draw(st.booleans()),
        activation=("Relu",) if fused else None,
        residual=fused,
        one_dimensional=kind == "one-dimensional",
        seed=draw(st.integers(0, 100)),
        filled=draw(DENSITIES),
        special=draw(SPECIAL),
    )
    assume(min(layer.size) >= 1)
    return layer


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_any_layer(runner, kit, algorithm, data):
    layer = data.draw(layers(kit).filter(lambda layer: accepts(algorithm, runner, layer)))
    variant, threads = data.draw(st.integers(0, 60)), data.draw(st.sampled_from([1, 2]))
    check(runner, kit, layer, algorithm, variant, threads)


@settings(max_examples=50)
@given(data=st.data())
def test_refusals_are_in_words(runner, kit, data):
    layer = data.draw(layers(kit))
    answers = [algorithm.refuses(layer.problem(), runner.target) for algorithm in ALGORITHMS.values()]
    assert any(answer is None for answer in answers), "each layer is accepted by one algorithm at least"
    assert all(answer is None or len(answer.split()) > 3 for answer in answers)


@pytest.mark.parametrize(
    "size, strides, pads", [((1, 2), (1, 3), (0, 0, 0, 2)), ((2, 3), (2, 2), (0, 0, 2, 3))]
)
def test_strides_of_a_plane_as_large_as_the_result(runner, kit, algorithm, size, strides, pads):
    """Padding makes up for what strides drop: input, split input and output all have the same geometry."""
    h, w = size
    layer = kit.Layer(
        c=4, h=h, w=w, k=4, strides=strides, pads=pads, groups=4 if algorithm.name == "depthwise" else 1
    )
    if accepts(algorithm, runner, layer):
        check(runner, kit, layer, algorithm)


def around(*sizes):
    return sorted({max(1, size + step) for size in sizes for step in (-1, 0, 1)})


def roomy(kit, algorithm, runner, **changes):
    """A layer with plenty of everything, of a kind that the algorithm accepts."""
    plain = kit.Layer(c=300, h=3, w=40, k=24, kernel=(3, 3), pads=(1, 1, 1, 1), density=0.3)
    others = {"c": 24, "k": 24, "groups": 24}, {"kernel": (7, 7), "pads": (3, 3, 3, 3)}
    options = [replace(plain, **(changes | other)) for other in ({}, *others)]
    return next(layer for layer in options if accepts(algorithm, runner, layer))


def by_numbers(texts, count):
    """One variant for each different beginning of `count` numbers in its text, e.g. MR and NV; or just 1."""
    return {tuple(map(int, re.findall(r"\d+", text)[:count])) or (1,): text for text in reversed(texts)}


def test_pixels_around_the_tile(runner, kit, algorithm):
    """One row of pixels: one less than fills the register tile, as many, one more; then two tiles."""
    layer = roomy(kit, algorithm, runner, c=16, h=1, k=16, kernel=(3, 3))
    lanes, seen = runner.target.lanes, set()
    for numbers, text in by_numbers(variants(algorithm, runner, layer), 2).items():
        for width in around(lanes, *(tiles * number * lanes for number in numbers for tiles in (1, 2))):
            changed = replace(layer, w=width, seed=width)
            if (numbers[-1], width) not in seen and text in variants(algorithm, runner, changed):
                seen.add((numbers[-1], width))
                check(runner, kit, changed, algorithm, text)


def test_channels_around_the_tile(runner, kit, algorithm):
    """Output channels around each number of a variant (MR among them), input channels too (segments)."""
    layer = roomy(kit, algorithm, runner, h=1, w=9, kernel=(3, 3) if algorithm.name == "winograd" else (1, 1))
    seen = set()
    for numbers, text in by_numbers(variants(algorithm, runner, layer), 3).items():
        for field, position in (("k", 0), ("c", -1)):
            number = numbers[position]
            if (field, number) in seen or layer.groups > 1:
                continue
            seen.add((field, number))
            for size in around(number, 2 * number):
                changed = replace(layer, **({"c": 5} | {field: size}))
                if accepts(algorithm, runner, changed) and text in variants(algorithm, runner, changed):
                    check(runner, kit, changed, algorithm, text, threads=2)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 1.0])
def test_every_variant(runner, kit, algorithm, density):
    """All variants of a 3x3 layer with images, borders and a residual."""
    layer = roomy(
        kit,
        algorithm,
        runner,
        n=2,
        c=34,
        h=6,
        w=7,
        density=density,
        activation=("Relu",),
        residual=True,
        seed=5,
    )
    for number, text in enumerate(variants(algorithm, runner, layer)):
        check(runner, kit, layer, algorithm, text, threads=1 + number % 2)


def test_activations(runner, kit, algorithm):
    """Each fused activation, after a residual."""
    for activation in kit.activations:
        layer = roomy(kit, algorithm, runner, c=17, h=5, w=6, k=8, activation=activation, residual=True)
        check(runner, kit, layer, algorithm)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_infinite_pixels_stay_where_they_belong(runner, kit, algorithm, value):
    """NaN and Inf reach the pixels whose taps read them, none else, and not the borders."""
    layer = roomy(kit, algorithm, runner, n=2, c=16, h=5, w=5, density=1.0)
    x = layer.inputs()["x"]
    x[0, :, 0, 0] = value
    ((got,),) = runner.run(kit.alone(layer), kit.always(algorithm.name), {"x": x}, borders=("y",))
    touched = np.zeros(got.shape, bool)
    touched[0, :, :2, :2] = True
    assert not np.isfinite(got[touched]).any()
    # what transforms tiles spreads them over a tile, but never to another image
    elsewhere = got[~touched] if algorithm.growth(variants(algorithm, runner, layer)[0]) == 1 else got[1]
    assert np.isfinite(elsewhere).all()
