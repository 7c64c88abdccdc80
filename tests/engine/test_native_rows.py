"""Every operator with a native row, on planes and on plain arrays, against the interpreter."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.parser
import pytest

from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.graph import bind, evaluate, load

EPS = float(np.finfo(np.float32).eps)

# Makes planes of the network's input, exactly.
TO_PLANES = "p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)\n"


def ints(*numbers):
    return np.array(numbers, np.int64)


def floats(*numbers):
    return np.array(numbers, np.float32)


def normal(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """A network's nodes, its constants, its input's size after the batch, and what rounding may do.

    `roundings` is the longest chain of additions and multiplications behind an output number; 0 means exact.
    """

    nodes: str
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    size: tuple[int, ...] = (6, 9, 17)
    roundings: int = 0
    opset: int = 18


def moved(
    name: str, nodes: str, size: tuple[int, ...] = (6, 9, 17), **constants: np.ndarray
) -> dict[str, Case]:
    """Nodes that compute nothing and read `p`, which lies in planes or in a plain array."""
    sources = {"planes": TO_PLANES, "a plain array": "p = Identity(x)\n"}
    return {f"{name} of {kind}": Case(source + nodes, constants, size) for kind, source in sources.items()}


SLICE = {"start": ints(1, 2), "end": ints(-1, 16), "axes": ints(2, 3), "step": ints(2, 3)}
PADS = {"pads": ints(0, 0, 1, 2, 0, 0, 3, 0)}
SCALES = {"scales": floats(1, 1, 2, 2)}
RESIZE = 'coordinate_transformation_mode="{}", mode="{}"'

MOVED: dict[str, Case] = {
    **moved("Split", "a, b = Split<axis=1>(p, parts) y = Concat<axis=1>(b, p, a)", parts=ints(2, 4)),
    **moved(
        "Split unevenly",
        "a, b, c, d = Split<axis=1, num_outputs=4>(p) y = Concat<axis=1>(d, c, b, a)",
        (7, 5, 16),
    ),
    **moved("Slice", "y = Slice(p, start, end, axes, step)", **SLICE),
    **moved("Slice of channels", "y = Slice(p, first, last, one)", first=ints(2), last=ints(5), one=ints(1)),
    **moved(
        "Slice of every other channel",
        "y = Slice(p, first, last, one, two)",
        first=ints(1),
        last=ints(99),
        one=ints(-3),
        two=ints(2),
    ),
    **moved("Gather", "y = Gather<axis=1>(p, order)", order=ints(3, 0, -1, 3)),
    **moved("Pad", "y = Pad(p, pads)", **PADS),
    **moved("Pad and crop", "y = Pad(p, pads)", pads=ints(0, 0, -1, -2, 0, 0, -3, 1)),
    **moved("Pad by reflection", 'y = Pad<mode="reflect">(p, pads)', **PADS),
    **moved("Pad by the edge", 'y = Pad<mode="edge">(p, pads)', **PADS),
    **moved("DepthToSpace", "y = DepthToSpace<blocksize=2>(p)", (12, 5, 9)),
    **moved("DepthToSpace CRD", 'y = DepthToSpace<blocksize=3, mode="CRD">(p)', (18, 4, 7)),
    **moved("SpaceToDepth", "y = SpaceToDepth<blocksize=2>(p)", (3, 8, 34)),
    **moved("SpaceToDepth CRD", 'y = SpaceToDepth<blocksize=2, mode="CRD">(p)', (3, 8, 34)),
    **moved(
        "Resize to double", f"y = Resize<{RESIZE.format('asymmetric', 'nearest')}>(p, , scales)", **SCALES
    ),
    **moved(
        "Resize to the nearest",
        f"y = Resize<{RESIZE.format('half_pixel', 'nearest')}>(p, , , sizes)",
        sizes=ints(1, 6, 5, 31),
    ),
    **moved("Transpose to NHWC", "y = Transpose<perm=[0,2,3,1]>(p)"),
    **moved("Transpose of images", "y = Transpose<perm=[3,1,0,2]>(p)", (3, 4, 33)),
    **moved("Transpose backwards", "y = Transpose(p)", (5, 2, 3)),
    **moved(
        "channel shuffle",
        "r = Reshape(p, apart) t = Transpose<perm=[0,2,1,3,4]>(r) y = Reshape(t, back)",
        apart=ints(0, 2, 3, 9, 17),
        back=ints(0, 6, 9, 17),
    ),
    "Transpose to planes": Case("t = Transpose<perm=[0,3,1,2]>(x) y = MaxPool<kernel_shape=[2,2]>(t)"),
    "Transpose of vectors": Case("y = Transpose<perm=[0,2,1]>(x)", size=(5, 33)),
    "Concat of rows": Case("y = Concat<axis=1>(x, x)", size=(3, 4, 5, 2)),
    "Concat of vectors": Case("y = Concat<axis=1>(x, x)", size=(3, 4)),
    "Concat of images": Case("y = Concat<axis=0>(x, k)", {"k": normal(3, 2, 5)}, size=(2, 5)),
    "views of views": Case(
        TO_PLANES + "a, b = Split<axis=1>(p, half)\n"
        "c, d = Split<axis=1>(b, odd) y = Concat<axis=1>(d, c, a, d)",
        {"half": ints(3, 3), "odd": ints(1, 2)},
    ),
    "slices written in place": Case(
        "a = Slice(x, even, end, axes, two) b = Slice(x, odd, end, axes, two) y = Concat<axis=1>(a, b)",
        {"even": ints(0, 0), "odd": ints(1, 1), "end": ints(99, 99), "axes": ints(2, 3), "two": ints(2, 2)},
        (3, 8, 18),
    ),
    "parts of vectors": Case(
        "a, b = Split<axis=1>(x, parts) y = Concat<axis=1>(b, a)", {"parts": ints(2, 4)}, (6, 11)
    ),
}

COMPUTED: dict[str, Case] = {
    "Resize linear": Case(
        TO_PLANES + f"y = Resize<{RESIZE.format('half_pixel', 'linear')}>(p, , , sizes)",
        {"sizes": ints(1, 6, 13, 40)},
        roundings=6,
    ),
    "Resize cubic": Case(
        f"y = Resize<{RESIZE.format('align_corners', 'cubic')}>(x, , scales)",
        {"scales": floats(1, 1, 1.5, 0.5)},
        roundings=12,
    ),
    "Resize of vectors": Case(
        f"y = Resize<{RESIZE.format('half_pixel', 'linear')}>(x, , scales)",
        {"scales": floats(1, 1, 3)},
        (6, 9),
        roundings=4,
    ),
    "Softmax over channels": Case(TO_PLANES + "y = Softmax<axis=1>(p)", roundings=16),
    "LogSoftmax over channels": Case(TO_PLANES + "y = LogSoftmax<axis=-3>(p)", roundings=16),
    "Softmax of old": Case(TO_PLANES + "y = Softmax<axis=1>(p)", opset=11, roundings=16),
    "Softmax of a pixel": Case("y = Softmax<axis=1>(x)", size=(33, 1, 1), roundings=16),
    "LRN": Case(TO_PLANES + "y = LRN<size=3, alpha=0.5>(p)", roundings=16),
    "LRN of an input": Case("y = LRN<size=4>(x)", roundings=16),
    "PRelu per channel": Case(TO_PLANES + "y = PRelu(p, slope)", {"slope": normal(6, 1, 1)}, roundings=1),
    "PRelu per pixel": Case(TO_PLANES + "y = PRelu(p, slope)", {"slope": normal(9, 17)}, roundings=1),
    "PRelu of numbers": Case("y = PRelu(x, slope)", {"slope": normal(7)}, (7,), roundings=1),
    "Pow": Case(TO_PLANES + "y = Pow(p, three)", {"three": np.float32(3)}, roundings=3),
    "InstanceNormalization": Case(
        TO_PLANES + "y = InstanceNormalization(p, s, t)",
        {"s": normal(6), "t": normal(6)},
        roundings=9 * 17 + 8,
    ),
    "InstanceNormalization of vectors": Case(
        "y = InstanceNormalization(x, s, t)", {"s": normal(6), "t": normal(6)}, (6, 33), roundings=41
    ),
    "LayerNormalization": Case(
        "y = LayerNormalization(x, s, t)", {"s": normal(17), "t": normal(17)}, roundings=25
    ),
    "LayerNormalization without shift": Case(
        "y = LayerNormalization<axis=2>(x, s)", {"s": normal(9, 17)}, roundings=9 * 17 + 8
    ),
    "squeeze and excite": Case(
        TO_PLANES + "g = GlobalAveragePool(p) d = Conv(g, down, bias) r = Relu(d) u = Conv(r, up) "
        "s = HardSigmoid(u) y = Mul(s, p)",
        {"down": normal(4, 6, 1, 1), "bias": normal(4), "up": normal(6, 4, 1, 1)},
        roundings=9 * 17 + 20,
    ),
    "Conv of a whole image": Case(TO_PLANES + "y = Conv(p, w)", {"w": normal(5, 6, 9, 17)}, roundings=918),
    "LpPool": Case(
        TO_PLANES + "y = LpPool<kernel_shape=[3,3], strides=[2,2], pads=[0,1,1,0]>(p)", roundings=12
    ),
    "LpPool of vectors": Case("y = LpPool<kernel_shape=[2], p=1>(x)", size=(6, 33), roundings=2),
    "ReduceSum over channels": Case(TO_PLANES + "y = ReduceSum(p, axis)", {"axis": ints(1)}, roundings=6),
    "ReduceMean over channels": Case(TO_PLANES + "y = ReduceMean(p, axis)", {"axis": ints(-3)}, roundings=7),
    "ReduceMax over channels": Case(TO_PLANES + "y = ReduceMax(p, axis)", {"axis": ints(1)}),
    "ReduceMean over channels of vectors": Case(
        "y = ReduceMean(x, axis)", {"axis": ints(1)}, (6, 33), roundings=7
    ),
    "MatMul of rows": Case("y = MatMul(x, w)", {"w": normal(17, 20)}, roundings=17),
    "MatMul of vectors": Case("y = MatMul(x, w)", {"w": normal(17, 3)}, (5, 17), roundings=17),
}

CASES = MOVED | COMPUTED


def network(case: Case, batch: int) -> bytes:
    shape = ",".join(map(str, (batch, *case.size)))
    text = (
        f'<ir_version: 8, opset_import: ["" : {case.opset}]>\n'
        f"rows (float[{shape}] x) => (float y) {{\n{case.nodes}\n}}"
    )
    model = onnx.parser.parse_model(text)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a, n) for n, a in case.constants.items())
    return model.SerializeToString()


@pytest.mark.parametrize("name", CASES)
def test_row_against_the_interpreter(name, target):
    case = CASES[name]
    for batch, threads in ((1, 1), (2, 2)):
        sizes = case.constants.get("sizes")
        constants = case.constants if sizes is None else {**case.constants, "sizes": ints(batch, *sizes[1:])}
        sized = Case(case.nodes, constants, case.size, case.roundings, case.opset)
        model = network(sized, batch)
        x = normal(batch, *case.size)
        graph = load(model)
        expected = evaluate(bind(graph, {"x": x.shape}), {"x": x})[0]
        session = InferenceSession(model, SessionOptions(target=target, threads=threads))
        got = session.run(None, {"x": x})[0]
        assert got.shape == expected.shape
        steps = {step.op: step.algorithm for step in session.plan.steps}
        native = batch == 1 or name != "Concat of rows"
        assert "numpy" not in steps.values() or not native, steps
        largest = float(np.abs(expected).max())
        np.testing.assert_allclose(got, expected, rtol=0, atol=2 * case.roundings * EPS * max(largest, 1))


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ("y = Slice(x, start, end, axes, step)",
         {"start": ints(-1), "end": ints(-99), "axes": ints(3), "step": ints(-1)}),
        ("y = Pad(x, pads, value)", {**PADS, "value": np.float32(1)}),
        ("y = Pad(x, pads)", {"pads": ints(0, 1, 0, 0, 0, 0, 0, 0)}),
        ("a, y = Split<axis=3>(x, parts)", {"parts": ints(8, 9)}),
        ("y = Resize<mode=\"linear\">(x, , scales)", {"scales": floats(1, 2, 1, 1)}),
        ("y = Softmax<axis=2>(x)", {}),
        ("y = LpPool<kernel_shape=[2,2], p=3>(x)", {}),
        ("y = ReduceSum(x, axis)", {"axis": ints(2)}),
    ],
)  # fmt: skip
def test_what_has_no_row_runs_in_numpy(nodes, constants):
    model = network(Case(nodes, constants), 2)
    x = normal(2, 6, 9, 17)
    session = InferenceSession(model)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], evaluate(load(model), {"x": x})[0])
    assert "numpy" in {step.algorithm for step in session.plan.steps}


def test_a_forced_algorithm_also_runs_whole_image_convolutions():
    model = network(Case("y = Conv(x, w)", {"w": normal(5, 6, 9, 17)}), 1)
    plans = [InferenceSession(model, SessionOptions(algorithm=a)).plan for a in ("auto", "direct")]
    assert [plan.steps[0].algorithm for plan in plans] == ["gemm", "direct"]
