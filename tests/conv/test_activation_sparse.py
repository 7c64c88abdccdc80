"""Zero activations are skipped and nothing else: any density, stride, dilation, block of channels; NaN."""

from __future__ import annotations

import numpy as np
import pytest

import zeroskip as zs
from zeroskip.conv import ALGORITHMS

LAYERS = [
    {"c": 70, "h": 6, "w": 9, "k": 19, "kernel": (3, 3), "pads": (1, 1, 1, 1)},
    {"n": 2, "c": 64, "h": 5, "w": 17, "k": 140, "kernel": (1, 1)},
    {"n": 2, "c": 3, "h": 9, "w": 35, "k": 5, "kernel": (2, 5), "strides": (2, 3), "pads": (0, 2, 1, 0)},
    {"c": 130, "h": 8, "w": 8, "k": 33, "kernel": (3, 2), "dilations": (2, 3), "pads": (2, 1, 2, 2)},
]


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: f"{shape['c']}x{shape['k']}")
def test_exact_at_any_density(runner, kit, shape, density):
    layer = kit.Layer(**shape, residual=True, activation=("Relu",))
    arrays = layer.inputs()
    x = arrays["x"]
    x[np.random.default_rng(1).random(x.shape) >= density] = 0
    x[:, 0] = -0.0
    expected, bound = kit.reference(layer, **arrays)
    for number, variant in enumerate(
        ALGORITHMS["activation_sparse"].variants(layer.problem(), runner.target)
    ):
        choose = kit.always("activation_sparse", variant)
        ((got,),) = runner.run(kit.alone(layer), choose, arrays, threads=1 + number % 2, borders=("y",))
        assert (np.abs(got - expected) <= bound).all()


@pytest.mark.parametrize("nonzeros", [0, 1, 31, 32, 33, 63, 64])
@pytest.mark.parametrize("c", [32, 33, 64, 65, 100])
def test_masks_of_every_length(runner, kit, c, nonzeros):
    """A block's mask has one word or two; 1x1 kernels allow the largest blocks."""
    layer = kit.Layer(c=c, h=2, w=3, k=16, bias=False)
    x = layer.inputs()["x"]
    x[:, nonzeros:] = 0
    expected, bound = kit.reference(layer, x)
    for variant in ALGORITHMS["activation_sparse"].variants(layer.problem(), runner.target):
        ((got,),) = runner.run(kit.alone(layer), kit.always("activation_sparse", variant), {"x": x})
        assert (np.abs(got - expected) <= bound).all()


WIDE = [
    {"kernel": (1, 11), "pads": (0, 5, 0, 5)},
    {"kernel": (1, 13), "strides": (1, 2)},
    {"kernel": (1, 7), "strides": (1, 4), "dilations": (1, 2)},
    {"kernel": (1, 7), "strides": (1, 3), "dilations": (1, 3)},
    {"kernel": (1, 5), "strides": (1, 2), "dilations": (1, 6)},
    {"kernel": (1, 2), "strides": (1, 5)},
]


@pytest.mark.parametrize("shape", WIDE, ids=lambda shape: str(shape))
def test_walks_of_wide_kernels(runner, kit, shape):
    """Kernels wider than registers allow, strides and dilations with and without a common divisor."""
    for w in (13, 14, 29, 48):
        layer = kit.Layer(c=5, h=2, w=w, k=70, seed=w, **shape)
        if min(layer.size) < 1:
            continue
        x = layer.inputs()["x"]
        expected, bound = kit.reference(layer, x)
        for variant in ALGORITHMS["activation_sparse"].variants(layer.problem(), runner.target):
            ((got,),) = runner.run(kit.alone(layer), kit.always("activation_sparse", variant), {"x": x})
            assert (np.abs(got - expected) <= bound).all()


def test_not_a_number_is_not_a_zero(runner, kit):
    layer = kit.Layer(c=5, h=3, w=4, k=3)
    x = np.zeros((1, 5, 3, 4), np.float32)
    x[0, 4, 1, 2] = np.nan
    ((got,),) = runner.run(kit.alone(layer), kit.always("activation_sparse"), {"x": x})
    assert np.argwhere(np.isnan(got)).tolist() == [[0, k, 1, 2] for k in range(3)]


@pytest.mark.parametrize("algorithm", ["activation_sparse", "dual_sparse"])
@pytest.mark.parametrize("size", [1, 9])
def test_more_threads_than_tasks(algorithm, size):
    """However many threads share the work, sums are added in the same order; one pixel is enough."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((2, 37, size, size)), 0).astype(np.float32)
    w = rng.standard_normal((150, 37, 3, 3)).astype(np.float32)
    one, many = (zs.conv2d(x, w, padding=1, algorithm=algorithm, threads=threads) for threads in (1, 8))
    assert np.array_equal(one, many)
