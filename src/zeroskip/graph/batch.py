"""Whether a network treats the images of a batch apart, so that they may be run a few at a time.

And from where on all of them are better run at once: where it only multiplies by matrices, which are read for
each run, whatever its images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operators.elementwise import ROWS

# What may stand among products at a network's end; together their matrices have at least so many bytes.
AMONG_PRODUCTS = frozenset(
    ["Gemm", "MatMul", "Flatten", "Reshape", "Squeeze", "Softmax", "LogSoftmax", *(row.name for row in ROWS)]
)
LEAST_BYTES = 64 << 10


def per_image(graph: Graph) -> bool:
    """Whether output i of a bound graph, along its leading axis, depends on input i alone.

    All inputs must have the same leading size, of at least 2. False where an operator is not known to keep
    images apart.
    """
    sizes = [graph.values[name].sizes for name in graph.inputs]
    images = {shape[0] if shape else 0 for shape in sizes}
    if len(images) != 1 or (count := images.pop()) < 2:
        return False
    batched = set(graph.inputs)
    for node in graph.nodes:
        if batched.isdisjoint(node.inputs):
            continue
        outputs = [name for name in node.outputs if name]
        leading = all(graph.values[name].sizes[:1] == (count,) for name in outputs)
        rule = _RULES.get(node.op)
        if rule is None or not leading or not rule(_Use(graph, node, frozenset(batched))):
            return False
        batched.update(outputs)
    return batched.issuperset(graph.outputs)


def split_products(graph: Graph) -> tuple[Graph, Graph] | None:
    """The network up to the matrix products at its end, and these, which take one value from it.

    None where there are no such products, or nothing before them.
    """
    nodes, cut, passed = graph.nodes, 0, ""
    made: set[str] = set()
    for i in reversed(range(1, len(nodes))):
        if nodes[i].op not in AMONG_PRODUCTS:
            break
        made.update(nodes[i].outputs)
        read = {name for node in nodes[i:] for name in node.inputs if name} - made - set(graph.constants)
        if len(read) == 1:
            cut, (passed,) = i, read
    rest = nodes[cut:]
    matrices = {name for node in rest if node.op in ("Gemm", "MatMul") for name in node.inputs}
    size = sum(graph.constants[name].nbytes for name in matrices if name in graph.constants)
    if all(node.op in AMONG_PRODUCTS for node in nodes[:cut]) or size < LEAST_BYTES:
        return None
    last = {name for node in rest for name in node.outputs}
    early = tuple(name for name in graph.outputs if name not in last and name != passed)
    outputs = tuple(name for name in graph.outputs if name in last)
    return (
        _part(graph, nodes[:cut], graph.inputs, (passed, *early)),
        _part(graph, rest, (passed,), outputs),
    )


def _part(graph: Graph, nodes: tuple[Node, ...], inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
    """Some nodes of a graph as a graph of their own."""
    used = {*inputs, *outputs, *(name for node in nodes for name in (*node.inputs, *node.outputs))}
    return graph.with_(
        nodes=nodes,
        inputs=inputs,
        outputs=outputs,
        values={name: value for name, value in graph.values.items() if name in used},
        constants={name: array for name, array in graph.constants.items() if name in used},
    )


@dataclass(frozen=True)
class _Use:
    """A node and which values hold a batch."""

    graph: Graph
    node: Node
    batched: frozenset[str]

    def rank(self, index: int = 0) -> int:
        return len(self.graph.values[self.node.inputs[index]].sizes)

    def only(self, *indices: int) -> bool:
        """Whether no inputs but these hold a batch, and the first one does."""
        holding = {i for i, name in enumerate(self.node.inputs) if name in self.batched}
        return 0 in holding and holding <= set(indices)

    def apart(self, axis: int, rank: int | None = None) -> bool:
        return axis % (self.rank() if rank is None else rank) != 0

    def axes(self, index: int, rank: int | None = None) -> bool:
        """Whether the axes that input `index` lists are there and do not include the leading one."""
        array = self.graph.constants.get(self.node.input(index) or "")
        return array is not None and array.size > 0 and all(self.apart(int(a), rank) for a in array.flat)

    def spreads(self, index: int, rank: int) -> bool:
        """Whether an input without a batch is the same for all images, in a result of this rank."""
        shape = self.graph.values[self.node.inputs[index]].sizes
        return len(shape) < rank or shape[0] == 1


def _elementwise(use: _Use) -> bool:
    rank = len(use.graph.values[use.node.outputs[0]].sizes)
    numbers = [i for i, name in enumerate(use.node.inputs) if name]
    return all(
        use.rank(i) == rank if use.node.inputs[i] in use.batched else use.spreads(i, rank) for i in numbers
    )


def _alone(use: _Use) -> bool:
    return use.only(0)


def _along(default: int) -> Callable[[_Use], bool]:
    return lambda use: use.only(0) and use.apart(int(use.node.attr("axis", default)))


def _concat(use: _Use) -> bool:
    every = range(len(use.node.inputs))
    return all(name in use.batched for name in use.node.inputs) and use.only(*every) and _axis(use)


def _axis(use: _Use) -> bool:
    return use.apart(int(use.node.attr("axis", 0)))


def _pad(use: _Use) -> bool:
    pads = use.graph.constants.get(use.node.input(1) or "")
    if not use.only(0) or pads is None:
        return False
    return use.axes(3) if use.node.input(3) else not (pads[0] or pads[use.rank()])


def _gemm(use: _Use) -> bool:
    return use.only(0) and not use.node.attr("transA", 0) and (not use.node.input(2) or use.spreads(2, 2))


def _new_rank(use: _Use) -> bool:
    return use.only(0) and use.axes(1, len(use.graph.values[use.node.outputs[0]].sizes))


_APART = (
    "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "LRN",
    "BatchNormalization", "InstanceNormalization", "DepthToSpace", "SpaceToDepth", "Reshape", "Expand",
    "Resize",
)  # fmt: skip

_RULES: dict[str, Callable[[_Use], bool]] = {
    **{row.name: _elementwise for row in ROWS},
    **dict.fromkeys(_APART, _alone),
    "Conv": lambda use: use.only(0, 3),
    "Softmax": _along(-1),
    "LogSoftmax": _along(-1),
    "LayerNormalization": _along(-1),
    "Split": _along(0),
    "Gather": _along(0),
    "Concat": _concat,
    "ReduceMean": lambda use: use.only(0) and use.axes(1),
    "ReduceSum": lambda use: use.only(0) and use.axes(1),
    "ReduceMax": lambda use: use.only(0) and use.axes(1),
    "Squeeze": lambda use: use.only(0) and use.axes(1),
    "Unsqueeze": _new_rank,
    "Slice": lambda use: use.only(0) and use.axes(3),
    "Pad": _pad,
    "Transpose": lambda use: use.only(0) and next(iter(use.node.attr("perm", (1,)))) == 0,
    "Flatten": lambda use: use.only(0) and int(use.node.attr("axis", 1)) == 1,
    "Gemm": _gemm,
    "MatMul": lambda use: use.only(0) and use.rank() >= 2 and use.rank(1) == 2,
}
