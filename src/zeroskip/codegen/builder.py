"""A small language for kernels: integers, pointers and vectors as Python values, loops as context managers.

A kernel is a function ``void kernel(const int64 *args, int64 task, int64 thread)``. Its arguments are 64-bit
slots (pointers, sizes); `task` selects a share of the work; `thread` the scratch memory it may use.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from llvmlite import ir

from zeroskip.codegen.target import Target

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
PTR = ir.PointerType()
VOID = ir.VoidType()


@dataclass(frozen=True, eq=False)
class Expr:
    """A typed value in the function being built, with Python's operators."""

    builder: Builder
    value: ir.Value

    @property
    def type(self) -> ir.Type:
        """The LLVM type."""
        return self.value.type

    @property
    def element(self) -> ir.Type:
        """The type of one lane."""
        return self.type.element if isinstance(self.type, ir.VectorType) else self.type

    def _binary(self, other: Operand, on_int: str, on_float: str) -> Expr:
        right = self.builder.like(other, self)
        emit = getattr(self.builder.ir, on_float if self.element == F32 else on_int)
        return Expr(self.builder, emit(self.value, right.value))

    def __add__(self, other: Operand) -> Expr:
        if self.type == PTR:
            return self.builder.offset(self, other)
        return self._binary(other, "add", "fadd")

    def __sub__(self, other: Operand) -> Expr:
        return self._binary(other, "sub", "fsub")

    def __mul__(self, other: Operand) -> Expr:
        return self._binary(other, "mul", "fmul")

    def __truediv__(self, other: Operand) -> Expr:
        return self._binary(other, "sdiv", "fdiv")

    def __floordiv__(self, other: Operand) -> Expr:
        return self._binary(other, "sdiv", "fdiv")

    def __mod__(self, other: Operand) -> Expr:
        return self._binary(other, "srem", "frem")

    def __and__(self, other: Operand) -> Expr:
        return self._binary(other, "and_", "and_")

    def __or__(self, other: Operand) -> Expr:
        return self._binary(other, "or_", "or_")

    def __lshift__(self, other: Operand) -> Expr:
        return self._binary(other, "shl", "shl")

    def __rshift__(self, other: Operand) -> Expr:
        return self._binary(other, "ashr", "ashr")

    def _compare(self, operator: str, other: Operand) -> Expr:
        right = self.builder.like(other, self)
        if self.element == F32:
            return Expr(self.builder, self.builder.ir.fcmp_ordered(operator, self.value, right.value))
        return Expr(self.builder, self.builder.ir.icmp_signed(operator, self.value, right.value))

    def __lt__(self, other: Operand) -> Expr:
        return self._compare("<", other)

    def __le__(self, other: Operand) -> Expr:
        return self._compare("<=", other)

    def __gt__(self, other: Operand) -> Expr:
        return self._compare(">", other)

    def __ge__(self, other: Operand) -> Expr:
        return self._compare(">=", other)

    def equals(self, other: Operand) -> Expr:
        """Lane-wise equality."""
        return self._compare("==", other)


Operand = Expr | int | float
Combine = Callable[[Expr, Expr], Expr]
Branch = AbstractContextManager[object]


class Var:
    """A mutable local (an `alloca` that LLVM promotes to a register)."""

    def __init__(self, builder: Builder, initial: Expr) -> None:
        self._builder = builder
        with builder.ir.goto_entry_block():
            self._slot = builder.ir.alloca(initial.type)
        self._type = initial.type
        self.set(initial)

    def get(self) -> Expr:
        """Its present value."""
        return Expr(self._builder, self._builder.ir.load(self._slot, typ=self._type))

    def set(self, value: Expr) -> None:
        """Assign."""
        self._builder.ir.store(value.value, self._slot)


