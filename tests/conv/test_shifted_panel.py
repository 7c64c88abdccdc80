"""Shifted panels: widths around vectors and row groups, strides, dilations, groups; what must not be read."""

from __future__ import annotations

import numpy as np
import pytest

from zeroskip.conv import ALGORITHMS
from zeroskip.conv.shifted_panel import row_groups
from zeroskip.conv.taps import parse_variant


def shifted(layer, runner, name):
    texts = ALGORITHMS[name].variants(layer.problem(), runner.target)
    return [text for text in texts if parse_variant(text).shifted]


def check(runner, kit, layer, name, text, threads=1):
    arrays = layer.inputs()
    ((got,),) = runner.run(kit.alone(layer), kit.always(name, text), arrays, threads=threads, borders=("y",))
    exact, bound = kit.reference(layer, **arrays)
    assert (np.abs(got - exact) <= bound).all()


@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 33])
def test_widths(runner, kit, width):
    """Images narrower than a vector share it with other rows of theirs; wider ones end within one."""
    for n, height in ((1, 7), (3, 10)):
        layer = kit.Layer(
            n=n, c=9, h=height, w=width, k=5, kernel=(3, 3), pads=(1, 1, 1, 1), density=0.5,
            activation=("Relu",), residual=True, seed=width,
        )  # fmt: skip
        for name in ("sparse_direct", "block_sparse"):
            texts = shifted(layer, runner, name)
            assert texts
            for text in texts[:2]:
                check(runner, kit, layer, name, text, threads=n - n // 2)


@pytest.mark.parametrize(
    "change",
    [
        {"strides": (2, 2)},
        {"strides": (1, 2), "kernel": (2, 5)},
        {"strides": (3, 1), "pads": (2, 0, 1, 3)},
        {"dilations": (2, 3)},
        {"strides": (2, 2), "dilations": (3, 1)},
        {"groups": 3, "c": 12, "k": 9},
        {"kernel": (1, 1), "strides": (2, 2), "pads": (0, 0, 0, 0)},
        {"c": 120, "k": 17, "density": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [12, 37])
def test_layers(runner, kit, change, width):
    layer = kit.Layer(
        **{
            "n": 2, "c": 10, "h": 15, "w": width, "k": 8, "kernel": (3, 3), "pads": (1, 1, 1, 1),
            "density": 0.4, **change,
        }
    )  # fmt: skip
    for name in ("sparse_direct", "block_sparse"):
        texts = shifted(layer, runner, name)
        assert texts
        for text in texts:
            check(runner, kit, layer, name, text, threads=2)


def test_row_groups():
    assert row_groups(7, 7, 8, 16) == 2
    assert row_groups(4, 8, 5, 16) == 4
    assert row_groups(4, 1, 5, 16) == 1  # one row is one group
    assert row_groups(9, 9, 10, 16) == 1  # two rows do not fit
    assert row_groups(4, 9, 200, 16) == 1  # rows below the image would lie outside of memory


def test_what_cannot_be_shifted_is_not_offered(runner, kit):
    """Taps of 1x1 layers are aligned; every third column is not a shuffle."""
    for change in ({"kernel": (1, 1)}, {"strides": (3, 3)}):
        layer = kit.Layer(**{"c": 9, "h": 20, "w": 20, "k": 4, "kernel": (3, 3), **change})
        assert not shifted(layer, runner, "sparse_direct")
