"""Operators against onnxruntime on drawn shapes and attributes, and inference against evaluation."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from zeroskip.errors import ModelError
from zeroskip.graph import OPERATORS, bind, evaluate, load, shape_inputs
from zeroskip.graph.special import erf

FAST = settings(max_examples=40)


def draw_array(draw, *shape):
    seed = draw(st.integers(0, 2**16))
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ints(numbers):
    return "[" + ",".join(map(str, numbers)) + "]"


def check(make_model, ask, inputs, outputs, body, feeds, opset=21, length=1, **constants):
    """Answers equal onnxruntime's within rounding of sums of `length`; shapes equal the inferred ones.

    What onnxruntime refuses, zeroskip must refuse too, or answer without crashing.
    """
    model = make_model(inputs, outputs, body, opset, **constants)
    try:
        expected = ask(model, feeds)
    except Exception:
        expected = None
    try:
        graph = load(model.SerializeToString())
        answers = evaluate(graph, feeds)
    except ModelError:
        assert expected is None
        return
    values = {name: feeds[name] for name in shape_inputs(graph)}
    bound = bind(graph, {n: a.shape for n, a in feeds.items() if n not in values}, values)
    for name, answer in zip(graph.outputs, answers):
        assert bound.values[name].sizes == answer.shape
        assert bound.values[name].dtype == answer.dtype
        stated = graph.values[name].shape
        assert stated is None or len(stated) == answer.ndim
        assert all(not isinstance(d, int) or d == s for d, s in zip(stated or (), answer.shape))
    for answer, bound_answer in zip(
        answers, evaluate(bound, {n: a for n, a in feeds.items() if n not in values})
    ):
        np.testing.assert_array_equal(answer, bound_answer)
    if expected is None:
        return
    for answer, right in zip(answers, expected):
        assert answer.shape == right.shape and answer.dtype == right.dtype
        if right.dtype.kind == "f":
            scale = max(1.0, float(np.abs(right).max(initial=0)))
            error = 8 * np.finfo(right.dtype).eps * np.sqrt(length) * scale
            np.testing.assert_allclose(answer, right, rtol=0, atol=error)
        else:
            np.testing.assert_array_equal(answer, right)


@st.composite
def windows(draw, rank, dilate=True):
    """Kernel, and attributes as text: strides, dilations, and pads or auto_pad."""
    kernel = draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank))
    strides = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    dilations = draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank)) if dilate else [1] * rank
    text = f"kernel_shape={ints(kernel)}, strides={ints(strides)}, dilations={ints(dilations)}"
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        # Pools forbid pads as large as the kernel.
        pads = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        return kernel, dilations, f"{text}, pads={ints(pads)}"
    return kernel, dilations, f'{text}, auto_pad="{auto}"'


@FAST
@given(data=st.data(), rank=st.integers(1, 3))
def test_conv(make_model, ask, data, rank):
    kernel, dilations, text = data.draw(windows(rank))
    sizes = [data.draw(st.integers((k - 1) * d + 1, 9)) for k, d in zip(kernel, dilations)]
    group = data.draw(st.sampled_from([1, 1, 2, 3]))
    c, k = group * data.draw(st.integers(1, 3)), group * data.draw(st.integers(1, 3))
    x = draw_array(data.draw, data.draw(st.integers(1, 3)), c, *sizes)
    w, b = draw_array(data.draw, k, c // group, *kernel), draw_array(data.draw, k)
    bias = data.draw(st.sampled_from(["", ", b"]))
    body = f"y = Conv<{text}, group={group}>(x, w{bias})"
    dims = ",".join(["N", str(c), *"HWD"[:rank]])
    check(make_model, ask, f"float[{dims}] x", "y", body, {"x": x}, length=w[0].size, w=w, b=b)


@FAST
@given(data=st.data(), rank=st.integers(1, 2))
def test_conv_transpose(make_model, ask, data, rank):
    kernel, _, text = data.draw(windows(rank))
    assume("SAME_LOWER" not in text)  # onnxruntime and the standard disagree on its odd pads
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank))
    group = data.draw(st.sampled_from([1, 1, 2]))
    c, k = group * data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    x, w = draw_array(data.draw, 2, c, *sizes), draw_array(data.draw, c, k, *kernel)
    b = draw_array(data.draw, k * group)
    body = f"y = ConvTranspose<{text}, group={group}>(x, w, b)"
    dims = ",".join(["N", str(c), *map(str, sizes)])
    check(make_model, ask, f"float[{dims}] x", "y", body, {"x": x}, length=w[:, 0].size, w=w, b=b)


@FAST
@given(data=st.data(), rank=st.integers(1, 2), op=st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
def test_pools(make_model, ask, data, rank, op):
    kernel, dilations, text = data.draw(windows(rank, dilate=op == "MaxPool"))
    # Padding pools to the same size, onnxruntime forgets dilation and lets pads become negative.
    strides = [int(c) for c in text.split("strides=[")[1].split("]")[0].split(",")]
    assume("SAME" not in text or (max(dilations) == 1 and all(s <= k for s, k in zip(strides, kernel))))
    sizes = [data.draw(st.integers((k - 1) * d + 1, 9)) for k, d in zip(kernel, dilations)]
    if op != "LpPool" and "auto_pad" not in text:
        text += f", ceil_mode={data.draw(st.integers(0, 1))}"
    if op == "AveragePool":
        text += f", count_include_pad={data.draw(st.integers(0, 1))}"
    x = draw_array(data.draw, 2, 3, *sizes)
    outputs = "y, int64[] i" if op == "MaxPool" else "y"
    body = f"{'y, i' if op == 'MaxPool' else 'y'} = {op}<{text}>(x)"
    dims = ",".join(["N", "3", *map(str, sizes)])
    check(make_model, ask, f"float[{dims}] x", outputs, body, {"x": x}, length=int(np.prod(kernel)))


@FAST
@given(
    data=st.data(),
    mode=st.sampled_from(["nearest", "linear"]),
    transform=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
)
def test_resize(make_model, ask, data, mode, transform, rounding):
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=2, max_size=2))
    x = draw_array(data.draw, 2, 3, *sizes)
    text = f'mode="{mode}", coordinate_transformation_mode="{transform}", nearest_mode="{rounding}"'
    if data.draw(st.booleans()):
        # Halves and quarters are exact in float32; other scales let roundings differ by one pixel.
        scales = [1, 1, *data.draw(st.lists(st.sampled_from([0.5, 1, 2, 4]), min_size=2, max_size=2))]
        # The standard's own examples keep fractions of an output size here, onnxruntime does not.
        whole = all(s * f == int(s * f) for s, f in zip(sizes, scales[2:]))
        assume(all(s * f >= 1 for s, f in zip(sizes, scales[2:])) and (whole or transform != "align_corners"))
        body, constants = f"y = Resize<{text}>(x, , c)", {"c": np.array(scales, np.float32)}
    else:
        factors = data.draw(st.lists(st.sampled_from([1, 2, 4]), min_size=2, max_size=2))
        goal = [2, 3, *(s * f for s, f in zip(sizes, factors))]
        body, constants = f"y = Resize<{text}>(x, , , c)", {"c": np.array(goal, np.int64)}
    check(make_model, ask, "float[N,3,H,W] x", "y", body, {"x": x}, length=4, **constants)


ELEMENTWISE = [
    "Abs",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Relu",
    "Sigmoid",
    "Softplus",
    "Sqrt",
    "Tanh",
]


@pytest.mark.parametrize("op", ELEMENTWISE)
def test_elementwise(make_model, ask, rng, op):
    x = np.concatenate([rng.standard_normal(50) * 3, [0, -0.0, 20, -20, 1e-20, 88]]).astype(np.float32)
    x = np.abs(x) if op in ("Log", "Sqrt") else x
    model = make_model("float[N] x", "y", f"y = {op}(x)", 22)
    answer = evaluate(load(model.SerializeToString()), {"x": x})[0]
    np.testing.assert_allclose(answer, ask(model, {"x": x})[0], rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Min", "Max", "Pow"])
@pytest.mark.parametrize("dtype", ["float", "double", "int32", "int64"])
def test_arithmetic_broadcasts(make_model, ask, rng, op, dtype):
    kind = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    low = 1 if op in ("Div", "Pow") else -9
    for a, b in (((2, 3, 4), (3, 1)), ((4,), (2, 1, 1)), ((), (3,)), ((1, 3), (2, 1))):
        x, y = (rng.integers(low, 5, shape).astype(kind) for shape in (a, b))
        dims = [f"[{','.join(map(str, s))}]" if s else "" for s in (a, b)]
        types = f"{dtype}{dims[0]} a, {dtype}{dims[1]} b"
        model = make_model(types, f"{dtype}[] y", f"y = {op}(a, b)")
        answer = evaluate(load(model.SerializeToString()), {"a": x, "b": y})[0]
        np.testing.assert_allclose(answer, ask(model, {"a": x, "b": y})[0], rtol=1e-6)
        assert answer.dtype == np.dtype(kind)


@FAST
@given(data=st.data(), mode=st.sampled_from(["constant", "reflect", "edge", "wrap"]))
def test_pad(make_model, ask, data, mode):
    x = draw_array(data.draw, 3, 4, 5)
    pads = data.draw(st.lists(st.integers(-1 if mode == "constant" else 0, 2), min_size=6, max_size=6))
    body = f'y = Pad<mode="{mode}">(x, p, v)'
    constants = {"p": np.array(pads, np.int64), "v": np.float32(1.5)}
    check(make_model, ask, "float[A,4,5] x", "y", body, {"x": x}, **constants)


@FAST
@given(data=st.data())
def test_slice(make_model, ask, data):
    x = draw_array(data.draw, 5, 6)
    bound = st.integers(-8, 8)
    starts, ends = (data.draw(st.lists(bound, min_size=2, max_size=2)) for _ in range(2))
    steps = data.draw(st.lists(st.sampled_from([-2, -1, 1, 2]), min_size=2, max_size=2))
    arrays = {n: np.array(v, np.int64) for n, v in (("s", starts), ("e", ends), ("a", [0, -1]), ("t", steps))}
    check(make_model, ask, "float[N,6] x", "y", "y = Slice(x, s, e, a, t)", {"x": x}, **arrays)


@FAST
@given(
    data=st.data(),
    op=st.sampled_from(["ReduceSum", "ReduceMean", "ReduceMax"]),
    axes=st.sets(st.integers(-3, 2), max_size=3),
    keep=st.integers(0, 1),
    noop=st.integers(0, 1),
)
def test_reductions(make_model, ask, data, op, axes, keep, noop):
    assume(len({a % 3 for a in axes}) == len(axes))
    x = draw_array(data.draw, 2, 3, 4)
    body = f"y = {op}<keepdims={keep}, noop_with_empty_axes={noop}>(x, a)"
    constants = {"a": np.array(sorted(axes), np.int64)}
    check(make_model, ask, "float[N,3,4] x", "y", body, {"x": x}, length=24, **constants)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("opset", [9, 21])
def test_softmax_of_both_meanings(make_model, ask, rng, op, axis, opset):
    if opset < 13 and axis < 0:
        pytest.skip("opsets before 11 have no negative axes")
    x = rng.standard_normal((2, 3, 4)).astype(np.float32) * 9
    body = f"y = {op}<axis={axis}>(x)"
    check(make_model, ask, "float[N,3,4] x", "y", body, {"x": x}, opset=opset, length=24)


def test_gemm_and_matmul(make_model, ask, rng):
    a, b, c = (rng.standard_normal(s).astype(np.float32) for s in ((3, 4), (5, 3), (5,)))
    for alpha, beta in ((1.0, 1.0), (0.5, 2.0)):
        body = f"y = Gemm<transA=1, transB=1, alpha={alpha}, beta={beta}>(a, b, c)"
        check(make_model, ask, "float[3,M] a", "y", body, {"a": a}, length=3, b=b, c=c)
    for left, right in (((2, 3, 4), (4, 5)), ((4,), (2, 4, 3)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (4,))):
        x, w = (rng.standard_normal(s).astype(np.float32) for s in (left, right))
        dims = ",".join(map(str, left))
        check(make_model, ask, f"float[{dims}] x", "y", "y = MatMul(x, w)", {"x": x}, length=4, w=w)


def test_normalizations(make_model, ask, rng):
    x = rng.standard_normal((2, 6, 5, 4)).astype(np.float32)
    s, b, m = (rng.standard_normal(6).astype(np.float32) for _ in range(3))
    v = rng.random(6).astype(np.float32) + 0.1
    inputs = "float[N,6,H,W] x"
    for body in (
        "y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)",
        "y = InstanceNormalization<epsilon=0.01>(x, s, b)",
        "y = LRN<size=3, alpha=0.1, beta=0.6, bias=2.0>(x)",
        "y = LRN<size=4>(x)",
        "t = Transpose<perm=[0,2,3,1]>(x) y = LayerNormalization<axis=-1, epsilon=0.001>(t, s, b)",
    ):
        check(make_model, ask, inputs, "y", body, {"x": x}, length=20, s=s, b=b, m=m, v=v)


def test_layout_operators(make_model, ask, rng):
    x = rng.standard_normal((2, 8, 4, 6)).astype(np.float32)

    def i64(*n):
        return np.array(n, np.int64)

    for body, constants in (
        ("y = DepthToSpace<blocksize=2>(x)", {}),
        ('y = DepthToSpace<blocksize=2, mode="CRD">(x)', {}),
        ("y = SpaceToDepth<blocksize=2>(x)", {}),
        ("y = Reshape(x, c)", {"c": i64(0, -1, 3)}),
        ("y = Flatten<axis=2>(x)", {}),
        ("y = Flatten<axis=-3>(x)", {}),
        ("y = Unsqueeze(x, c)", {"c": i64(-1, 0)}),
        ("t = Unsqueeze(x, c) y = Squeeze(t, c)", {"c": i64(1, 3)}),
        ("y = Gather<axis=1>(x, c)", {"c": np.array([[0, -1], [3, 3]], np.int64)}),
        ("y = Expand(x, c)", {"c": i64(3, 1, 8, 1, 1)}),
        ("a, b = Split<axis=1, num_outputs=2>(x) y = Concat<axis=0>(b, a)", {}),
        ("a, b = Split<axis=-1>(x, c) y = Concat<axis=-1>(b, a)", {"c": i64(2, 4)}),
        ("y = Transpose(x)", {}),
        (
            "s = Shape(x) h = Gather(s, c) u = Unsqueeze(h, z) k = Concat<axis=0>(u, m) y = Reshape(x, k)",
            {"c": np.int64(0), "z": i64(0), "m": i64(-1)},
        ),
        ("s = Shape<start=2>(x) y = ConstantOfShape(s)", {}),
        ("y = Cast<to=11>(x)", {}),
    ):
        outputs = "double[] y" if "Cast" in body else "y"
        check(make_model, ask, "float[N,8,H,6] x", outputs, body, {"x": x}, **constants)


def test_shapes_given_at_run_time(make_model, ask, rng):
    x = rng.standard_normal((2, 6)).astype(np.float32)
    feeds = {"x": x, "s": np.array([3, -1], np.int64)}
    model = make_model("float[N,6] x, int64[2] s", "y", "y = Reshape(x, s)")
    assert shape_inputs(load(model.SerializeToString())) == ("s",)
    check(make_model, ask, "float[N,6] x, int64[2] s", "y", "y = Reshape(x, s)", feeds)
    feeds = {"x": x[..., None, None], "f": np.array([1, 1, 2, 3], np.float32)}
    check(make_model, ask, "float[N,6,1,1] x, float[4] f", "y", "y = Resize(x, , f)", feeds)


def test_erf_is_accurate_to_float64():
    # Values of Abramowitz and Stegun, Handbook of Mathematical Functions (1964), table 7.1.
    table = {0.0: 0.0, 0.5: 0.5204998778, 1.0: 0.8427007929, 1.5: 0.9661051465, 2.0: 0.9953222650}
    for x, expected in table.items():
        assert abs(float(erf(np.array(x))) - expected) < 1e-10
    xs = np.concatenate([np.linspace(-7, 7, 4001), [1e-300, 0.46875, 4.0, 40.0, -np.inf, np.inf]])
    right = np.array([math.erf(x) for x in xs])
    np.testing.assert_allclose(erf(xs), right, rtol=1e-15, atol=0)
    assert np.isnan(erf(np.array(np.nan)))


def test_half_precision_is_computed_in_single(make, rng):
    x = rng.standard_normal((1, 64, 3, 3)).astype(np.float16)
    w = rng.standard_normal((2, 64, 3, 3)).astype(np.float16)
    graph = make("float16[1,64,3,3] x", "float16[] y", "y = Conv(x, w)", w=w)
    right = (x.astype(np.float64) * w.astype(np.float64)).sum(axis=(1, 2, 3))
    answer = evaluate(graph, {"x": x})[0]
    assert answer.dtype == np.float16
    np.testing.assert_allclose(answer.reshape(-1), right, rtol=2e-3, atol=1e-2)


def test_every_row_is_consistent():
    for name, row in OPERATORS.items():
        assert row.name == name
        assert row.most is None or row.least <= row.most
        assert all(row.most is None or p < row.most for p in row.parameters)
