"""Each pass fires where it should, does not where it must not, and never changes an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip.errors import ModelError
from zeroskip.graph import PASSES, bind, evaluate, load, simplify, simplify_with_report, verify

RNG = np.random.default_rng(3)


def f(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def positive(*shape):
    return (RNG.random(shape) + 0.2).astype(np.float32)


def i(*numbers):
    return np.array(numbers, np.int64)


W = f(6, 4, 3, 3)
BN = {"s": f(6), "t": f(6), "m": f(6), "v": positive(6)}
PAD = "pads=[1,1,1,1]"
X = "float[N,4,6,6] x"
CONV = f"c = Conv<{PAD}>(x, w)"

# Input, body, constants, operators afterwards; a fused activation stands in brackets, a residual as "+".
FIRES = {
    "constant folding": (X, "t = Add(a, a) y = Mul(x, t)", {"a": f(6)}, "Mul"),
    "shape computations": (
        "float[2,4,6,6] x",
        "s = Shape(x) g = Gather(s, z) k = Concat<axis=0>(g, m) y = Reshape(x, k)",
        {"z": i(0), "m": i(-1)},
        "Reshape",
    ),
    "identity": (X, "t = Identity(x) u = Dropout(t) y = Relu(u)", {}, "Relu"),
    "identity before an output": (X, "t = Relu(x) y = Identity(t)", {}, "Relu"),
    "reshape to the same": (
        "float[2,4,6,6] x",
        "t = Reshape(x, k) y = Relu(t)",
        {"k": i(0, 4, -1, 6)},
        "Relu",
    ),
    "reshape with a symbolic batch": (X, "t = Reshape(x, k) y = Relu(t)", {"k": i(-1, 4, 6, 6)}, "Relu"),
    "reshape chain": (
        X,
        "t = Reshape(x, j) y = Reshape(t, k)",
        {"j": i(-1, 2, 72), "k": i(-1, 144)},
        "Reshape",
    ),
    "flatten after squeeze": (
        "float[N,4,1,1] x",
        "t = Squeeze(x, k) y = Flatten(t)",
        {"k": i(2)},
        "Flatten",
    ),
    "cast to the same": (X, "t = Cast<to=1>(x) y = Relu(t)", {}, "Relu"),
    "transposes that cancel": (
        X,
        "t = Transpose<perm=[0,2,3,1]>(x) u = Transpose<perm=[0,3,1,2]>(t) y = Relu(u)",
        {},
        "Relu",
    ),
    "transposes that join": (
        X,
        "t = Transpose<perm=[0,2,3,1]>(x) y = Transpose<perm=[0,1,3,2]>(t)",
        {},
        "Transpose",
    ),
    "empty pad": (X, "t = Pad(x, k) y = Relu(t)", {"k": i(*[0] * 8)}, "Relu"),
    "slice of everything": (
        X,
        "t = Slice(x, a, b, k) y = Relu(t)",
        {"a": i(0), "b": i(2**40), "k": i(1)},
        "Relu",
    ),
    "concat of one": (X, "t = Concat<axis=1>(x) y = Relu(t)", {}, "Relu"),
    "resize by one": (
        "float[2,4,6,6] x",
        "t = Resize(x, , k) y = Relu(t)",
        {"k": np.ones(4, np.float32)},
        "Relu",
    ),
    "unread branch": (X, "t = Exp(x) y = Relu(x)", {}, "Relu"),
    "batch normalization after": (X, f"{CONV} y = BatchNormalization(c, s, t, m, v)", {"w": W, **BN}, "Conv"),
    "batch normalization after, with bias": (
        X,
        f"c = Conv<{PAD}>(x, w, b) y = BatchNormalization(c, s, t, m, v)",
        {"w": W, "b": f(6), **BN},
        "Conv",
    ),
    "batch normalization after groups": (
        X,
        f"c = Conv<{PAD}, group=2>(x, w) y = BatchNormalization(c, s, t, m, v)",
        {"w": f(6, 2, 3, 3), **BN},
        "Conv",
    ),
    "batch normalization after a transposed convolution": (
        X,
        "c = ConvTranspose<strides=[2,2], group=2>(x, w) y = BatchNormalization(c, s, t, m, v)",
        {"w": f(4, 3, 3, 3), **BN},
        "Conv DepthToSpace Slice",
    ),
    "batch normalization after gemm": (
        "float[N,4] x",
        "c = Gemm<alpha=0.5, beta=2.0>(x, w, b) y = BatchNormalization(c, s, t, m, v)",
        {"w": f(4, 6), "b": f(1, 6), **BN},
        "Gemm",
    ),
    "batch normalization before": (
        X,
        "c = BatchNormalization(x, s, t, m, v) y = Conv<group=2>(c, w)",
        {"w": f(6, 2, 3, 3), **{k: a[:4] for k, a in BN.items()}},
        "Conv",
    ),
    "scale before padding": (X, f"c = Mul(x, k) y = Conv<{PAD}>(c, w)", {"w": W, "k": f(4, 1, 1)}, "Conv"),
    "batch normalization before gemm": (
        "float[N,6] x",
        "c = BatchNormalization(x, s, t, m, v) y = Gemm<transB=1>(c, w, b)",
        {"w": f(3, 6), "b": f(3), **BN},
        "Gemm",
    ),
    "scalar arithmetic": (
        X,
        f"{CONV} a = Mul(c, p) b = Sub(q, a) d = Div(b, p) y = Add(d, p)",
        {"w": W, "p": np.float32(3), "q": f(6, 1, 1)},
        "Conv",
    ),
    "normalization spelled out": (
        X,
        "a = Sub(x, m) y = Div(a, v)",
        {"m": f(4, 1, 1), "v": positive(4, 1, 1)},
        "Conv",
    ),
    "normalization in pieces": (
        X,
        "a = BatchNormalization(x, s, t, m, v) b = Mul(a, p) c = Add(b, q) y = Relu(c)",
        {"p": f(4, 1, 1), "q": np.float32(3), **{k: a[:4] for k, a in BN.items()}},
        "Conv[Relu]",
    ),
    "matmul and add": (
        "float[N,4] x",
        "c = MatMul(x, w) y = Add(b, c)",
        {"w": f(4, 6), "b": f(6)},
        "Gemm",
    ),
    "channel shuffle": (
        X,
        "r = Reshape(x, j) t = Transpose<perm=[0,2,1,3,4]>(r) y = Reshape(t, k)",
        {"j": i(0, 2, 2, 6, 6), "k": i(0, -1, 6, 6)},
        "Gather",
    ),
    "channel shuffle of known size": (
        "float[2,6,3] x",
        "r = Reshape(x, j) t = Transpose<perm=[0,2,1,3]>(r) y = Reshape(t, k)",
        {"j": i(2, 3, 2, 3), "k": i(2, 6, 3)},
        "Gather",
    ),
    "explicit pad": (X, "p = Pad(x, k) y = Conv(p, w)", {"w": W, "k": i(0, 0, 1, 2, 0, 0, 3, 0)}, "Conv"),
    "explicit pad of some axes": (
        X,
        f"p = Pad(x, k, z, a) y = Conv<{PAD}>(p, w)",
        {"w": W, "k": i(1, 2), "z": np.float32(0), "a": i(-1)},
        "Conv",
    ),
    "relu": (X, f"{CONV} y = Relu(c)", {"w": W}, "Conv[Relu]"),
    "leaky relu": (X, f"{CONV} y = LeakyRelu<alpha=0.2>(c)", {"w": W}, "Conv[LeakyRelu]"),
    "prelu with one slope": (
        X,
        f"{CONV} y = PRelu(c, a)",
        {"w": W, "a": np.full((6, 1, 1), 0.25, "f")},
        "Conv[LeakyRelu]",
    ),
    "relu6": (X, f"{CONV} y = Clip(c, a, b)", {"w": W, "a": np.float32(0), "b": np.float32(6)}, "Conv[Clip]"),
    "clip that is relu": (X, f"{CONV} y = Clip(c, a)", {"w": W, "a": np.float32(0)}, "Conv[Relu]"),
    "sigmoid on gemm": ("float[N,4] x", "c = Gemm(x, w) y = Sigmoid(c)", {"w": f(4, 6)}, "Gemm[Sigmoid]"),
    "silu": (X, f"{CONV} g = Sigmoid(c) y = Mul(g, c)", {"w": W}, "Conv[Silu]"),
    "hard swish spelled out": (
        X,
        f"{CONV} a = Add(c, three) k = Clip(a, zero, six) p = Mul(c, k) y = Div(p, six)",
        {"w": W, "three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        "Conv[HardSwish]",
    ),
    "hard swish divided first": (
        X,
        f"{CONV} a = Add(three, c) k = Clip(a, zero, six) p = Div(k, six) y = Mul(p, c)",
        {"w": W, "three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        "Conv[HardSwish]",
    ),
    "hard swish of hard sigmoid": (
        X,
        f"{CONV} h = HardSigmoid<alpha=0.16666667, beta=0.5>(c) y = Mul(c, h)",
        {"w": W},
        "Conv[HardSwish]",
    ),
    "hard sigmoid spelled out": (
        X,
        f"{CONV} a = Add(c, three) k = Clip(a, zero, six) y = Mul(k, sixth)",
        {
            "w": W,
            "three": np.float32(3),
            "zero": np.float32(0),
            "six": np.float32(6),
            "sixth": np.float32(1 / 6),
        },
        "Conv[HardSigmoid]",
    ),
    "gelu spelled out": (
        X,
        "a = Div(x, r) b = Erf(a) c = Add(b, one) d = Mul(x, c) y = Mul(d, half)",
        {"r": np.float32(1.4142135), "one": np.float32(1), "half": np.float32(0.5)},
        "Gelu",
    ),
    "mish spelled out": (X, "a = Softplus(x) b = Tanh(a) y = Mul(x, b)", {}, "Mish"),
    "residual": (X, f"{CONV} d = Conv<{PAD}>(x, w) y = Add(c, d)", {"w": W}, "Conv Conv+"),
    "residual and relu": (
        X,
        f"{CONV} r = Relu(c) d = Conv<{PAD}>(r, u) e = Add(r, d) y = Relu(e)",
        {"w": W, "u": f(6, 6, 3, 3)},
        "Conv[Relu] Conv+[Relu]",
    ),
    "mean over planes": (X, "y = ReduceMean(x, k)", {"k": i(2, 3)}, "GlobalAveragePool"),
    "mean over planes, axes gone": (
        X,
        "y = ReduceMean<keepdims=0>(x, k)",
        {"k": i(-1, -2)},
        "GlobalAveragePool Flatten",
    ),
    "maximum over planes": (X, "y = ReduceMax(x, k)", {"k": i(2, 3)}, "GlobalMaxPool"),
}

STAYS = {
    "identity between input and output": (X, "y = Identity(x)", {}, "Identity"),
    "identity between two outputs": (X, "y = Relu(x) z = Identity(y)", {}, "Relu Identity", "y, z"),
    "the mask of dropout": (X, "y, z = Dropout(x)", {}, "Dropout", "y, bool[] z"),
    "reshape to unknown sizes": (
        "float[A,B] x",
        "t = Reshape(x, k) y = Relu(t)",
        {"k": i(-1, 4)},
        "Reshape Relu",
    ),
    "reshape chain that copies sizes": (
        "float[2,4,6] x",
        "t = Reshape(x, j) y = Reshape(t, k)",
        {"j": i(4, 12), "k": i(0, 3, 4)},
        "Reshape Reshape",
    ),
    "resize that rounds": (
        "float[2,4,6,6] x",
        "y = Resize(x, , k)",
        {"k": np.array([1, 1, 1.1, 1.1], np.float32)},
        "Resize",
    ),
    "batch normalization of a shared value": (
        X,
        f"{CONV} y = BatchNormalization(c, s, t, m, v) z = Relu(c)",
        {"w": W, **BN},
        "Conv Conv Relu",
        "y, z",
    ),
    "batch normalization of an output": (
        X,
        f"{CONV} y = BatchNormalization(c, s, t, m, v)",
        {"w": W, **BN},
        "Conv Conv",
        "y, c",
    ),
    "shift before padding": (
        X,
        f"c = Add(x, k) y = Conv<{PAD}>(c, w)",
        {"w": W, "k": f(4, 1, 1)},
        "Add Conv",
    ),
    "shift before automatic padding": (
        X,
        'c = Add(x, k) y = Conv<auto_pad="SAME_UPPER">(c, w)',
        {"w": W, "k": f(4, 1, 1)},
        "Add Conv",
    ),
    "scale of an input read twice": (
        X,
        f"c = Mul(x, k) d = Conv<{PAD}>(c, w) y = Concat<axis=1>(c, d)",
        {"w": W, "k": f(4, 1, 1)},
        "Mul Conv Concat",
    ),
    "scale per pixel": (X, f"{CONV} y = Mul(c, k)", {"w": W, "k": f(6, 6)}, "Conv Mul"),
    "scale that adds an axis": (X, f"{CONV} y = Mul(c, k)", {"w": W, "k": f(1, 1, 6, 1, 1)}, "Conv Mul"),
    "scales of a shared value": (
        X,
        "a = Mul(x, p) y = Mul(a, p) z = Relu(a)",
        {"p": np.float32(2)},
        "Mul Mul Relu",
        "y, z",
    ),
    "scales of unknown channels": (
        "float[N,C,6] x",
        "a = Mul(x, p) y = Add(a, p)",
        {"p": np.float32(2)},
        "Mul Add",
    ),
    "reciprocal": (X, f"{CONV} y = Div(k, c)", {"w": W, "k": np.float32(1)}, "Conv Div"),
    "weights that are computed": (
        "float[N,4,6,6] x, float[6,4,3,3] w",
        f"{CONV} y = Mul(c, k)",
        {"k": np.float32(2)},
        "Conv Mul",
    ),
    "matmul of more axes": ("float[N,3,4] x", "y = MatMul(x, w)", {"w": f(4, 6)}, "MatMul"),
    "pad with another value": (
        X,
        "p = Pad(x, k, one) y = Conv(p, w)",
        {"w": W, "k": i(0, 0, 1, 1, 0, 0, 1, 1), "one": np.float32(1)},
        "Pad Conv",
    ),
    "pad that reflects": (
        X,
        'p = Pad<mode="reflect">(x, k) y = Conv(p, w)',
        {"w": W, "k": i(0, 0, 1, 1, 0, 0, 1, 1)},
        "Pad Conv",
    ),
    "pad that crops": (
        X,
        "p = Pad(x, k) y = Conv(p, w)",
        {"w": W, "k": i(0, 0, -1, 1, 0, 0, 1, 1)},
        "Pad Conv",
    ),
    "pad of channels": (
        X,
        "p = Pad(x, k) y = Conv(p, w)",
        {"w": f(6, 5, 3, 3), "k": i(0, 1, 1, 1, 0, 0, 1, 1)},
        "Pad Conv",
    ),
    "pad before automatic padding": (
        X,
        'p = Pad(x, k) y = Conv<auto_pad="SAME_UPPER">(p, w)',
        {"w": W, "k": i(0, 0, 1, 1, 0, 0, 1, 1)},
        "Pad Conv",
    ),
    "relu of a shared value": (
        X,
        f"{CONV} r = Relu(c) y = Concat<axis=1>(c, r)",
        {"w": W},
        "Conv Relu Concat",
    ),
    "relu of an output": (X, f"{CONV} y = Relu(c)", {"w": W}, "Conv Relu", "y, c"),
    "second activation": (X, f"{CONV} r = Relu(c) y = Tanh(r)", {"w": W}, "Conv[Relu] Tanh"),
    "clip with computed bounds": (
        "float[N,4,6,6] x, float b",
        f"{CONV} y = Clip(c, b)",
        {"w": W},
        "Conv Clip",
    ),
    "silu whose input is read elsewhere": (
        X,
        f"{CONV} g = Sigmoid(c) p = Mul(g, c) y = Add(p, c)",
        {"w": W},
        "Conv Sigmoid Mul Add",
    ),
    "silu whose gate is read elsewhere": (
        X,
        f"{CONV} g = Sigmoid(c) p = Mul(g, c) y = Add(p, g)",
        {"w": W},
        "Conv Sigmoid Mul Add",
    ),
    "hard swish with other numbers": (
        X,
        "a = Add(x, three) k = Clip(a, zero, six) p = Mul(x, k) y = Div(p, six)",
        {"three": np.float32(3.1), "zero": np.float32(0), "six": np.float32(6)},
        "Add Clip Mul Div",
    ),
    "hard swish of two values": (
        X,
        "n = Neg(x) a = Add(n, three) k = Clip(a, zero, six) p = Mul(x, k) y = Div(p, six)",
        {"three": np.float32(3), "zero": np.float32(0), "six": np.float32(6)},
        "Neg Add Clip Mul Div",
    ),
    "residual that broadcasts": (
        "float[N,4,6,6] x, float[N,6,1,1] z",
        f"{CONV} y = Add(c, z)",
        {"w": W},
        "Conv Add",
    ),
    "residual of unknown size": (
        "float[N,4,H,V] x, float[N,6,H,V] z",
        f"{CONV} y = Add(c, z)",
        {"w": W},
        "Conv Add",
    ),
    "residual of a shared value": (
        X,
        f"{CONV} d = Add(c, c) y = Relu(d)",
        {"w": W},
        "Conv Add Relu",
    ),
    "residual after the activation": (
        "float[N,4,6,6] x, float[N,6,6,6] z",
        f"{CONV} r = Relu(c) y = Add(r, z)",
        {"w": W},
        "Conv[Relu] Add",
    ),
    "mean over other axes": (X, "y = ReduceMean(x, k)", {"k": i(1, 2)}, "ReduceMean"),
    "shuffle of columns": (
        X,
        "r = Reshape(x, j) t = Transpose<perm=[0,1,2,4,3]>(r) y = Reshape(t, k)",
        {"j": i(0, 4, 6, 2, 3), "k": i(0, 4, 6, 6)},
        "Reshape Transpose Reshape",
    ),
    "training normalization": (
        X,
        f"{CONV} y = BatchNormalization<training_mode=1>(c, s, t, m, v)",
        {"w": W, **BN},
        "Conv BatchNormalization",
    ),
}


def spelled(graph):
    names = []
    for node in graph:
        activation = node.attr("activation")
        plus = "+" if node.op == "Conv" and node.input(3) else ""
        names.append(node.op + plus + (f"[{activation[0]}]" if activation else ""))
    return " ".join(names)


def feeds_of(graph):
    rng = np.random.default_rng(5)
    sizes = {"N": 2, "A": 3, "B": 4, "C": 5, "H": 6, "V": 6}
    shapes = {n: [sizes.get(d, d) for d in graph.values[n].shape] for n in graph.inputs}
    return {n: rng.standard_normal(shape).astype(np.float32) * 3 for n, shape in shapes.items()}


def same_answers(graph, simple):
    feeds = feeds_of(graph)
    verify(simple)
    assert (simple.inputs, simple.outputs) == (graph.inputs, graph.outputs)
    for name, a, b in zip(graph.outputs, evaluate(graph, feeds), evaluate(simple, feeds)):
        assert simple.values[name].dtype == a.dtype
        # 36 products a sum, a few roundings of folded numbers; float32 has 24 bits.
        scale = max(1, np.abs(a).max())
        np.testing.assert_allclose(b, a, rtol=0, atol=scale * 64 * 2.0**-24)


@pytest.mark.parametrize("name", FIRES)
def test_fires(name, make):
    inputs, body, constants, expected = FIRES[name]
    graph = make(inputs, "y", body, **constants)
    simple = simplify(graph)
    assert spelled(simple) == expected
    same_answers(graph, simple)
    feeds = feeds_of(graph)
    bound = bind(graph, {n: a.shape for n, a in feeds.items()})
    assert len(simplify(bound).nodes) <= len(simple.nodes)
    same_answers(graph, simplify(bound))


@pytest.mark.parametrize("name", STAYS)
def test_stays(name, make):
    inputs, body, constants, expected, *outputs = STAYS[name]
    graph = make(inputs, outputs[0] if outputs else "y", body, **constants)
    simple = simplify(graph)
    assert spelled(simple) == expected
    same_answers(graph, simple)


def test_simplifying_twice_changes_nothing(make):
    for inputs, body, constants, _ in FIRES.values():
        once = simplify(make(inputs, "y", body, **constants))
        again, reports = simplify_with_report(once)
        assert again is once
        assert not any(report.modified for report in reports)


def test_reports_name_every_pass_and_count(make):
    graph = make(X, "y", f"{CONV} n = BatchNormalization(c, s, t, m, v) y = Relu(n)", w=W, **BN)
    _, reports = simplify_with_report(graph)
    assert [report.name for report in reports] == list(PASSES)
    done = {report.name: dict(report.stats) for report in reports if report.modified}
    assert done == {
        "fold affine": {"after": 1, "before": 0, "merged": 0},
        "fuse activations": {"fused": 1},
    }


def test_a_pass_that_breaks_the_graph_is_named(make, monkeypatch):
    graph = make(X, "y", "y = Relu(x)")
    monkeypatch.setattr("zeroskip.graph.passes.pipeline.PASSES", {"break": lambda g: (g.with_(nodes=()), {})})
    with pytest.raises(ModelError, match='after the pass "break": nothing computes the output "y"'):
        simplify(graph)


def test_folding_is_done_in_float64(make):
    # Squares of these scales leave float32; their product with the weights does not.
    w = np.full((1, 1, 1, 1), 1e-30, np.float32)
    k = np.float32(1e20)
    graph = make("float[1,1,2,2] x", "y", "c = Conv(x, w) a = Mul(c, k) y = Mul(a, k)", w=w, k=k)
    simple = simplify(graph)
    assert spelled(simple) == "Conv"
    assert simple.constants[simple.nodes[0].inputs[1]].item() == pytest.approx(1e10, rel=1e-6)


def test_weights_are_not_copied_without_need(make_model):
    w = f(64, 64, 3, 3)
    model = make_model("float[1,64,9,9] x", "y", "c = Conv(x, w) y = Relu(c)", w=w)
    graph = load(model.SerializeToString())
    simple = simplify(bind(graph, {"x": (1, 64, 9, 9)}))
    assert simple.constants["w"] is graph.constants["w"]
    assert not graph.constants["w"].flags.owndata


@st.composite
def chains(draw):
    """A network as a random chain of layers and element-wise steps over [N,4,5,5], with branches back."""
    lines, names = [], ["x"]
    for index in range(draw(st.integers(2, 10))):
        source, name = names[-1] if draw(st.booleans()) else draw(st.sampled_from(names)), f"v{index}"
        other = draw(st.sampled_from(names))
        step = draw(
            st.sampled_from(
                [
                    "Conv<pads=[1,1,1,1]>({a}, w)",
                    "Conv<pads=[1,1,1,1], group=2>({a}, g, b)",
                    "Conv({a}, p, b)",
                    "BatchNormalization({a}, s, t, m, v)",
                    "Mul({a}, k)",
                    "Add(k, {a})",
                    "Sub(h, {a})",
                    "Add({a}, {b})",
                    "Mul({a}, {b})",
                    "Relu({a})",
                    "Sigmoid({a})",
                    "HardSwish({a})",
                    "Clip({a}, lo, hi)",
                    "Identity({a})",
                    "Dropout({a})",
                    "Transpose<perm=[0,1,3,2]>({a})",
                ]
            )
        )
        lines.append(f"{name} = " + step.format(a=source, b=other))
        names.append(name)
    outputs = draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=2, unique=True))
    return " ".join(lines), ", ".join(outputs)


@settings(max_examples=150)
@given(network=chains())
def test_random_networks_keep_their_answers(make, network):
    body, outputs = network
    rng = np.random.default_rng(0)

    def r(*shape):
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    constants = {
        "w": r(4, 4, 3, 3),
        "g": r(4, 2, 3, 3),
        "p": r(4, 4, 1, 1),
        "b": r(4),
        "k": r(4, 1, 1),
        "h": r(1)[0],
    }
    constants |= {
        "s": r(4),
        "t": r(4),
        "m": r(4),
        "v": positive(4),
        "lo": np.float32(-1),
        "hi": np.float32(2),
    }
    graph = make("float[N,4,5,5] x", outputs, body, **constants)
    x = r(2, 4, 5, 5)
    for source in (graph, bind(graph, {"x": x.shape})):
        simple = simplify(source)
        verify(simple)
        assert simple.outputs == graph.outputs
        for a, b in zip(evaluate(graph, {"x": x}), evaluate(simple, {"x": x})):
            scale = max(1, float(np.abs(a).max()))
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * scale)
