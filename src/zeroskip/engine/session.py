"""The session: a network ready to run, shaped like onnxruntime's."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

import numpy as np

from zeroskip.codegen import Call, resolve
from zeroskip.codegen.compile import short_turns, uncollected
from zeroskip.codegen.runtime import ThreadPool, can_thread
from zeroskip.codegen.target import SECOND_CACHE, runs_here
from zeroskip.conv import find
from zeroskip.engine import store
from zeroskip.engine.convolutions import Choice, ConvSite
from zeroskip.engine.executor import Context
from zeroskip.engine.lowering import lower, problems_of
from zeroskip.engine.memory import give_back, memory_limit
from zeroskip.engine.network import Network, check_size
from zeroskip.engine.plan import Array, Plan
from zeroskip.engine.prepare import prepare
from zeroskip.engine.selection import Selector
from zeroskip.engine.tuning import Tuner
from zeroskip.errors import InputError, ModelError
from zeroskip.graph import Graph, ModelFile, Value, per_image, shape_inputs, simplify

PLANS_KEPT = 8
"""Plans for as many input shapes are kept; the least recently used goes first."""
PASSES = 4
"""More images are where the matrices of fully connected layers, which are read for each anew, take so many
times the bytes of their activations: a VGG-16's 494 MB are read once for four images (1.15 times as fast)."""


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


