"""All-zero runs are skipped and nothing else: dead channels and regions, any density of weights; NaN."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.conv import ALGORITHMS

LAYERS = [
    {"c": 70, "h": 6, "w": 9, "k": 19, "kernel": (3, 3), "pads": (1, 1, 1, 1)},
    {"n": 2, "c": 12, "h": 5, "w": 37, "k": 18, "kernel": (3, 3), "strides": (2, 2), "groups": 3},
    {"n": 2, "c": 130, "h": 4, "w": 5, "k": 9, "kernel": (2, 3), "dilations": (1, 2), "pads": (0, 2, 1, 0)},
]


def dead(x, channels, regions):
    """Zeros in that share of the channels, and of the blocks of 4 x 4 pixels of the others."""
    rng = np.random.default_rng(3)
    x[:, rng.random(x.shape[1]) < channels] = 0
    n, c, h, w = x.shape
    blocks = rng.random((n, c, -(-h // 4), -(-w // 4))) < regions
    x[blocks.repeat(4, 2).repeat(4, 3)[:, :, :h, :w]] = 0


@pytest.mark.parametrize("channels, regions", [(0, 0), (0.3, 0.5), (0.9, 0), (1, 0)])
@pytest.mark.parametrize("density", [0.05, 0.5])
@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: f"{shape['c']}x{shape['k']}")
def test_exact_with_dead_channels_and_regions(runner, kit, shape, density, channels, regions):
    layer = kit.Layer(**shape, density=density, residual=True, activation=("Relu",))
    arrays = layer.inputs()
    dead(arrays["x"], channels, regions)
    expected, bound = kit.reference(layer, **arrays)
    for number, variant in enumerate(ALGORITHMS["dual_sparse"].variants(layer.problem(), runner.target)):
        choose = kit.always("dual_sparse", variant)
        ((got,),) = runner.run(kit.alone(layer), choose, arrays, threads=1 + number % 2, borders=("y",))
        assert (np.abs(got - expected) <= bound).all()


def test_not_a_number_is_not_a_zero(runner, kit):
    layer = kit.Layer(c=40, h=3, w=4, k=3)
    x = np.zeros((1, 40, 3, 4), np.float32)
    x[0, 4, 1, 2] = np.nan
    ((got,),) = runner.run(kit.alone(layer), kit.always("dual_sparse"), {"x": x})
    assert np.argwhere(np.isnan(got)).tolist() == [[0, k, 1, 2] for k in range(3)]


@pytest.mark.parametrize("value", [1e-42, -1e-45])
@pytest.mark.parametrize("algorithm", ["dual_sparse", "activation_sparse"])
def test_denormals_are_not_zeros(runner, kit, algorithm, value):
    layer = kit.Layer(c=40, h=3, w=4, k=3, bias=False)
    x = np.zeros((1, 40, 3, 4), np.float32)
    x[0, 7, 1, 2] = value
    ((got,),) = runner.run(kit.alone(layer), kit.always(algorithm), {"x": x})
    assert np.array_equal(got[0, :, 1, 2], layer.weights()[0][:, 7, 0, 0] * x[0, 7, 1, 2])
    assert np.count_nonzero(got) == np.count_nonzero(got[0, :, 1, 2])


def test_strides_that_panels_cannot_take(kit, runner):
    layer = kit.Layer(c=4, h=9, w=9, k=1, kernel=(3, 3), strides=(1, 3))
    assert "column stride 3" in ALGORITHMS["dual_sparse"].refuses(layer.problem(), runner.target)
