"""Lowering Conv: the problem, where its operands lie, and which algorithm does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroskip.codegen import Call, Operand, Planar, Target
from zeroskip.codegen.activations import ACTIVATIONS
from zeroskip.conv import ALGORITHMS, Algorithm, ConvProblem, Site
from zeroskip.conv.split import split
from zeroskip.engine.network import Network
from zeroskip.engine.plan import Candidate
from zeroskip.graph.ir import Node
from zeroskip.ops.copy import copy
from zeroskip.ops.pool import Window, max_pool

Allocate = Callable[[int], int]

POOL = Window((2, 2), (2, 2))

# Masking what windows read beside an image costs a depthwise layer of 14x14 pixels some time; others gain
# only where their planes shrink by so much.
BARE_SAVES = 1.03


@dataclass(frozen=True, eq=False)
class ConvSite:
    """A convolution in its network: the problem and its operands, as planes or plain, where they are.

    `planes` are the layouts of input and output as planes with room for the padding, `split` that of the
    input split by strides. Of a pooled layer `y` are the maxima, `unpooled` is the layout of what they are
    of. So many calls come `before` the algorithm's own in its step: they bring its operands into these
    layouts.
    """

    problem: ConvProblem
    x: Operand
    y: Operand
    residual: Operand | None
    planes: tuple[Planar, Planar]
    split: Planar | None
    target: Target
    threads: int
    before: int = 0
    unpooled: Planar | None = None

    def calls(
        self, algorithm: Algorithm, variant: str, allocate: Allocate, planes: Allocate | None = None
    ) -> tuple[Call, ...]:
        """The kernel calls of one variant; `allocate` makes buffers of so many bytes.

        What the caller gave or wants plain goes through `planes`, by default also allocated so, where the
        algorithm knows nothing else.
        """
        planes = planes or allocate
        x, y, residual = self.x, self.y, self.residual
        before: list[Call] = []
        after: list[Call] = []
        convert_x, convert_y = algorithm.converts(self.problem, variant)
        if self.split is not None and algorithm.aligned(variant):
            x = Operand(allocate(self.split.bytes), self.split)
            before.append(split(self.x, x, self.problem.pads, self.target, self.threads))
        elif convert_x:
            x = Operand(planes(self.planes[0].bytes), self.planes[0])
            before.append(self._copy(self.x, x))
        pooled = self.unpooled is not None and not algorithm.pools(variant)
        if convert_y or pooled:
            own = self.planes[1] if convert_y or self.unpooled is None else self.unpooled
            y = Operand(planes(own.bytes), own)
            after.append(self._pool(y, self.y) if pooled else self._copy(y, self.y))
        if residual is not None and ((self.in_place and not algorithm.in_place) or y is not self.y):
            source, layout = residual, residual.layout if y is self.y else self.planes[1]
            residual = Operand(allocate(layout.bytes), layout)
            before.append(self._copy(source, residual))
        site = Site(x, y, residual, self.target, self.threads, allocate)
        return (*before, *algorithm.build(self.problem, variant, site), *after)

    def _copy(self, x: Operand, y: Operand) -> Call:
        return copy(x, y, target=self.target, threads=self.threads)

    def _pool(self, x: Operand, y: Operand) -> Call:
        return max_pool(x, y, POOL, target=self.target, threads=self.threads)

    @property
    def in_place(self) -> bool:
        """Whether the output takes the residual's memory."""
        return self.residual is not None and self.residual.address == self.y.address


@dataclass(frozen=True)
class Choice:
    """The selector's answer for a layer."""

    algorithm: str
    variant: str
    how: str
    candidates: tuple[Candidate, ...] = ()


Chooser = Callable[[str, ConvSite], Choice]


def problem_of(network: Network, node: Node) -> ConvProblem:
    """The node as a `ConvProblem`, made once; 1-D convolutions become 2-D ones with H = R = 1."""
    key = node.outputs[0]
    if key not in network.problems:
        network.problems[key] = _problem(network, node)
    return network.problems[key]


def _problem(network: Network, node: Node) -> ConvProblem:
    n, c, h, w = network.image_shape(node.inputs[0])
    weights = network.constant(node.inputs[1])
    assert weights is not None
    strides, pads, dilations = (tuple(node.attr(key)) for key in ("strides", "pads", "dilations"))
    if weights.ndim == 3:
        weights = weights[:, :, None, :]
        strides, pads, dilations = (1, *strides), (0, pads[0], 0, pads[1]), (1, *dilations)
    bias = node.input(2)
    return ConvProblem(
        n, c, h, w, weights,
        network.constant(bias) if bias else None,
        strides, pads, dilations,
        int(node.attr("group", 1)),
        node.attr("activation"),
        bool(node.input(3)),
        network.read_in_place(node.inputs[0], node),
        network.written_in_place(node.outputs[0]) and not node.input(3),
        network.rectified(node.inputs[0]),
        _better_bare(network, node, max(pads[1], pads[3])),
        network.pool_after(node) is not None,
    )  # fmt: skip


