"""The session: a network ready to run, shaped like onnxruntime's."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import index
from typing import Any

import numpy as np

from zeroskip.codegen import resolve
from zeroskip.codegen.runtime import ThreadPool, can_thread
from zeroskip.conv import find
from zeroskip.engine.batches import Batches
from zeroskip.engine.feeds import checked, wanted
from zeroskip.engine.plan import Array, Plan
from zeroskip.engine.runner import Runner, Shapes
from zeroskip.errors import InputError, ModelError
from zeroskip.graph import Graph, ModelFile, Value, bind, per_image, shape_inputs, simplify, split_products


@dataclass(frozen=True)
class SessionOptions:
    """How a session runs.

    Args:
        threads: worker threads, the caller's included; 0 means all processors this process may use.
        algorithm: ``"auto"``, or the convolution algorithm (`zs.algorithms()`) to force on every layer.
        prefer: ``"auto"``, or the convolution algorithm to force on the layers that it accepts.
        target: ``"host"``, or an x86-64 level such as ``"x86-64-v3"`` that this machine can run.
        tune: measure the candidates of layers that the tuning store does not know.
        shapes: input name to shape, for preparing a plan when the session opens; else a symbolic first
            dimension (the batch) is 1, and where others are symbolic the plan is made at the first run.
        calibration: input name to array, on which tuning measures; else standard normal numbers.
        progress: called as progress(done, total, step name) while tuning.
    """

    threads: int = 1
    algorithm: str = "auto"
    prefer: str = "auto"
    target: str = "host"
    tune: bool = False
    shapes: Mapping[str, Sequence[int]] | None = None
    calibration: Mapping[str, Array] | None = None
    progress: Callable[[int, int, str], None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class NodeArg:
    """An input or output: its name, shape (numbers, symbols or None) and type, e.g. ``tensor(float)``."""

    name: str
    shape: list[int | str | None]
    type: str


_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "float16",
    "bool": "bool",
    "bfloat16": "bfloat16",
}


def _node_arg(value: Value) -> NodeArg:
    kind = value.dtype.name
    return NodeArg(value.name, list(value.shape or ()), f"tensor({_TYPES.get(kind, kind)})")


class InferenceSession:
    """A network, compiled for this machine.

    Args:
        model: a path, the bytes of an ONNX file, or a `Graph`.
        options: see `SessionOptions`.

    Raises:
        ModelError: the model cannot be read or run.
        AlgorithmError: a forced algorithm refuses a layer.
        InputError: an option is wrong.

    `run` may be called from several threads at once, with any batch size; the inputs are never modified.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | Graph,
        options: SessionOptions | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise InputError(f"InferenceSession takes (model, options); got {', '.join(unknown)} as well")
        if options is not None and not isinstance(options, SessionOptions):
            raise InputError(f"options: expected SessionOptions, got {type(options).__name__}")
        self.options = options or SessionOptions()
        self._threads = _thread_count(self.options.threads)
        self._target = resolve(self.options.target)
        for name in {self.options.algorithm, self.options.prefer} - {"auto"}:
            find(name)
        if not isinstance(model, str | os.PathLike | bytes | bytearray | memoryview | Graph):
            kind = type(model).__name__
            raise InputError(f"model: expected a path, an ONNX file's bytes or a Graph, got {kind}")
        self._source = model if isinstance(model, Graph) else ModelFile(model)
        self._pool = ThreadPool(self._threads) if self._threads > 1 else None
        graph = self.graph
        self._declared = graph.with_(constants={})
        self._whole = self._runner(simplify(graph))
        self._shape_inputs = shape_inputs(graph)
        del graph  # the plan has its own form of the weights
        self._batches: Batches | None = None
        self._apart: dict[object, bool] = {}
        self._lock = threading.RLock()
        shapes = self._opening_shapes()
        self._latest = None if shapes is None else self._prepare(shapes)

    @property
    def graph(self) -> Graph:
        """The network as it was given or is in its file, which is read again: its weights are not kept."""
        return _network(self._source)

    # -- what onnxruntime's sessions have --------------------------------------------------------------------

    def get_inputs(self) -> list[NodeArg]:
        """The inputs, in order."""
        return [_node_arg(self._declared.values[name]) for name in self._declared.inputs]

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in order."""
        return [_node_arg(self._declared.values[name]) for name in self._declared.outputs]

    def run(self, output_names: Sequence[str] | None, inputs: Mapping[str, Array]) -> list[Array]:
        """The named outputs (all where `output_names` is None) for these inputs, as new arrays.

        Raises `InputError` for a missing, unknown or mistyped input, a wrong shape, or an unknown output.
        """
        arrays = checked(self._declared, inputs)
        names = wanted(self._declared, output_names)
        images = self._images_at_once({name: array.shape for name, array in arrays.items()})
        if images is None:
            numbers = {name: arrays.pop(name) for name in self._shape_inputs}
            outputs, self._latest = self._whole.run(arrays, numbers)
        else:
            outputs, self._latest = self._in_parts().run(arrays, images)
        return [outputs[name] for name in names]

    @property
    def plan(self) -> Plan:
        """What runs where, for the latest shapes; in large batches for the images that run at once."""
        if self._latest is None:
            raise InputError(
                "this network has no plan yet, since its input shapes are symbolic; call run first"
            )
        return self._latest

    # -- making plans ----------------------------------------------------------------------------------------

    def _opening_shapes(self) -> dict[str, tuple[int, ...]] | None:
        if self.options.shapes is not None:
            return {name: _sizes(name, shape) for name, shape in self.options.shapes.items()}
        if self.options.calibration is not None:
            return {name: np.shape(array) for name, array in self.options.calibration.items()}
        if self._shape_inputs:
            return None
        shapes = {}
        for name in self._declared.inputs:
            shape = self._declared.values[name].shape
            if shape is None or any(not isinstance(size, int) for size in shape[1:]):
                return None
            shapes[name] = tuple(size if isinstance(size, int) else 1 for size in shape)
        return shapes

    def _prepare(self, shapes: Shapes) -> Plan:
        images = self._images_at_once(shapes)
        if images is None:
            return self._whole.ready(shapes, {}).plan
        return self._in_parts().prepare(shapes, images)

    def _images_at_once(self, shapes: Shapes) -> int | None:
        """How many images of a batch to run at once; None: all of them."""
        declared = [self._declared.values[name].shape for name in self._declared.inputs]
        counts = {shape[0] if shape else 1 for shape in shapes.values()}
        count = counts.pop() if len(counts) == 1 else 1
        fixed = any(not shape or isinstance(shape[0], int) for shape in declared)
        if count < 2 or fixed or self._shape_inputs or set(shapes) != set(self._declared.inputs):
            return None
        key = tuple(sorted((name, shape[1:]) for name, shape in shapes.items()))
        with self._lock:
            if key not in self._apart:
                self._apart[key] = self._keeps_images_apart(dict(key))
        if not self._apart[key]:
            return None
        images = self._in_parts().images(shapes)
        return images if images < count else None

    def _keeps_images_apart(self, image: Shapes) -> bool:
        graph = self._whole.fresh or self._whole.read()
        try:
            return per_image(bind(graph, {name: (2, *shape) for name, shape in image.items()}))
        except (ModelError, InputError):  # it takes no two images, or none of this shape
            return False

    def _in_parts(self) -> Batches:
        """What runs large batches."""
        with self._lock:
            if self._batches is None:
                parts = split_products(self._whole.fresh or self._whole.read())
                self._batches = Batches(self._whole, None)
                if parts is not None:
                    self._whole.fresh = None
                    self._batches = Batches(self._runner(parts[0], 0), self._runner(parts[1], 1))
            return self._batches

    def _runner(self, fresh: Graph, part: int | None = None) -> Runner:
        return Runner(
            partial(_simplified, self._source, part),  # no method: a session goes with its last user
            fresh,
            fresh.inputs,
            self.options,
            self._target,
            self._threads,
            self._pool,
            bool({self.options.algorithm, self.options.prefer} - {"auto"}),
        )


def _network(source: Graph | ModelFile) -> Graph:
    return source if isinstance(source, Graph) else source.read()


def _simplified(source: Graph | ModelFile, part: int | None) -> Graph:
    """The network, simplified, or a part of it: up to its last matrix products, or these."""
    graph = simplify(_network(source))
    parts = None if part is None else split_products(graph)
    return graph if part is None or parts is None else parts[part]


def _sizes(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(map(index, shape))
    except TypeError:
        raise InputError(f"shapes: expected whole numbers for input {name!r}, got {shape!r}") from None


def _thread_count(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise InputError(f"threads: expected a number from 0 (all processors) up, got {threads!r}")
    if threads == 0:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads if can_thread else 1
