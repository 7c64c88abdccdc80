"""Runs small networks by hand: any algorithm and variant per layer, in memory that was filled with NaN."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from zeroskip.codegen import Planar, Target, resolve
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.conv import ALGORITHMS, ConvProblem
from zeroskip.engine.convolutions import Choice, ConvSite
from zeroskip.engine.executor import Context
from zeroskip.engine.lowering import lower
from zeroskip.engine.network import Network
from zeroskip.graph import Graph, Node, Value

FLOAT = np.dtype(np.float32)
EPS = 2.0**-24  # unit roundoff of float32


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


ACTIVATIONS = {
    None: lambda x: x,
    ("Relu",): lambda x: np.maximum(x, 0),
    ("Clip", 0.0, 6.0): lambda x: np.clip(x, 0, 6),
    ("LeakyRelu", 0.1): lambda x: np.where(x < 0, 0.1 * x, x),
    ("HardSwish",): lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    ("Sigmoid",): _sigmoid,
    ("Silu",): lambda x: x * _sigmoid(x),
    ("Tanh",): np.tanh,
}
LIPSCHITZ = 1.5  # the steepest of them: hard-swish at 3


TINY = 2.0**-149  # the smallest float32; what a product may lose that is smaller than normal numbers


def spoil(rng: np.random.Generator, array: np.ndarray, special: str) -> np.ndarray:
    """Put special values into an array whose second axis are channels."""
    some = rng.random(array.shape) < 0.5
    if special == "denormal":
        return np.where(some, array * 1e-40, array * 1e-38).astype(FLOAT)
    if special == "mixed":
        return np.where(some, array * 1e-40, array).astype(FLOAT)
    if special == "signed zeros":
        return np.where(some, np.copysign(FLOAT.type(0), array), array).astype(FLOAT)
    if special == "zero channels":
        return array * (rng.random((1, array.shape[1]) + (1,) * (array.ndim - 2)) < 0.5)
    return array


def whole_numbers(rng: np.random.Generator) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Draws arrays of -2 .. 2."""
    return lambda shape: rng.integers(-2, 3, shape)