def _better_bare(network: Network, node: Node, padding: int) -> bool:
    """Whether a depthwise layer, which can do without, leaves its input no padding, for its neighbours' sake.

    Most are pointwise and pass over all of a plane: 14x14 pixels take 13 vectors, with padding 14.
    """
    x, lanes = node.inputs[0], network.target.lanes
    _, channels, height, width = network.image_shape(x)
    neighbour = network.producers.get(x)
    if not 1 < channels == node.attr("group", 1) or neighbour is None or neighbour.op != "Conv":
        return False
    padded = -(-((height - 1) * (width + padding) + width) // lanes)
    return padded >= BARE_SAVES * -(-height * width // lanes)


def accepts(network: Network, node: Node) -> bool:
    """Whether the native path can do this Conv: float32 images and constant weights."""
    data = [name for name in (node.inputs[0], node.input(3), node.outputs[0]) if name]
    weights, bias = network.constant(node.inputs[1]), node.input(2)
    if not network.images(*data) or weights is None or (bias and network.constant(bias) is None):
        return False
    activation = node.attr("activation")
    return (
        weights.dtype == "float32" and (not activation or activation[0] in ACTIVATIONS) and weights.size > 0
    )


def _own_key(node: Node) -> tuple[str, str]:
    """What the geometry calls the layer's own planes, with room for the padding."""
    return ("own", node.outputs[0])


def _split_key(node: Node) -> tuple[str, str]:
    """What it calls the input split by strides."""
    return ("split", node.outputs[0])


def shape_geometry(network: Network, node: Node) -> None:
    """Join the planes that taps connect, and ask for room for the padding."""
    x, y, residual = node.inputs[0], node.outputs[0], node.input(3)
    p = problem_of(network, node)
    geometry = network.geometry
    if residual:
        geometry.join(residual, y)
    top, left, bottom, right = p.pads
    own, split = _own_key(node), _split_key(node)
    if p.strided:
        height, width = p.split_size
        geometry.join(split, y)
        geometry.need(split, width, height)
    elif p.apart:
        geometry.need(own, p.Q, p.P)
    else:
        geometry.join(x, y)
    geometry.need(own if p.apart else x, p.W + max(left, right), p.H + max(top, bottom), top, left)


def lower(network: Network, node: Node, choose: Chooser) -> None:
    """One step: the chosen algorithm's calls."""
    problem = problem_of(network, node)
    x, residual = node.inputs[0], node.input(3)
    split = None
    if problem.strided:
        shape = (problem.N, problem.C, *problem.split_size)
        split = network.geometry.layout(_split_key(node), shape, problem.strides, problem.phases)
    source = network.image(x) if problem.plain_input else network.planar(x)
    residual_operand = network.planar(residual) if residual else None
    if residual and network.replaceable(residual, node) and network.homes[residual].buffer != source.buffer:
        y = network.replace(residual, node.outputs[0])
    elif problem.plain_output:
        y = network.result(node.outputs[0])
    else:
        pool = network.pool_after(node)
        y = network.output(pool.outputs[0] if pool else node.outputs[0])
    own = _own_key(node) if problem.apart else None
    site = ConvSite(
        problem,
        source,
        y,
        residual_operand,
        (network.planar_layout(x, own), network.planar_layout(node.outputs[0], own)),
        split,
        network.target,
        network.threads,
        network.emitted,
        network.planar_layout(node.outputs[0]) if problem.pooled else None,
    )
    choice = choose(node.name or node.outputs[0], site)
    algorithm = ALGORITHMS[choice.algorithm]
    network.emit(*site.calls(algorithm, choice.variant, network.workspace, network.temporary))
    network.finish_step(
        node,
        algorithm=choice.algorithm,
        variant=choice.variant,
        how=choice.how,
        candidates=choice.candidates,
        summary=summary(problem),
    )


def summary(p: ConvProblem) -> str:
    """The layer in a few words, e.g. ``64x56x56 -> 64, 3x3, 10 % dense``."""
    stride = f"/{p.strides[0]}" if p.strided else ""
    group = f", {p.groups} groups" if p.groups > 1 else ""
    pool = ", max of 2x2" if p.pooled else ""
    return f"{p.C}x{p.H}x{p.W} -> {p.K}, {p.R}x{p.S}{stride}{group}{pool}, {100 * p.density:.0f} % dense"
