"""Running a network over calibration images piece by piece, keeping only the values that are still needed.

Reconstruction goes from layer to layer and changes weights on the way, so each node runs once per batch with
the weights of that moment. What runs the pieces is a parameter: the NumPy interpreter, or a faster engine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from zeroskip.errors import InputError
from zeroskip.graph.ir import Graph, Node
from zeroskip.graph.operator import Array

Runner = Callable[[Graph, Mapping[str, Array]], Sequence[Array]]
"""Runs a graph on named inputs and returns its outputs in order, as `zeroskip.graph.evaluate` does."""

Calibration = Array | Mapping[str, Array] | Iterable[Any]
"""Images of a network with one input; or inputs by name; or an iterable of batches of either."""


def batches(graph: Graph, calibration: Calibration, size: int) -> list[dict[str, Array]]:
    """The calibration images as batches of named inputs, checked against the graph's inputs.

    An array or a mapping is cut into batches of `size` (of the network's own batch size where that is fixed);
    an iterable is taken batch by batch as it comes. Raises `InputError` for wrong names, types or shapes, for
    NaN or infinite values, or when there are no images.
    """
    if isinstance(calibration, np.ndarray | Mapping):
        whole = _named(graph, calibration)
        fixed = [graph.values[name].shape for name in graph.inputs]
        own = next((shape[0] for shape in fixed if shape and isinstance(shape[0], int)), size)
        count = min((len(array) for array in whole.values()), default=0)
        found = [
            {name: array[start : start + own] for name, array in whole.items()}
            for start in range(0, count, own)
        ]
        if found and own != size and count % own:
            found.pop()  # the network takes no smaller batch
    else:
        found = [_named(graph, batch) for batch in calibration]
    if not found or not all(array.size for batch in found for array in batch.values()):
        raise InputError("calibration has no images; expected at least one batch, better 100 images or more")
    for batch in found:
        _check(graph, batch)
    return found


def _named(graph: Graph, batch: Any) -> dict[str, Array]:
    if isinstance(batch, Mapping):
        named = {str(name): np.asarray(array) for name, array in batch.items()}
    elif len(graph.inputs) == 1:
        named = {graph.inputs[0]: np.asarray(batch)}
    else:
        raise InputError(
            f"calibration is one array but the network has {len(graph.inputs)} inputs; pass mappings with "
            "the keys " + ", ".join(graph.inputs)
        )
    if set(named) != set(graph.inputs):
        raise InputError(
            f"calibration has inputs {sorted(named)}; expected the network's, {sorted(graph.inputs)}"
        )
    for name, array in named.items():
        if array.ndim == 0:
            raise InputError(
                f"calibration for input '{name}' is a single number; expected an array of images"
            )
    return named


def _check(graph: Graph, batch: Mapping[str, Array]) -> None:
    for name, array in batch.items():
        value = graph.values[name]
        wanted = value.shape
        fits = wanted is None or (
            len(wanted) == array.ndim
            and all(d == n for d, n in zip(wanted, array.shape, strict=True) if isinstance(d, int))
        )
        if not fits:
            raise InputError(
                f"calibration for input '{name}' has shape {array.shape}; expected {wanted} (a name stands "
                "for any size); prepare the images as for inference"
            )
        if array.dtype != value.dtype:
            raise InputError(
                f"calibration for input '{name}' has type {array.dtype}; expected {value.dtype}; convert it "
                f"with array.astype('{value.dtype}')"
            )
        if not np.isfinite(array).all():
            raise InputError(
                f"calibration for input '{name}' has NaN or infinite values; expected finite ones"
            )


class Store:
    """Arrays in memory up to `limit_bytes`, beyond it in temporary files, which closing removes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._count = 0
        self._files: dict[int, Path] = {}
        self._stack = ExitStack()
        self._folder: Path | None = None

    def put(self, array: Array) -> Array:
        """The array, or a read-only copy of it on disk when the memory is used up."""
        if self._used + array.nbytes <= self._limit:
            self._used += array.nbytes
            return array
        if self._folder is None:
            folder = tempfile.TemporaryDirectory(prefix="zeroskip-", ignore_cleanup_errors=True)
            self._folder = Path(self._stack.enter_context(folder))
        path = self._folder / f"{self._count}.npy"
        self._count += 1
        np.save(path, array)
        stored: Array = np.load(path, mmap_mode="r")
        self._files[id(stored)] = path
        return stored

    def drop(self, array: Array) -> None:
        """Forget an array that `put` returned."""
        path = self._files.pop(id(array), None)
        if path is None:
            self._used -= array.nbytes
        else:
            with suppress(OSError):  # still mapped, where that forbids it: closing removes it later
                path.unlink()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


class Walk:
    """One network on its way through the calibration batches.

    `constants` may change between calls of `advance`; a node uses those of the moment when it runs.
    """

    def __init__(
        self, graph: Graph, inputs: Sequence[Mapping[str, Array]], run: Runner, store: Store
    ) -> None:
        self.constants = dict(graph.constants)
        self._graph = graph
        self._run = run
        self._store = store
        self._pending = dict(enumerate(graph.nodes))
        self._producer = {out: index for index, node in enumerate(graph.nodes) for out in node.outputs if out}
        self._inputs = set(graph.inputs)
        self._live: list[dict[str, Array]] = [dict(batch) for batch in inputs]

    def advance(self, name: str) -> None:
        """Run what `name` depends on, for every batch, and forget what nothing will read any more."""
        if name in self._live[0] or name in self.constants:
            return
        nodes = self._needed(name)
        later = {read for node in self._pending.values() for read in node.inputs} | {name}
        produced = [out for node in nodes for out in node.outputs if out]
        outputs = tuple(out for out in produced if out in later)
        feeds = tuple(dict.fromkeys(read for node in nodes for read in node.inputs if read in self._live[0]))
        piece = self._piece(nodes, feeds, outputs)
        for live in self._live:
            answers = self._run(piece, {feed: live[feed] for feed in feeds})
            for output, answer in zip(outputs, answers, strict=True):
                live[output] = self._store.put(np.ascontiguousarray(answer))
            for old in [held for held in live if held not in later]:
                array = live.pop(old)
                if old not in self._inputs:
                    self._store.drop(array)

    def value(self, name: str, batch: int) -> Array:
        """The value of `name` for one batch; `advance` must have reached it."""
        return self._live[batch][name] if name in self._live[batch] else self.constants[name]

    def _needed(self, name: str) -> list[Node]:
        """The nodes that must still run for `name`, in order; they count as run from here on."""
        wanted, indices = [name], set()
        while wanted:
            current = wanted.pop()
            index = self._producer.get(current)
            if current in self._live[0] or index is None or index in indices:
                continue
            indices.add(index)
            wanted.extend(read for read in self._graph.nodes[index].inputs if read)
        return [self._pending.pop(index) for index in sorted(indices)]

    def _piece(self, nodes: list[Node], feeds: tuple[str, ...], outputs: tuple[str, ...]) -> Graph:
        names = {name for node in nodes for name in (*node.inputs, *node.outputs) if name}
        return Graph(
            name=self._graph.name,
            nodes=tuple(nodes),
            inputs=feeds,
            outputs=outputs,
            values={name: value for name, value in self._graph.values.items() if name in names},
            constants={name: value for name, value in self.constants.items() if name in names},
        )