@dataclass(frozen=True)
class Layer:
    """A convolution: what a test says of it; arrays are drawn from the seed."""

    n: int = 1
    c: int = 1
    h: int = 1
    w: int = 1
    k: int = 1
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1
    density: float = 1.0
    bias: bool = True
    activation: tuple | None = None
    residual: bool = False
    one_dimensional: bool = False
    seed: int = 0
    whole: bool = False  # small whole numbers, of which float32 sums are exact
    filled: float = 1.0  # the share of activations that are not zero
    special: str = ""  # values: see `spoil`

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        p, q = (
            (m + before + after - (taps - 1) * d - 1) // s + 1
            for m, before, after, taps, d, s in zip(
                (self.h, self.w), self.pads[:2], self.pads[2:], self.kernel, self.dilations, self.strides
            )
        )
        return p, q

    def weights(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weights of the density, and the bias."""
        rng = np.random.default_rng(self.seed)
        numbers = whole_numbers(rng) if self.whole else rng.standard_normal
        w = numbers((self.k, self.c // self.groups, *self.kernel)).astype(FLOAT)
        w[rng.random(w.shape) >= self.density] = 0
        if self.special != "denormal":  # products of two denormals are zero
            w = spoil(rng, w, self.special)
        return w, numbers((self.k,)).astype(FLOAT) if self.bias else None

    def inputs(self, seed: int = 1) -> dict[str, np.ndarray]:
        """The arrays a network of this layer alone takes, flat where it is one-dimensional."""
        rng = np.random.default_rng(self.seed + 7919 * seed)
        x = rng.standard_normal((self.n, self.c, self.h, self.w)).astype(FLOAT)
        x[rng.random(x.shape) >= self.filled] = 0
        arrays = {"x": spoil(rng, x, self.special)}
        if self.residual:
            arrays["r"] = rng.standard_normal((self.n, self.k, *self.size)).astype(FLOAT)
        if self.one_dimensional:
            arrays = {name: array[:, :, 0] for name, array in arrays.items()}
        return arrays

    def problem(self) -> ConvProblem:
        """The same as the algorithms see it."""
        w, bias = self.weights()
        return ConvProblem(
            self.n, self.c, self.h, self.w, w, bias, self.strides, self.pads, self.dilations,
            self.groups, self.activation, self.residual,
        )  # fmt: skip


def sums(x: np.ndarray, w: np.ndarray, layer: Layer) -> np.ndarray:
    """The convolution in the precision of its arguments: one shifted plane at a time."""
    top, left, bottom, right = layer.pads
    big = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    (p, q), (sy, sx), (dy, dx) = layer.size, layer.strides, layer.dilations
    n, g = x.shape[0], layer.groups
    out = np.zeros((n, g, w.shape[0] // g, p, q), x.dtype)
    grouped = w.reshape(g, w.shape[0] // g, *w.shape[1:])
    for r in range(w.shape[2]):
        for s in range(w.shape[3]):
            view = big[:, :, r * dy : r * dy + (p - 1) * sy + 1 : sy, s * dx : s * dx + (q - 1) * sx + 1 : sx]
            out += np.einsum("gkc,ngcpq->ngkpq", grouped[..., r, s], view.reshape(n, g, -1, p, q))
    return out.reshape(n, w.shape[0], p, q)


def reference(
    layer: Layer, x: np.ndarray, r: np.ndarray | None = None, growth: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """The layer in float64, and how far each float32 result may be from it.

    A sum of m terms in any order errs by at most m*eps/(1 - m*eps) times the sum of the terms' sizes (Higham,
    Accuracy and Stability, section 4.2), and by a smallest number for each product that underflows; the
    activation stretches that and adds a few roundings of its own. An algorithm whose errors may grow has that
    many times the bound of terms all as large as the largest; what underflows in its transforms is filtered.
    """
    w, bias = layer.weights()
    x, r = (array if array is None else array.astype(np.float64) for array in (x, r))
    w = w.astype(np.float64)
    if layer.one_dimensional:
        x, r = x[:, :, None], None if r is None else r[:, :, None]
    y, magnitude = sums(x, w, layer), sums(np.abs(x), np.abs(w), layer)
    terms = w[0].size + 2
    lost = terms * TINY
    if growth > 1:
        lost *= 1 + growth**2 * np.abs(w).max() * w[0].size
        largest = np.abs(x).max((0, 2, 3)).reshape(layer.groups, -1)
        taps = np.abs(w).max((2, 3)).reshape(layer.groups, -1, w.shape[1])
        products = np.einsum("gkc,gc->gk", taps, largest).reshape(-1, 1, 1)
        magnitude, terms = growth * w[0, 0].size * np.broadcast_to(products, y.shape), terms + 256
    for term in (None if bias is None else bias.astype(np.float64)[:, None, None], r):
        if term is not None:
            y, magnitude = y + term, magnitude + np.abs(term)
    out = ACTIVATIONS[layer.activation](y)
    bound = LIPSCHITZ * (terms * EPS / (1 - terms * EPS) * magnitude + lost)
    if layer.activation:
        bound += 8 * EPS * (1 + np.abs(out))
    return (out[:, :, 0], bound[:, :, 0]) if layer.one_dimensional else (out, bound)


@dataclass
class Chain:
    """A network under construction, of canonical nodes."""

    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    def input(self, name: str, *shape: int) -> str:
        """A new input."""
        self.inputs.append(name)
        return self.value(name, *shape)

    def value(self, name: str, *shape: int) -> str:
        """A new value."""
        self.values[name] = Value(name, shape, FLOAT)
        return name

    def constant(self, name: str, array: np.ndarray) -> str:
        """A constant."""
        self.constants[name] = array
        return self.value(name, *array.shape)

    def shape(self, name: str) -> tuple[int, ...]:
        """The value's shape."""
        return self.values[name].sizes

    def conv(self, name: str, layer: Layer, x: str, residual: str = "") -> str:
        """A convolution that writes the value `name`."""
        flat = layer.one_dimensional
        w, bias = layer.weights()
        inputs = [x, self.constant(f"{name}.w", w[:, :, 0] if flat else w)]
        inputs.append("" if bias is None else self.constant(f"{name}.b", bias))
        inputs += [residual] if residual else []
        pads = (layer.pads[1], layer.pads[3]) if flat else layer.pads
        attributes = {
            "kernel_shape": layer.kernel[flat:],
            "strides": layer.strides[flat:],
            "pads": pads,
            "dilations": layer.dilations[flat:],
            "group": layer.groups,
        }
        if layer.activation:
            attributes["activation"] = layer.activation
        self.nodes.append(Node("Conv", tuple(inputs), (name,), attributes, name))
        return self.value(name, layer.n, layer.k, *layer.size[flat:])

    def node(self, op: str, name: str, inputs: list[str], shape: tuple[int, ...], **attributes) -> str:
        """Any other node."""
        self.nodes.append(Node(op, tuple(inputs), (name,), attributes, name))
        return self.value(name, *shape)

    def pool(self, name: str, x: str) -> str:
        """The maxima of 2x2 pixels."""
        window = {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (0,) * 4, "dilations": (1, 1)}
        n, c, h, w = self.shape(x)
        return self.node("MaxPool", name, [x], (n, c, h // 2, w // 2), **window)

    def graph(self, *outputs: str) -> Graph:
        """The finished network."""
        return Graph("chain", tuple(self.nodes), tuple(self.inputs), outputs, self.values, self.constants)


def alone(layer: Layer) -> Graph:
    """The network of one layer."""
    chain = Chain()
    for name, array in layer.inputs().items():
        chain.input(name, *array.shape)
    return chain.graph(chain.conv("y", layer, "x", "r" if layer.residual else ""))


Choose = Callable[[str, ConvSite], Choice]


def mixed(seed: int, growth: float = 1.0) -> Choose:
    """A chooser: for each layer any algorithm that accepts it and errs no more, and any of its variants."""

    def choose(name: str, site: ConvSite) -> Choice:
        rng = np.random.default_rng([seed, *name.encode()])
        rows = [row for row in ALGORITHMS.values() if not row.refuses(site.problem, site.target)]
        options = [
            (r.name, v) for r in rows for v in r.variants(site.problem, site.target) if r.growth(v) <= growth
        ]
        names = sorted({name for name, _ in options})
        algorithm = names[rng.integers(len(names))]
        texts = [v for n, v in options if n == algorithm]
        return Choice(algorithm, texts[rng.integers(len(texts))], "test")

    return choose


def always(algorithm: str, variant: int | str = 0) -> Choose:
    """A chooser: this algorithm, and its variant of that text or number (modulo how many there are)."""

    def choose(name: str, site: ConvSite) -> Choice:
        texts = ALGORITHMS[algorithm].variants(site.problem, site.target)
        return Choice(algorithm, variant if isinstance(variant, str) else texts[variant % len(texts)], "test")

    return choose


def poison(context: Context) -> None:
    """NaN in all of the context's memory: what is read before it is written shows."""
    for memory in (context.arena, context._scratch):
        owner = memory.base if isinstance(memory.base, np.ndarray) else memory
        owner.view(np.uint8)[...] = 0xFF


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy that ends where nobody may read or write."""
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, size + mmap.PAGESIZE)
    everything = np.frombuffer(pages, np.uint8)
    if os.name == "posix":
        protect = ctypes.CDLL(None).mprotect
        assert protect(ctypes.c_void_p(everything.ctypes.data + size), mmap.PAGESIZE, 0) == 0
    copied = everything[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


def check_borders(network: Network, context: Context, name: str) -> None:
    """All that is not a pixel of the value `name` is zero, where it lies in planes."""
    home = network.homes[name]
    layout = home.layout
    if not isinstance(layout, Planar):
        return
    start = context.plan.offsets[home.buffer] + home.offset
    floats = context.arena[start : start + layout.bytes].view(np.float32).copy()
    body = floats[layout.lead // 4 :].reshape(layout.planes, -1)
    cut = body[:, : layout.images * layout.rows * layout.pitch]
    cut = cut[:, : cut.shape[1] // layout.pitch * layout.pitch].reshape(layout.planes, -1, layout.pitch)
    for image in range(layout.images):
        top = image * layout.rows
        cut[:, top : top + layout.height, : layout.width] = 0
    assert not floats.any(), f"borders of {name} are not zero: {np.flatnonzero(floats)[:8]} of {layout}"


@dataclass
class Runner:
    """Runs networks for one target."""

    target: Target = field(repr=False)
    pools: dict[int, ThreadPool | None] = field(repr=False)

    def run(
        self,
        graph: Graph,
        choose: Choose,
        *inputs: dict[str, np.ndarray],
        threads: int = 1,
        borders: tuple[str, ...] = (),
        in_place: bool = False,
    ) -> list[list[np.ndarray]]:
        """The outputs for each set of inputs, one after the other in the same memory, poisoned once.

        `borders` are values whose memory is still theirs at the end, and whose borders are to be checked.
        With `in_place` convolutions are given inputs and outputs as they are, in memory that others guard.
        """
        network = Network(graph, self.target, threads, in_place=in_place)
        plan = lower(network, choose, forced=True)
        context = Context(plan)
        poison(context)
        results = []
        for arrays in inputs:
            outputs = context.fresh_outputs()
            if in_place:
                arrays, outputs = ({n: guarded(a) for n, a in some.items()} for some in (arrays, outputs))
            context.run(arrays, outputs, self.pools[threads])
            results.append([outputs[name] for name in graph.outputs])
            for name in borders:
                check_borders(network, context, name)
        return results


@pytest.fixture(scope="session")
def pools() -> Iterator[dict[int, ThreadPool | None]]:
    """A pool of threads for each number of them; none where there is one."""
    yield {1: None, 2: ThreadPool(2)}


@pytest.fixture(scope="module")
def runner(target: str, pools: dict[int, ThreadPool | None]) -> Runner:
    """A runner per target."""
    return Runner(resolve(target), pools)


@dataclass(frozen=True)
class Kit:
    """What the tests of convolutions use from here."""

    Layer = Layer
    Chain = Chain
    activations = tuple(ACTIVATIONS)
    alone = staticmethod(alone)
    always = staticmethod(always)
    mixed = staticmethod(mixed)
    reference = staticmethod(reference)


@pytest.fixture(scope="session")
def kit() -> Kit:
    """The helpers of this file."""
    return Kit()
