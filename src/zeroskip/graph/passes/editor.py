"""A graph being rewritten: nodes can be replaced, removed and redirected while their readers stay known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from zeroskip.graph.infer import infer_node, value_of
from zeroskip.graph.ir import Graph, Node, Value
from zeroskip.graph.operator import Array, merge


class Editor:
    """Mutable view of one graph for the length of one pass; `finish` gives the new graph.

    A node is identified by its first output. New nodes take the place of an old one, so the order stays
    topological as long as a replacement reads only what stands before that place.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[str, Value] = dict(graph.values)
        self.constants: dict[str, Array] = dict(graph.constants)
        self.changes = 0
        self._nodes: dict[str, Node] = {node.outputs[0]: node for node in graph.nodes}
        self._maker: dict[str, str] = {}
        self._readers: dict[str, dict[str, None]] = {}
        self._outputs = list(graph.outputs)
        self._kept = set(graph.outputs)
        for node in graph.nodes:
            self._link(node)

    def _link(self, node: Node) -> None:
        key = node.outputs[0]
        for out in node.outputs:
            if out:
                self._maker[out] = key
        for name in node.inputs:
            if name:
                self._readers.setdefault(name, {})[key] = None

    def _unlink(self, node: Node) -> None:
        key = node.outputs[0]
        for out in node.outputs:
            if self._maker.get(out) == key:
                del self._maker[out]
        for name in set(node.inputs):
            self._readers.get(name, {}).pop(key, None)

    def nodes(self, backwards: bool = False) -> Iterator[Node]:
        """The nodes in order, each as it stands when its turn comes; removed ones are skipped."""
        keys = list(self._nodes)
        for key in reversed(keys) if backwards else keys:
            node = self._nodes.get(key)
            if node is not None:
                yield node

    def producer(self, name: str) -> Node | None:
        """The node that computes a value, if a node does."""
        key = self._maker.get(name)
        return None if key is None else self._nodes[key]

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a value."""
        return [self._nodes[key] for key in self._readers.get(name, ())]

    def is_output(self, name: str) -> bool:
        """Whether the network returns this value."""
        return name in self._kept

    def private(self, name: str) -> bool:
        """Whether exactly one node reads the value, through one input, and the network does not return it."""
        readers = self.readers(name)
        return len(readers) == 1 and readers[0].inputs.count(name) == 1 and name not in self._kept

    def only_reader(self, name: str) -> Node | None:
        """The single reader of a private value."""
        return self.readers(name)[0] if self.private(name) else None

    def constant(self, name: str) -> Array | None:
        """The value's number where it is constant."""
        return self.constants.get(name)

    def scalar(self, name: str) -> float | None:
        """The value where it is a constant with one element."""
        array = self.constants.get(name)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def add_constant(self, base: str, array: Array) -> str:
        """A new constant; its name begins with `base`."""
        name = self._fresh(base)
        self.constants[name] = array
        self.values[name] = value_of(name, array)
        return name

    def add_value(self, base: str, shape: tuple[Any, ...] | None, dtype: np.dtype[Any]) -> str:
        """A new value for a node's output; its name begins with `base`."""
        name = self._fresh(base)
        self.values[name] = Value(name, shape, dtype)
        return name

    def _fresh(self, base: str) -> str:
        name, number = base, 0
        while name in self.values:
            number += 1
            name = f"{base}_{number}"
        return name

    def replace(self, old: Node, *new: Node) -> None:
        """Put `new` where `old` stands; the last one computes what `old` computed.

        Nodes that only `old` read, directly or through each other, go with it.
        """
        self._unlink(old)
        if len(new) == 1 and new[0].outputs[0] == old.outputs[0]:
            self._nodes[old.outputs[0]] = new[0]
        else:
            rebuilt: dict[str, Node] = {}
            for key, node in self._nodes.items():
                if key == old.outputs[0]:
                    rebuilt.update((n.outputs[0], n) for n in new)
                else:
                    rebuilt[key] = node
            self._nodes = rebuilt
        for node in new:
            self._link(node)
            self.retype(node)
        self.changes += 1
        for name in old.inputs:
            self._sweep(name)

    def _sweep(self, name: str) -> None:
        """Remove the producer of a value, and what only it read, if nothing reads it any more."""
        maker = self.producer(name)
        if maker is None or any(self._readers.get(out) or out in self._kept for out in maker.outputs):
            return
        self.remove(maker)
        for before in maker.inputs:
            self._sweep(before)

    def retype(self, node: Node) -> None:
        """Infer the node's outputs again, keeping what was known and inference cannot see."""
        for value in infer_node(node, self.values, self.constants):
            old = self.values.get(value.name)
            if old is not None and old.shape is not None and not value.static:
                if value.shape is None or len(value.shape) != len(old.shape):
                    continue
                value = Value(value.name, tuple(map(merge, value.shape, old.shape)), value.dtype)
            self.values[value.name] = value

    def remove(self, node: Node) -> None:
        """Take a node away; nothing may read it any more."""
        self._unlink(node)
        del self._nodes[node.outputs[0]]
        self.changes += 1

    def fold(self, node: Node, arrays: dict[str, Array]) -> None:
        """Replace a node by constants."""
        self.remove(node)
        for name, array in arrays.items():
            self.constants[name] = array
            self.values[name] = value_of(name, array)

    def bypass(self, node: Node, source: str) -> bool:
        """Let readers of the node's first output read `source` instead, and take the node away.

        A graph output keeps its name: then `source`'s producer takes over the name, which is possible only
        where `source` is computed by a node and is not itself an output. Returns whether it was done.
        """
        out = node.outputs[0]
        if any(self._readers.get(o) or o in self._kept for o in node.outputs[1:] if o):
            return False
        if out in self._kept:
            maker = self.producer(source)
            if maker is None or source in self._kept:
                return False
            self.remove(node)
            self.values[out] = Value(out, self.values[source].shape, self.values[source].dtype)
            self._rename_output(maker, source, out)
            return True
        self.remove(node)
        self._redirect(out, source)
        return True

    def _redirect(self, old: str, new: str) -> None:
        for reader in self.readers(old):
            changed = reader.with_(inputs=tuple(new if name == old else name for name in reader.inputs))
            self._unlink(reader)
            self._nodes[reader.outputs[0]] = changed
            self._link(changed)

    def _rename_output(self, maker: Node, old: str, new: str) -> None:
        changed = maker.with_(outputs=tuple(new if name == old else name for name in maker.outputs))
        self._unlink(maker)
        self._nodes = {
            changed.outputs[0] if key == maker.outputs[0] else key: changed if node is maker else node
            for key, node in self._nodes.items()
        }
        self._link(changed)
        self._redirect(old, new)

    def finish(self) -> Graph:
        """The graph as edited; the original one where nothing changed."""
        if not self.changes:
            return self.graph
        nodes = tuple(self._nodes.values())
        defined = {*self.graph.inputs, *(out for node in nodes for out in node.outputs if out)}
        used = {name for node in nodes for name in node.inputs} | set(self._outputs)
        constants = {name: array for name, array in self.constants.items() if name in used}
        values = {name: v for name, v in self.values.items() if name in defined or name in constants}
        return self.graph.with_(nodes=nodes, values=values, constants=constants)
