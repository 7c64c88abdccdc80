import math

import numpy as np
import pytest

from zeroskip.codegen import Plain
from zeroskip.codegen.activations import ACTIVATIONS, tag
from zeroskip.errors import InputError
from zeroskip.ops import planes
from zeroskip.ops.elementwise import BINARY, binary, joined_axes, unary


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    monkeypatch.setattr(planes, "TASK_BYTES", 64)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _softplus(x):
    return np.logaddexp(x, 0)


ERF = np.vectorize(math.erf, otypes=[float])
EXACT = {
    ("Relu",): lambda x: np.maximum(x, 0),
    ("Clip", -0.5, 6.0): lambda x: np.clip(x, -0.5, 6),
    ("LeakyRelu", 0.1): lambda x: np.where(x < 0, 0.1 * x, x),
    ("Elu", 1.5): lambda x: np.where(x < 0, 1.5 * np.expm1(np.minimum(x, 0)), x),
    ("HardSigmoid", 0.2, 0.4): lambda x: np.clip(0.2 * x + 0.4, 0, 1),
    ("HardSwish",): lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    ("Sigmoid",): _sigmoid,
    ("Silu",): lambda x: x * _sigmoid(x),
    ("Gelu",): lambda x: 0.5 * x * (1 + ERF(x / math.sqrt(2))),
    ("Gelu", "tanh"): lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ("Tanh",): np.tanh,
    ("Softplus",): _softplus,
    ("Mish",): lambda x: x * np.tanh(_softplus(x)),
    ("Erf",): ERF,
    ("Exp",): np.exp,
    ("Abs",): np.abs,
    ("Neg",): lambda x: -x,
    ("Log",): np.log,
    ("Sqrt",): np.sqrt,
    ("Pow", 2.0): lambda x: x**2,
    ("Pow", -3.0): lambda x: x**-3,
    ("Pow", 0.75): lambda x: x**0.75,
    ("Pow", -1.3): lambda x: x**-1.3,
}
POSITIVE = {"Log", "Sqrt", "Pow"}


def test_every_activation_is_tested():
    assert {name for name, *_ in EXACT} == set(ACTIVATIONS)


def samples(name):
    wide = np.concatenate([np.linspace(-12, 12, 801), [-80, -30, 30, 80, 1e-6, -1e-6]])
    if name in POSITIVE:
        wide = np.concatenate([np.abs(wide[wide != 0]), 10.0 ** np.arange(-12, 13)])
    return wide.astype(np.float32)


@pytest.mark.parametrize("activation", EXACT, ids=lambda a: tag(a)[1:])
def test_activations(kit, activation):
    b, values = kit.bench, samples(activation[0])
    exact = EXACT[activation](values.astype(np.float64))
    # eight units in the last place of the result, or of the terms whose difference it is: 1, or x
    terms = 0 if activation[0] in POSITIVE | {"Exp"} else np.maximum(np.abs(values), 1)
    unit = np.maximum(np.abs(exact), terms) * 2.0**-23
    power = abs(activation[1]) if activation[0] == "Pow" else 0
    bound = unit * (8 + 2 * power * np.abs(np.log(np.maximum(np.abs(values), 1e-30))))
    x, y = b.input(values), b.output(Plain(values.shape))
    b.run(unary(x, y, activation, target=b.target, threads=2))
    assert np.all(np.abs(b.result(y) - exact) <= bound), np.abs(b.result(y) - exact).max()
    shape = (1, 2, 3, len(values) // 6)
    cut, layout = values[: math.prod(shape)], kit.planar(*shape, lead=2)
    x, y = b.input(cut.reshape(shape), layout), b.output(layout)
    b.run(unary(x, y, activation, target=b.target, threads=2))
    assert np.all(np.abs(b.result(y).ravel() - exact[: cut.size]) <= bound[: cut.size])


@pytest.mark.parametrize("activation", [a for a in EXACT if a[0] not in ("Pow",)], ids=lambda a: tag(a)[1:])
def test_nan_and_infinity(kit, activation):
    b = kit.bench
    values = np.array([np.nan, np.inf], np.float32)
    x, y = b.input(values), b.output(Plain(values.shape))
    b.run(unary(x, y, activation, target=b.target))
    got = b.result(y)
    assert np.isnan(got[0])
    with np.errstate(all="ignore"):
        limit = EXACT[activation](np.array([1e30 if activation[0] not in ("Log", "Sqrt") else np.inf]))[0]
    assert got[1] == pytest.approx(limit, rel=1e-6) if abs(limit) < 10 else abs(got[1]) > 1e29


REFERENCE = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Min": np.minimum,
    "Max": np.maximum,
    "PRelu": lambda x, slope: np.where(x < 0, x * slope, x),
}


