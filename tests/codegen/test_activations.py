"""Activations against NumPy in float64, in units in the last place; and their special values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zeroskip.codegen.activations import ACTIVATIONS, activate, tag

ERF = np.vectorize(math.erf, otypes=[float])
ERFC = np.vectorize(math.erfc, otypes=[float])


def sigmoid(x):
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# The function, units in the last place of its result, and the absolute error (in 2^-24) that cancellation
# adds where the result is small against its parts.
ROWS = {
    ("Relu",): (lambda x: np.maximum(x, 0), 0, 0),
    ("Clip", -1.0, 6.0): (lambda x: np.clip(x, -1, 6), 0, 0),
    ("LeakyRelu", 0.125): (lambda x: np.where(x < 0, 0.125 * x, x), 0.5, 0),
    ("Abs",): (np.abs, 0, 0),
    ("Neg",): (np.negative, 0, 0),
    ("Sqrt",): (np.sqrt, 0.5, 0),
    ("Exp",): (np.exp, 2, 0),
    ("Log",): (np.log, 2, 1),
    ("Sigmoid",): (sigmoid, 4, 0),
    ("Silu",): (lambda x: x * sigmoid(x), 5, 0),
    ("Tanh",): (np.tanh, 5, 0),
    ("Softplus",): (softplus, 4, 0),
    ("Erf",): (ERF, 8, 0),
    ("Elu", 1.0): (lambda x: np.where(x < 0, np.expm1(x), x), 2, 3),
    ("HardSigmoid", 0.25, 0.5): (lambda x: np.clip(0.25 * x + 0.5, 0, 1), 1, 1),
    ("HardSwish",): (lambda x: x * np.clip(x / 6 + 0.5, 0, 1), 3, 6),
    ("Gelu",): (lambda x: 0.5 * x * ERFC(-x / math.sqrt(2)), 4, 40),
    ("Gelu", "tanh"): (
        lambda x: x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        130,  # e**-66 of an exponent that is rounded
        0,
    ),
    ("Mish",): (lambda x: x * np.tanh(softplus(x)), 8, 0),
    ("Pow", 2.0): (lambda x: x**2, 0.5, 0),
    ("Pow", 0.5): (np.sqrt, 0.5, 0),
    ("Pow", -1.0): (lambda x: 1 / x, 0.5, 0),
}
POSITIVE = {"Log", "Sqrt", "Pow"}


def test_every_activation_is_here():
    assert {name for name, *_ in ROWS} == set(ACTIVATIONS)


def samples(name):
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(-20, 20, 4000), rng.standard_normal(4000), np.exp(rng.uniform(-20, 4, 4000))]
    )
    x = np.concatenate([x, -np.exp(rng.uniform(-20, 4, 2000)), [0.0, 1.0, -1.0]]).astype(np.float32)
    return np.abs(x[x != 0]) if name in POSITIVE else x


@pytest.mark.parametrize("activation", ROWS, ids=lambda activation: tag(activation)[1:])
def test_accuracy(machine, activation):
    exact, units, absolute = ROWS[activation]
    x = samples(activation[0])
    got = machine.vectors(lambda b, x: activate(b, x, activation), x)
    wanted = exact(x.astype(np.float64))
    ulp = np.spacing(np.maximum(np.abs(wanted), 2.0**-126).astype(np.float32)).astype(np.float64)
    size = np.maximum(1, np.abs(x)) if absolute else 0
    # e**x is 0 from about 2^-126 down
    allowed = units * ulp + absolute * 2.0**-24 * size + 2.0**-125 * np.abs(x)
    errors = np.abs(got - wanted)
    worst = np.argmax((errors - allowed) / ulp)
    units = errors[worst] / ulp[worst]
    assert (errors <= allowed).all(), f"{x[worst]!r}: {got[worst]!r} for {wanted[worst]!r}, {units:.1f} ulp"


@pytest.mark.parametrize("activation", ROWS, ids=lambda activation: tag(activation)[1:])
def test_nan_stays_nan(machine, activation):
    got = machine.vectors(lambda b, x: activate(b, x, activation), np.full(3, np.nan))
    assert np.isnan(got).all()


@pytest.mark.parametrize(
    "activation, x, expected",
    [
        (("Relu",), [-np.inf, -0.0, np.inf], [0, 0, np.inf]),
        (("Clip", 0.0, 6.0), [-np.inf, np.inf], [0, 6]),
        (("Exp",), [-np.inf, -200, 0, 200, np.inf], [0, 0, 1, np.inf, np.inf]),
        (("Log",), [0, -1, np.inf, 1, 1e-40], [-np.inf, np.nan, np.inf, 0, np.log(np.float32(1e-40))]),
        (("Sigmoid",), [-np.inf, -200, 200, np.inf], [0, 0, 1, 1]),
        (("Tanh",), [-np.inf, -50, 50, np.inf], [-1, -1, 1, 1]),
        (("Erf",), [-np.inf, -9, 9, np.inf], [-1, -1, 1, 1]),
        (("Silu",), [200, np.inf], [200, np.inf]),
        (("Softplus",), [-200, 200, np.inf], [0, 200, np.inf]),
        (("HardSwish",), [-4, 4, np.inf], [0, 4, np.inf]),
        (("Mish",), [-100, 100], [0, 100]),
    ],
    ids=lambda value: tag(value)[1:] if isinstance(value, tuple) else "",
)
def test_ends_of_the_range(machine, activation, x, expected):
    got = machine.vectors(lambda b, x: activate(b, x, activation), np.array(x))
    np.testing.assert_allclose(got, expected, rtol=5e-7, atol=1e-37)


def test_names_tell_numbers_apart():
    tags = [tag(a) for a in [("Clip", 0.0, 6.0), ("Clip", 0.0, 1.0), ("Clip", -1.5, 6.0), ("Relu",), None]]
    assert len(set(tags)) == 5
    assert all(character.isalnum() or character == "_" for text in tags for character in text)