class _Ready:
    """A plan with its contexts; each run takes one, so that runs may go on side by side."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._free: list[Context] = []
        self._lock = threading.Lock()

    def take(self) -> Context:
        with self._lock:
            if self._free:
                return self._free.pop()
        try:
            return Context(self.plan)
        except MemoryError as error:
            raise _too_large(self.plan.arena_bytes + self.plan.workspace_bytes) from error

    def give(self, context: Context) -> None:
        with self._lock:
            self._free.append(context)

    def prepare(self) -> None:
        """Have one context ready, and the kernels compiled."""
        context = self.take()
        context.prepare()
        self.give(context)


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
        self._forced = {self.options.algorithm, self.options.prefer} - {"auto"}
        for name in self._forced:
            find(name)
        if not isinstance(model, str | os.PathLike | bytes | bytearray | memoryview | Graph):
            kind = type(model).__name__
            raise InputError(f"model: expected a path, an ONNX file's bytes or a Graph, got {kind}")
        self._source = model if isinstance(model, Graph) else ModelFile(model)
        graph = self.graph
        self._fresh: Graph | None = simplify(graph)
        self._declared = graph.with_(constants={})
        self._shape_inputs = shape_inputs(self._fresh)
        del graph  # the plan has its own form of the weights
        self._plans: OrderedDict[object, _Ready] = OrderedDict()
        self._at_once: dict[object, int] = {}
        self._lock = threading.RLock()
        self._pool = ThreadPool(self._threads) if self._threads > 1 else None
        self._latest: Plan | None = None
        shapes = self._opening_shapes()
        if shapes is not None:
            self._ready(self._first_part(shapes), {})

    @property
    def graph(self) -> Graph:
        """The network as it was given or is in its file, which is read again: its weights are not kept."""
        return self._source if isinstance(self._source, Graph) else self._source.read()

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
        arrays = self._checked(inputs)
        wanted = self._wanted(output_names)
        images = self._images_at_once({name: array.shape for name, array in arrays.items()})
        if images is None:
            outputs = self._run(arrays)
            return [outputs[name] for name in wanted]
        count = len(next(iter(arrays.values())))
        parts = [
            self._run({name: array[i : i + images] for name, array in arrays.items()})
            for i in range(0, count, images)
        ]
        return [np.concatenate([part[name] for part in parts]) for name in wanted]

    def _run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        shapes = {name: array.shape for name, array in arrays.items()}
        numbers = {name: arrays[name] for name in self._shape_inputs}
        data = {name: array for name, array in arrays.items() if name not in numbers}
        ready = self._ready(shapes, numbers)
        context = ready.take()
        try:
            outputs = context.fresh_outputs()
            pool = self._pool if self._pool is not None and self._pool.lock.acquire(blocking=False) else None
            try:
                context.run(data, outputs, pool)
            finally:
                if pool is not None:
                    pool.lock.release()
        finally:
            ready.give(context)
        return outputs

    @property
    def plan(self) -> Plan:
        """The plan of the latest shapes (in large batches, of the images run at once): what runs where."""
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

    def _images_at_once(self, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
        """How many images of a batch to run at once for their activations to stay near; None: all of them."""
        declared = [self._declared.values[name].shape for name in self._declared.inputs]
        counts = {shape[0] if shape else 1 for shape in shapes.values()}
        count = counts.pop() if len(counts) == 1 else 1
        fixed = any(not shape or isinstance(shape[0], int) for shape in declared)
        if count < 2 or fixed or self._shape_inputs or set(shapes) != set(self._declared.inputs):
            return None
        rest = {name: shape[1:] for name, shape in shapes.items()}
        key = tuple(sorted(rest.items()))
        if key not in self._at_once:
            self._at_once[key] = 0
            if self._keeps_images_apart(rest):
                plan = self._ready({name: (1, *shape) for name, shape in rest.items()}, {}).plan
                # 16 images of a ResNet-50 take 1.5 times as long together as one after the other
                near = max(SECOND_CACHE, _product_bytes(plan) // PASSES)
                self._at_once[key] = max(1, near // max(1, plan.peak_bytes))
        images = self._at_once[key] or count
        parts = -(-count // images)
        return -(-count // parts) if parts > 1 else None

    def _keeps_images_apart(self, image: Mapping[str, tuple[int, ...]]) -> bool:
        try:
            return per_image(self._bound({name: (2, *shape) for name, shape in image.items()}, {}))
        except (ModelError, InputError):  # it takes no two images, or none of this shape
            return False

    def _first_part(self, shapes: Mapping[str, tuple[int, ...]]) -> Mapping[str, tuple[int, ...]]:
        images = self._images_at_once(shapes)
        return shapes if images is None else {name: (images, *shape[1:]) for name, shape in shapes.items()}

    def _ready(self, shapes: Mapping[str, tuple[int, ...]], numbers: Mapping[str, Array]) -> _Ready:
        key = (
            tuple(sorted(shapes.items())),
            tuple((name, array.tobytes()) for name, array in sorted(numbers.items())),
        )
        with self._lock:
            found = self._plans.get(key)
            if found is None:
                found = _Ready(self._make_plan(shapes, numbers))
                found.prepare()
                self._plans[key] = found
                give_back()
                while len(self._plans) > PLANS_KEPT:
                    self._plans.popitem(last=False)
            self._plans.move_to_end(key)
            self._latest = found.plan
            return found

    def _make_plan(self, shapes: Mapping[str, tuple[int, ...]], numbers: Mapping[str, Array]) -> Plan:
        network = Network(
            self._bound(shapes, numbers),
            self._target,
            self._threads,
            in_place=True,
            ahead=runs_here(self._target),
        )
        limit = memory_limit()
        check_size(network, limit)
        selector = Selector(self._target, self._threads, self.options.algorithm, self.options.prefer)
        forced = bool(self._forced)
        problems = problems_of(network, forced)
        selector.known = store.read(selector.key(problem) for problem in problems)
        tune = self.options.tune and not all(selector.measured(p) for p in problems)
        del problems  # what stays in memory of each layer is the form that its algorithm reads

        def choose(name: str, site: ConvSite) -> Choice:
            choice = selector.choose(name, site)
            if not tune:
                selector.layers.clear()
            return choice

        try:
            with uncollected(), short_turns:
                plan = lower(network, choose, forced, release=not tune)
            size = plan.arena_bytes + plan.workspace_bytes
            if limit is not None and size > limit:
                raise _too_large(size)
            if tune:
                selector.known |= self._tune(plan, selector)
                tune = False
                del plan
                selector.layers.clear()
                network = network.anew()  # the one that was lowered goes, with its form of the weights
                plan = lower(network, choose, forced, release=True)
        except MemoryError as error:
            name = self._declared.name or "the network"
            raise ModelError(f"{name} does not fit into memory: {error}") from error
        return plan

    def _bound(self, shapes: Mapping[str, tuple[int, ...]], numbers: Mapping[str, Array]) -> Graph:
        """The simplified network for these shapes; nobody else keeps its weights, unless it was a `Graph`."""
        simple, self._fresh = self._fresh or simplify(self.graph), None
        return prepare(simple, shapes, numbers, threads=self._threads)

    def _tune(self, plan: Plan, selector: Selector) -> dict[str, Any]:
        """Measure what is not known, and remember it; what an earlier tuning measured need not be again."""
        layers = {layer.key: layer for layer in selector.layers}
        partial = store.read(map(store.unfinished, layers))
        measured = {
            key: selector.current(partial.get(store.unfinished(key).text, ()), layer.site.problem)
            for key, layer in layers.items()
        }
        tuner = Tuner(Context(plan), self._calibration(plan), self._pool, selector.layers, measured)
        try:
            tuner.run(self.options.progress)
        finally:  # also after an interrupt
            done = {store.unfinished(key): () for key in tuner.found}
            todo = {store.unfinished(key): times for key, times in tuner.unfinished.items()}
            store.write({**tuner.found, **done, **todo})
        return {key.text: candidates for key, candidates in tuner.found.items()}

    def _calibration(self, plan: Plan) -> dict[str, Array]:
        given = self.options.calibration or {}
        random = np.random.default_rng(0)
        arrays = {}
        for name, shape in plan.shapes.items():
            dtype = self._declared.values[name].dtype
            there = np.shape(given[name]) if name in given else ()
            if shape and there[1:] == shape[1:] and there[:1] >= shape[:1]:
                arrays[name] = np.ascontiguousarray(given[name][: shape[0]], dtype)
            else:
                arrays[name] = np.ascontiguousarray(random.standard_normal(shape), dtype)
        return arrays

    # -- checking what comes in ------------------------------------------------------------------------------

    def _checked(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        names = self._declared.inputs
        if not isinstance(inputs, Mapping):
            raise InputError(f"inputs: expected a dict of name to array, got {type(inputs).__name__}")
        unknown = [name for name in inputs if name not in names]
        missing = [name for name in names if name not in inputs]
        if unknown or missing:
            parts = [f"missing {missing}" if missing else "", f"unknown {unknown}" if unknown else ""]
            raise InputError(
                f"inputs: {' and '.join(p for p in parts if p)}; the network's inputs are {list(names)}"
            )
        return {name: self._array(self._declared.values[name], inputs[name]) for name in names}

    def _array(self, value: Value, given: Array) -> Array:
        if not isinstance(given, np.ndarray):
            raise InputError(f"input {value.name!r}: expected a NumPy array, got {type(given).__name__}")
        if given.dtype != value.dtype:
            raise InputError(f"input {value.name!r}: expected {value.dtype}, got {given.dtype}; use .astype")
        shape = value.shape
        if shape is not None:
            fits = len(shape) == given.ndim and all(
                not isinstance(size, int) or size == there
                for size, there in zip(shape, given.shape, strict=True)
            )
            if not fits:
                wanted = "x".join("?" if size is None else str(size) for size in shape)
                got = "x".join(map(str, given.shape))
                raise InputError(
                    f"input {value.name!r}: expected shape {wanted or 'scalar'}, got {got or 'scalar'}"
                )
            if given.ndim and given.shape[0] == 0 and not isinstance(shape[0], int):
                raise InputError(f"input {value.name!r}: the batch is 0; give at least one image")
        return np.ascontiguousarray(given).reshape(given.shape)

    def _wanted(self, output_names: Sequence[str] | None) -> Sequence[str]:
        if output_names is None:
            return self._declared.outputs
        if isinstance(output_names, str):
            raise InputError(f"outputs: expected a list of names or None, got the text {output_names!r}")
        unknown = [name for name in output_names if name not in self._declared.outputs]
        if unknown:
            raise InputError(
                f"outputs: unknown {unknown}; the network's outputs are {list(self._declared.outputs)}"
            )
        return output_names


def _product_bytes(plan: Plan) -> int:
    """Bytes of the matrices of fully connected layers."""
    calls = (call for step in plan.steps if step.op in ("Gemm", "MatMul") for call in step.calls)
    return sum(call.constant_bytes for call in calls if isinstance(call, Call))


def _sizes(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(map(index, shape))
    except TypeError:
        raise InputError(f"shapes: expected whole numbers for input {name!r}, got {shape!r}") from None


def _too_large(size: int) -> ModelError:
    return ModelError(
        f"the activations take {size / 1e9:.1f} GB, which this machine has not; use a smaller batch or input"
    )


def _thread_count(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 0:
        raise InputError(f"threads: expected a number from 0 (all processors) up, got {threads!r}")
    if threads == 0:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return threads if can_thread else 1