def checked(kit, op, a, b, out, arrays, activation=None):
    bench = kit.bench
    y = bench.output(out)
    bench.run(binary(op, a, b, y, activation=activation, target=bench.target, threads=2))
    expected = REFERENCE[op](*arrays)
    if activation:
        expected = np.maximum(expected, 0)
    np.testing.assert_allclose(bench.result(y), expected, rtol=2.0**-22)


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("images", [1, 3])
def test_binary_of_planes(kit, op, images):
    bench = kit.bench
    for width in (1, kit.lanes - 1, kit.lanes, 2 * kit.lanes + 1):
        shape = (images, 5, 3, width)
        layout, other = kit.planar(*shape, lead=2), kit.planar(*shape, right=3, below=2)
        p, q = kit.random(*shape), kit.random(*shape) + 3
        x, z, far = bench.input(p, layout), bench.input(q, layout), bench.input(q, other)
        plain = bench.input(q)
        for second in (z, far, plain):
            checked(kit, op, x, second, layout, (p, q), ("Relu",))
            checked(kit, op, second, x, Plain(shape), (q, p))
        for constant in (q[:1, :, :1, :1].copy(), q[0, :, :1, :1].copy(), 2.5, q[:, :, :1, :1].copy()):
            checked(kit, op, x, constant, layout, (p, constant))
        squeezed = q[:, :, :1, :1].copy()
        checked(kit, op, x, bench.input(squeezed), layout, (p, squeezed), ("Relu",))
        spatial = q[:, :1].copy()
        checked(kit, op, x, bench.input(spatial, kit.planar(images, 1, 3, width)), layout, (p, spatial))
        checked(kit, op, 1.5, x, layout, (np.float32(1.5), p))


@pytest.mark.parametrize(
    "shapes",
    [
        ((7, 33), (7, 33), (7, 33)),
        ((7, 33), (7, 33), (33,)),
        ((2, 3, 4, 5, 6), (2, 3, 4, 5, 6), (4, 5, 6)),
        ((2, 3, 4, 5, 6), (2, 3, 1, 1, 1), (2, 3, 4, 5, 6)),
        ((6, 40, 3), (1, 40, 1), (6, 1, 3)),
        ((1000,), (1000,), ()),
    ],
)
def test_binary_of_arrays(kit, shapes):
    out, first, second = shapes
    a, b = kit.random(*first), kit.random(*second)
    checked(kit, "Add", kit.bench.input(a), kit.bench.input(b), Plain(out), (a, b))
    checked(kit, "Mul", kit.bench.input(a), b, Plain(out), (a, b), ("Relu",))


def test_nan_survives_min_and_max(kit):
    bench = kit.bench
    a, b = np.array([np.nan, 1, 2], np.float32), np.array([1, np.nan, 3], np.float32)
    for op in ("Min", "Max"):
        checked(kit, op, bench.input(a), bench.input(b), Plain((3,)), (a, b))


def test_what_does_not_broadcast_is_refused(kit):
    bench = kit.bench
    with pytest.raises(InputError, match="more than four axes"):
        joined_axes((2, 3, 2, 3, 2), [(2, 1, 2, 1, 2), (1, 3, 1, 3, 1)])
    x = bench.input(kit.random(2, 3))
    with pytest.raises(InputError, match="does not broadcast"):
        binary("Add", x, kit.random(4), bench.output(Plain((2, 3))), target=bench.target)
