"""Running a plan: an arena, argument blocks with real addresses, native programs between steps in Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from zeroskip.codegen import Address, Call, Coming, Operand, Part, Plain, Scratch, load
from zeroskip.codegen.runtime import Header, Record, ThreadPool, program_slots, run_alone
from zeroskip.engine.memory import allocate
from zeroskip.engine.plan import Array, Objects, Plan, PythonCall, Step


class Program:
    """Consecutive kernel calls as the native run loop wants them; keeps everything they point to alive."""

    def __init__(self, context: Context, calls: Sequence[Call]) -> None:
        addresses = load([call.kernel for call in calls], context.plan.target)
        self._keep: list[object] = [calls]
        self.patches: list[tuple[Array, int, int, int]] = []
        self._coming: list[tuple[Array, int, Coming, int]] = []
        size = program_slots(len(calls), context.plan.threads)
        self.slots = np.zeros(size + 8, np.int64)
        # records are cache lines of their own
        start = -(self.slots.ctypes.data // 8) % 8
        self.slots = self.slots[start : start + size]
        self.slots[Header.CALLS] = len(calls)
        barriers = 0
        for number, call in enumerate(calls):
            block = self._block(context, call)
            record = Header.RECORDS + number * Record.SIZE
            self.slots[record + Record.FUNCTION] = addresses[call.kernel.name]
            self.slots[record + Record.ARGUMENTS] = block.ctypes.data
            self.slots[record + Record.TASKS] = call.tasks
            if not call.overlaps or number == len(calls) - 1:
                barriers += 1
                self.slots[record + Record.BARRIER] = barriers

    def _block(self, context: Context, call: Call) -> Array:
        block = np.zeros(len(call.arguments), np.int64)
        for slot, argument in enumerate(call.arguments):
            if isinstance(argument, Address):
                if argument.buffer in context.bases:
                    block[slot] = context.bases[argument.buffer] + argument.offset
                elif argument.buffer >= 0:
                    self.patches.append((block, slot, argument.buffer, argument.offset))
            elif isinstance(argument, Scratch):
                block[slot] = context.scratch(call.scratch)
            elif isinstance(argument, Coming):
                size = call.arguments[slot + 1]
                assert isinstance(size, int)
                self._coming.append((block, slot, argument, size))
            elif isinstance(argument, Part):
                block[slot] = argument.array.ctypes.data + argument.offset
            elif isinstance(argument, np.ndarray):
                block[slot] = argument.ctypes.data
            else:
                block[slot] = argument
        self._keep.append(block)
        return block

    def run(
        self, external: Mapping[int, int], pool: ThreadPool | None, coming: Mapping[int, int] | None = None
    ) -> None:
        """Run with the caller's buffers at `external` addresses, on the pool's threads or this one alone.

        The next run's will be at those that are `coming`, if any.
        """
        for block, slot, buffer, offset in self.patches:
            block[slot] = external[buffer] + offset
        for block, slot, what, size in self._coming:
            block[slot : slot + 2] = (coming[what.buffer] + what.offset, size) if coming else 0
        if pool is None:
            self.slots[Header.THREADS] = 1
            run_alone(self.slots.ctypes.data)
        else:
            self.slots[Header.THREADS] = pool.threads
            pool.run(self.slots.ctypes.data)


class Context:
    """The memory of one run at a time of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        memory = allocate(plan.arena_bytes + plan.scratch_bytes)
        self.arena, self._scratch = np.split(memory, [plan.arena_bytes])
        start = self.arena.ctypes.data
        self.bases = {buffer: start + offset for buffer, offset in plan.offsets.items()}
        self._extra: list[Array] = []
        self.external = {
            buffer.source: number for number, buffer in enumerate(plan.buffers) if buffer.source is not None
        }
        self._views: dict[int, Array] = {}
        self._groups: list[Program | PythonCall] | None = None

    def scratch(self, size: int) -> int:
        """The address of scratch memory of `size` bytes per thread."""
        wanted = size * self.plan.threads
        if wanted > self._scratch.nbytes:
            self._extra.append(self._scratch)  # programs made before still point to it
            self._scratch = allocate(wanted)
        return int(self._scratch.ctypes.data)

    def memory(self, operand: Operand) -> Array:
        """A tensor's memory as 64-bit integers; empty where the plan does not place it."""
        if operand.buffer not in self.plan.offsets:
            return np.zeros(0, np.int64)
        start = self.plan.offsets[operand.buffer] + operand.offset
        return self.arena[start : start + operand.layout.bytes // 8 * 8].view(np.int64)

    def view(self, buffer: int, layout: Plain) -> Array:
        """A buffer's bytes as a float32 array."""
        if buffer in self._views:
            return self._views[buffer].reshape(layout.shape)
        offset = self.plan.offsets[buffer]
        return self.arena[offset : offset + layout.bytes].view(np.float32).reshape(layout.shape)

    def programs(self, steps: Sequence[Step]) -> list[Program | PythonCall]:
        """The steps' calls, native ones that follow each other as one program."""
        groups: list[Program | PythonCall] = []
        native: list[Call] = []
        for call in (call for step in steps for call in step.calls):
            if isinstance(call, Call):
                native.append(call)
                continue
            if native:
                groups.append(Program(self, native))
                native = []
            groups.append(call)
        if native:
            groups.append(Program(self, native))
        return groups

    def prepare(self) -> Sequence[Program | PythonCall]:
        """The plan's programs; their kernels are compiled and loaded the first time."""
        if self._groups is None:
            self._groups = self.programs(self.plan.steps)
        return self._groups

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: dict[str, Array],
        pool: ThreadPool | None,
        coming: Mapping[str, Array] | None = None,
    ) -> None:
        """Run the plan: `inputs` are C-contiguous; `outputs` are filled, or replaced by Python's.

        The next run's inputs may be asked for, if it is known that they are `coming`.
        """
        external, objects = self.bind(inputs, outputs)
        self.run_groups(self.prepare(), external, objects, pool, self._addresses(coming) if coming else None)
        for name, source in self.plan.object_outputs.items():
            if source in objects:
                # a copy: the object may be an input, a constant of the plan, or two outputs at once
                outputs[name] = np.array(objects[source])
        self._views.clear()

    def run_groups(
        self,
        groups: Sequence[Program | PythonCall],
        external: Mapping[int, int],
        objects: Objects,
        pool: ThreadPool | None,
        coming: Mapping[int, int] | None = None,
    ) -> None:
        """Run some programs on what `bind` returned; the next run's inputs are at addresses `coming`."""
        for group in groups:
            if isinstance(group, Program):
                group.run(external, pool, coming)
            else:
                group.run(self.view, objects)

    def bind(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> tuple[dict[int, int], Objects]:
        """Addresses of the caller's arrays by buffer, and the objects that Python steps start from."""
        external: dict[int, int] = {}
        for (kind, name), number in self.external.items():
            array = inputs[name] if kind == "input" else outputs[name]
            external[number] = array.ctypes.data
            self._views[number] = array
        objects: Objects = dict(self.plan.constants)
        objects.update({name: inputs[name] for name in self.plan.object_inputs})
        return external, objects

    def _addresses(self, inputs: Mapping[str, Array]) -> dict[int, int]:
        """Where inputs are, by buffer."""
        return {
            number: inputs[name].ctypes.data
            for (kind, name), number in self.external.items()
            if kind == "input" and name in inputs
        }

    def fresh_outputs(self) -> dict[str, Array]:
        """New arrays for the outputs that native code writes."""
        shapes = self.plan.output_shapes
        return {
            name: np.empty(shape, np.float32)
            for name, shape in shapes.items()
            if ("output", name) in self.external
        }