class Builder:
    """Emits one kernel function into a module of its own."""

    def __init__(self, name: str, target: Target) -> None:
        self.target = target
        self.lanes = target.lanes
        self.vector_bytes = 4 * target.lanes
        self.vec = ir.VectorType(F32, self.lanes)
        self.module = ir.Module(name=name)
        self.module.triple = target.triple
        function = ir.Function(self.module, ir.FunctionType(VOID, [PTR, I64, I64]), name=name)
        function.attributes.add("nounwind")
        self.function = function
        self.ir = ir.IRBuilder(function.append_basic_block("entry"))
        self.args, self.task, self.thread = (Expr(self, value) for value in function.args)

    # -- values ----------------------------------------------------------------------------------------------

    def int(self, value: int) -> Expr:
        """A 64-bit integer constant."""
        return Expr(self, ir.Constant(I64, value))

    def like(self, value: Operand, model: Expr) -> Expr:
        """`value` as an expression of `model`'s type; scalars are splat over vectors."""
        if isinstance(value, Expr):
            if isinstance(model.type, ir.VectorType) and not isinstance(value.type, ir.VectorType):
                return self.splat(value, model.type.count)
            return value
        constant = _float32(value) if model.element == F32 else int(value)
        if isinstance(model.type, ir.VectorType):
            return Expr(self, ir.Constant(model.type, [constant] * model.type.count))
        return Expr(self, ir.Constant(model.type, constant))

    def vector(self, value: float = 0.0) -> Expr:
        """A vector of the target's width filled with a float constant."""
        return Expr(self, ir.Constant(self.vec, [_float32(value)] * self.lanes))

    def splat(self, scalar: Expr, lanes: int | None = None) -> Expr:
        """A vector whose lanes all hold `scalar`."""
        vector = ir.VectorType(scalar.type, lanes or self.lanes)
        one = self.ir.insert_element(ir.Constant(vector, ir.Undefined), scalar.value, ir.Constant(I32, 0))
        mask = ir.Constant(ir.VectorType(I32, vector.count), [0] * vector.count)
        return Expr(self, self.ir.shuffle_vector(one, ir.Constant(vector, ir.Undefined), mask))

    def lane_numbers(self) -> Expr:
        """The vector 0, 1, 2 ... as 32-bit integers."""
        return Expr(self, ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes))))

    def var(self, initial: Expr) -> Var:
        """A mutable local."""
        return Var(self, initial)

    # -- memory ----------------------------------------------------------------------------------------------

    def arg(self, slot: int) -> Expr:
        """The kernel's integer argument `slot`."""
        return self._load_typed(self.args + 8 * slot, I64, 8)

    def pointer(self, slot: int) -> Expr:
        """The kernel's pointer argument `slot`."""
        return self._load_typed(self.args + 8 * slot, PTR, 8)

    def offset(self, pointer: Expr, count: Operand) -> Expr:
        """`pointer` moved by `count` bytes."""
        moved = self.ir.gep(pointer.value, [self.like(count, self.int(0)).value], source_etype=I8)
        return Expr(self, moved)

    def _load_typed(self, pointer: Expr, kind: ir.Type, align: int) -> Expr:
        return Expr(self, self.ir.load(pointer.value, typ=kind, align=align))

    def load_pointer(self, pointer: Expr) -> Expr:
        """The pointer stored at `pointer`."""
        return self._load_typed(pointer, PTR, 8)

    def load_i64(self, pointer: Expr) -> Expr:
        """The 64-bit integer at `pointer`."""
        return self._load_typed(pointer, I64, 8)

    def load_i32(self, pointer: Expr) -> Expr:
        """The 32-bit integer at `pointer`, sign-extended to 64."""
        return Expr(self, self.ir.sext(self.ir.load(pointer.value, typ=I32, align=4), I64))

    def load_f32(self, pointer: Expr) -> Expr:
        """The float at `pointer`."""
        return self._load_typed(pointer, F32, 4)

    def load_vector(self, pointer: Expr) -> Expr:
        """A vector of floats from any float's address."""
        return self._load_typed(pointer, self.vec, 4)

    def broadcast(self, pointer: Expr) -> Expr:
        """A vector whose lanes all hold the float at `pointer`."""
        return self.splat(self.load_f32(pointer))

    def store(self, value: Expr, pointer: Expr, align: int = 4) -> None:
        """Write a float or a vector of floats."""
        self.ir.store(value.value, pointer.value, align=align)

    def store_i64(self, value: Expr, pointer: Expr) -> None:
        """Write a 64-bit integer."""
        self.ir.store(value.value, pointer.value, align=8)

    def load_masked(self, pointer: Expr, mask: Expr, otherwise: float = 0.0) -> Expr:
        """Lanes where `mask` holds; the others are `otherwise` and their memory is not touched."""
        fallback = self.vector(otherwise)
        return self._intrinsic("masked.load", [pointer, mask, fallback], self.vec, align_pointer=0)

    def store_masked(self, value: Expr, pointer: Expr, mask: Expr) -> None:
        """Write only the lanes where `mask` holds."""
        name = f"llvm.masked.store.{_suffix(value.type)}.p0"
        kind = ir.FunctionType(VOID, [value.type, PTR, I32, mask.type])
        function = self._declare(name, kind)
        self.ir.call(function, [value.value, pointer.value, ir.Constant(I32, 4), mask.value])

    def prefetch(self, pointer: Expr) -> None:
        """Ask for the cache line at `pointer`, which will be read."""
        kind = ir.FunctionType(VOID, [PTR, I32, I32, I32])
        numbers = [ir.Constant(I32, value) for value in (0, 3, 1)]
        self.ir.call(self._declare("llvm.prefetch.p0", kind), [pointer.value, *numbers])

    def mask_bits(self, pointer: Expr) -> Expr:
        """A lane mask from the bits stored at `pointer` (a byte, or two for sixteen lanes)."""
        width = I16 if self.lanes == 16 else I8
        bits = self.ir.load(pointer.value, typ=width, align=width.width // 8)
        if self.lanes < 8:
            bits = self.ir.trunc(bits, ir.IntType(self.lanes))
        return Expr(self, self.ir.bitcast(bits, ir.VectorType(I1, self.lanes)))

    def unpack_pair(self, pair: Expr) -> tuple[Expr, Expr]:
        """(low half as a sign-extended integer, high half as a float in every lane) of a 64-bit integer."""
        low = self.ir.sext(self.ir.trunc(pair.value, I32), I64)
        high = self.ir.trunc(self.ir.lshr(pair.value, ir.Constant(I64, 32)), I32)
        return Expr(self, low), self.splat(Expr(self, self.ir.bitcast(high, F32)))

    def lanes_below(self, count: Operand) -> Expr:
        """The mask of the first `count` lanes (all where `count` is at least the vector's length)."""
        limit = self.minimum(self.like(count, self.int(0)), self.int(self.lanes))
        narrow = Expr(self, self.ir.trunc(limit.value, I32))
        return self.lane_numbers() < self.splat(narrow)

    def lanes_between(self, start: Operand, stop: Operand, stride: int = 1) -> Expr:
        """The mask of the lanes for which ``start <= stride * lane < stop``."""
        first, last = (self.splat(self._narrow(limit)) for limit in (start, stop))
        steps = self.lane_numbers() * stride
        return (steps >= first) & (steps < last)

    def _narrow(self, value: Operand) -> Expr:
        return Expr(self, self.ir.trunc(self.like(value, self.int(0)).value, I32))

    def load_strided(
        self, pointer: Expr, stride: int, mask: Expr | None = None, otherwise: float = 0.0
    ) -> Expr:
        """Every `stride`-th float from `pointer`; without a mask, `lanes*stride` floats may be read."""
        if stride == 1:
            return self.load_vector(pointer) if mask is None else self.load_masked(pointer, mask, otherwise)
        if stride in (2, 4) and mask is None:
            half = stride // 2
            low = self.load_strided(pointer, half)
            high = self.load_strided(pointer + half * self.vector_bytes, half)
            return self.shuffle(low, high, list(range(0, 2 * self.lanes, 2)))
        return self.gather(pointer, self.lane_numbers() * stride, mask, otherwise)

    def _places(self, pointer: Expr, indices: Expr) -> ir.Value:
        """The addresses of the floats `indices`, counted from `pointer`."""
        pointers = self.ir.gep(pointer.value, [indices.value], source_etype=F32)
        # llvmlite types a gep by its scalar base; a vector of offsets makes a vector of pointers
        pointers.type = ir.VectorType(PTR, self.lanes)
        return pointers

    def load_indices(self, pointer: Expr, bits: int = 32) -> Expr:
        """A vector of 32-bit integers, from unsigned 16-bit or from 32-bit ones in memory."""
        narrow = ir.VectorType(ir.IntType(bits), self.lanes)
        loaded = self.ir.load(pointer.value, typ=narrow, align=bits // 8)
        wide = ir.VectorType(I32, self.lanes)
        return Expr(self, loaded if bits == 32 else self.ir.zext(loaded, wide))

    def gather(self, pointer: Expr, indices: Expr, mask: Expr | None = None, otherwise: float = 0.0) -> Expr:
        """The floats `indices`, counted from `pointer`; `otherwise` where `mask` does not hold."""
        pointers = self._places(pointer, indices)
        everywhere = ir.Constant(ir.VectorType(I1, self.lanes), [1] * self.lanes)
        active = everywhere if mask is None else mask.value
        kind = ir.FunctionType(self.vec, [pointers.type, I32, active.type, self.vec])
        function = self._declare(f"llvm.masked.gather.{_suffix(self.vec)}.v{self.lanes}p0", kind)
        arguments = [pointers, ir.Constant(I32, 4), active, self.vector(otherwise).value]
        return Expr(self, self.ir.call(function, arguments))

    def scatter(self, value: Expr, pointer: Expr, indices: Expr, mask: Expr) -> None:
        """Write the lanes where `mask` holds to the floats `indices`, counted from `pointer`."""
        pointers = self._places(pointer, indices)
        kind = ir.FunctionType(VOID, [self.vec, pointers.type, I32, mask.type])
        function = self._declare(f"llvm.masked.scatter.{_suffix(self.vec)}.v{self.lanes}p0", kind)
        self.ir.call(function, [value.value, pointers, ir.Constant(I32, 4), mask.value])

    def shuffle(self, low: Expr, high: Expr, indices: Sequence[int]) -> Expr:
        """Lanes picked from the concatenation of two vectors."""
        mask = ir.Constant(ir.VectorType(I32, len(indices)), list(indices))
        return Expr(self, self.ir.shuffle_vector(low.value, high.value, mask))

    # -- arithmetic ------------------------------------------------------------------------------------------

    def _declare(self, name: str, kind: ir.FunctionType) -> ir.Function:
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, kind, name=name)

    def _intrinsic(
        self, base: str, operands: Sequence[Expr], result: ir.Type, align_pointer: int | None = None
    ) -> Expr:
        values = [operand.value for operand in operands]
        name = f"llvm.{base}.{_suffix(result)}"
        if align_pointer is not None:
            name += ".p0"
            values.insert(align_pointer + 1, ir.Constant(I32, 4))
        function = self._declare(name, ir.FunctionType(result, [value.type for value in values]))
        return Expr(self, self.ir.call(function, values))

    def fma(self, a: Operand, x: Expr, y: Expr) -> Expr:
        """``a*x + y``, fused where the target does that fast."""
        return self._intrinsic("fmuladd", [self.like(a, x), x, self.like(y, x)], x.type)

    def maximum(self, a: Expr, b: Operand) -> Expr:
        """The larger; of floats, `b` where `a` is NaN... see `relu` for the NaN-keeping order."""
        right = self.like(b, a)
        return self.select(a > right, a, right)

    def minimum(self, a: Expr, b: Operand) -> Expr:
        """The smaller."""
        right = self.like(b, a)
        return self.select(a < right, a, right)

    def select(self, condition: Expr, then: Expr, otherwise: Operand) -> Expr:
        """Lane-wise choice."""
        right = self.like(otherwise, then)
        return Expr(self, self.ir.select(condition.value, then.value, right.value))

    def unary(self, name: str, value: Expr) -> Expr:
        """An LLVM float intrinsic: ``sqrt``, ``fabs``, ``floor``, ``rint`` ..."""
        return self._intrinsic(name, [value], value.type)

    def float_of(self, value: Expr) -> Expr:
        """An integer as a float32."""
        return Expr(self, self.ir.sitofp(value.value, F32))

    def is_nan(self, value: Expr) -> Expr:
        """Where float lanes are not a number."""
        return Expr(self, self.ir.fcmp_unordered("uno", value.value, value.value))

    def mantissa_exponent(self, value: Expr) -> tuple[Expr, Expr]:
        """Floats m in [0.5, 1) and integral e with ``value = m * 2**e``; for normal positive lanes."""
        kind = ir.VectorType(I32, value.type.count)
        bits = Expr(self, self.ir.bitcast(value.value, kind))
        exponent = Expr(self, self.ir.sitofp(((bits >> 23) - 126).value, value.type))
        mantissa = (bits & 0x007FFFFF) | 0x3F000000
        return Expr(self, self.ir.bitcast(mantissa.value, value.type)), exponent

    def exponent_scale(self, power: Expr) -> Expr:
        """2**power for integral-valued float lanes in the normal range."""
        bits = ir.VectorType(I32, power.type.count)
        integer = self.ir.fptosi(power.value, bits)
        biased = self.ir.add(integer, ir.Constant(bits, [127] * bits.count))
        shifted = self.ir.shl(biased, ir.Constant(bits, [23] * bits.count))
        return Expr(self, self.ir.bitcast(shifted, power.type))

    def reduce_add(self, vector: Expr) -> Expr:
        """The sum of the lanes, pairwise."""
        return self._reduce(vector, lambda a, b: a + b)

    def reduce_max(self, vector: Expr) -> Expr:
        """The largest lane."""
        return self._reduce(vector, self.maximum)

    def _reduce(self, vector: Expr, combine: Combine) -> Expr:
        while (count := vector.type.count) > 1:
            half = count // 2
            vector = combine(
                self.shuffle(vector, vector, range(half)), self.shuffle(vector, vector, range(half, count))
            )
        return Expr(self, self.ir.extract_element(vector.value, ir.Constant(I32, 0)))

    def lane(self, vector: Expr, index: int) -> Expr:
        """One lane as a scalar."""
        return Expr(self, self.ir.extract_element(vector.value, ir.Constant(I32, index)))

    # -- control ---------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, start: Operand, stop: Operand, step: Operand = 1) -> Iterator[Expr]:
        """``for i in range(start, stop, step)`` with a positive step."""
        first, last, stride = (self.like(value, self.int(0)) for value in (start, stop, step))
        before = self.ir.block
        body, done = (self.function.append_basic_block(name) for name in ("loop", "done"))
        self.ir.cbranch((first < last).value, body, done)
        self.ir.position_at_end(body)
        index = self.ir.phi(I64)
        index.add_incoming(first.value, before)
        yield Expr(self, index)
        following = Expr(self, index) + stride
        index.add_incoming(following.value, self.ir.block)
        self.ir.cbranch((following < last).value, body, done)
        self.ir.position_at_end(done)

    @contextmanager
    def when(self, condition: Expr) -> Iterator[None]:
        """The body runs where `condition` holds."""
        with self.ir.if_then(condition.value):
            yield

    @contextmanager
    def choose(self, condition: Expr) -> Iterator[tuple[Branch, Branch]]:
        """Two branches: ``with b.choose(c) as (then, otherwise): with then: ...``."""
        with self.ir.if_else(condition.value) as branches:
            yield branches

    def call(self, address: Expr, *arguments: Expr) -> None:
        """Call the ``void`` function at `address` (a pointer or a 64-bit integer)."""
        kind = ir.FunctionType(VOID, [argument.type for argument in arguments])
        self.ir.call(self.typed(address, kind), [argument.value for argument in arguments])

    def typed(self, address: Expr, pointee: ir.Type) -> ir.Value:
        """The address as a pointer whose pointee llvmlite knows, as its calls and atomics want."""
        value = address.value if address.type == I64 else self.ir.ptrtoint(address.value, I64)
        return self.ir.inttoptr(value, pointee.as_pointer())

    def text(self) -> str:
        """The finished module as LLVM IR."""
        if not self.ir.block.is_terminated:
            self.ir.ret_void()
        return str(self.module)


def _float32(value: float) -> float:
    """The nearest float32, as LLVM's text form demands of float constants."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _suffix(kind: ir.Type) -> str:
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return "f32" if kind == F32 else f"i{kind.width}"
