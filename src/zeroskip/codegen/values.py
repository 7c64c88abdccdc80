"""The builder's constants, masks and arithmetic."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

from llvmlite import ir

from zeroskip.codegen.expr import F32, I1, I8, I16, I32, I64, PTR, VOID, Combine, Expr, Operand, Var
from zeroskip.codegen.target import Target


@cache
def _lanes(numbers: tuple[int, ...]) -> ir.Constant:
    """A constant vector of 32-bit integers, made once: llvmlite formats each constant anew."""
    return ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers))


class Values:
    """One kernel function in a module of its own, and what can be computed in it."""

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
        self._arguments: dict[tuple[int, bool], Expr] = {}

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
        lanes = [_float32(value)] * self.lanes if value else None
        return Expr(self, ir.Constant(self.vec, lanes))

    def splat(self, scalar: Expr, lanes: int | None = None) -> Expr:
        """A vector whose lanes all hold `scalar`."""
        vector = ir.VectorType(scalar.type, lanes or self.lanes)
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.ir.insert_element(undefined, scalar.value, ir.Constant(I32, 0))
        return Expr(self, self.ir.shuffle_vector(one, undefined, _lanes((0,) * vector.count)))

    def lane_numbers(self) -> Expr:
        """The vector 0, 1, 2 ... as 32-bit integers."""
        return Expr(self, _lanes(tuple(range(self.lanes))))

    def var(self, initial: Expr) -> Var:
        """A mutable local."""
        return Var(self, initial)

    def offset(self, pointer: Expr, count: Operand) -> Expr:
        """`pointer` moved by `count` bytes."""
        moved = self.ir.gep(pointer.value, [self.like(count, self.int(0)).value], source_etype=I8)
        return Expr(self, moved)

    def lanes_below(self, count: Operand) -> Expr:
        """The mask of the first `count` lanes (all where `count` is at least the vector's length)."""
        limit = self.minimum(self.like(count, self.int(0)), self.int(self.lanes))
        if self.lanes < 16:  # a sign is a mask, wherever it is used
            return (self.lane_numbers() - self.splat(self._narrow(limit))) < 0
        # Bits, no comparison: LLVM compares anew wherever the mask is used, also in loops (5 % of depthwise
        # layers, for the same units compare and multiply).
        ones = ir.Constant(I32, -1)
        above = self.ir.shl(ones, self._narrow(self.maximum(limit, 0)).value)
        bits = self.ir.trunc(self.ir.xor(above, ones), I16)
        return Expr(self, self.ir.bitcast(bits, ir.VectorType(I1, 16)))

    def lanes_between(self, start: Operand, stop: Operand, stride: int = 1) -> Expr:
        """The mask of the lanes for which ``start <= stride * lane < stop``."""
        first, last = (self.splat(self._narrow(limit)) for limit in (start, stop))
        steps = self.lane_numbers() * stride
        return (steps >= first) & (steps < last)

    def _narrow(self, value: Operand) -> Expr:
        return Expr(self, self.ir.trunc(self.like(value, self.int(0)).value, I32))

    # -- arithmetic ------------------------------------------------------------------------------------------

    def shuffle(self, low: Expr, high: Expr, indices: Sequence[int]) -> Expr:
        """Lanes picked from the concatenation of two vectors."""
        return Expr(self, self.ir.shuffle_vector(low.value, high.value, _lanes(tuple(indices))))

    def _declare(self, name: str, kind: ir.FunctionType) -> ir.Function:
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, kind, name=name)

    def _intrinsic(
        self, base: str, operands: Sequence[Expr], result: ir.Type, align_pointer: int | None = None
    ) -> Expr:
        values = [operand.value for operand in operands]
        name = f"llvm.{base}.{suffix(result)}"
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

    def nonzero(self, value: Expr) -> Expr:
        """Where float lanes are not zero; a NaN is not."""
        zero = self.like(0.0, value)
        return Expr(self, self.ir.fcmp_unordered("!=", value.value, zero.value))

    def any(self, mask: Expr) -> Expr:
        """Whether any lane of the mask holds."""
        bits = ir.IntType(mask.type.count)
        return Expr(self, self.ir.icmp_signed("!=", self.ir.bitcast(mask.value, bits), ir.Constant(bits, 0)))

    def mantissa_exponent(self, value: Expr) -> tuple[Expr, Expr]:
        """Floats m in [0.5, 1) and integral e with ``value = m * 2**e``; for normal positive lanes."""
        kind = ir.VectorType(I32, value.type.count)
        bits = Expr(self, self.ir.bitcast(value.value, kind))
        exponent = Expr(self, self.ir.sitofp(((bits >> 23) - 126).value, value.type))
        mantissa = (bits & 0x007FFFFF) | 0x3F000000
        return Expr(self, self.ir.bitcast(mantissa.value, value.type)), exponent

    def scale(self, value: Expr, power: Expr) -> Expr:
        """``value * 2**power`` for integral-valued float lanes `power` in the normal range."""
        if self.target.lanes == 16 and value.type.count == 16:  # one instruction, not four
            mask, rounding = ir.Constant(ir.IntType(16), 0xFFFF), ir.Constant(I32, 4)
            kind = ir.FunctionType(value.type, [value.type] * 3 + [mask.type, I32])
            function = self._declare("llvm.x86.avx512.mask.scalef.ps.512", kind)
            operands = [value.value, power.value, value.value, mask, rounding]
            return Expr(self, self.ir.call(function, operands))
        bits = ir.VectorType(I32, power.type.count)
        integer = self.ir.fptosi(power.value, bits)
        biased = self.ir.add(integer, ir.Constant(bits, [127] * bits.count))
        shifted = self.ir.shl(biased, ir.Constant(bits, [23] * bits.count))
        return value * Expr(self, self.ir.bitcast(shifted, power.type))

    def lookup(self, table: Sequence[Expr], numbers: Expr) -> Expr:
        """The floats of a table of 2, 4, 8 ... vectors by their numbers, 32-bit, if the target `looks_up`."""
        kind = ir.FunctionType(self.vec, [self.vec, numbers.type, self.vec])
        function = self._declare("llvm.x86.avx512.vpermi2var.ps.512", kind)
        pairs = zip(table[::2], table[1::2], strict=True)
        found = [Expr(self, self.ir.call(function, [a.value, numbers.value, b.value])) for a, b in pairs]
        bit = 2 * self.lanes
        while len(found) > 1:
            low = (numbers & bit).equals(0)
            found = [self.select(low, a, b) for a, b in zip(found[::2], found[1::2], strict=True)]
            bit *= 2
        return found[0]

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

    # last, for in a class body `int` means this method from here on
    def int(self, value: int) -> Expr:
        """A 64-bit integer constant."""
        return Expr(self, ir.Constant(I64, value))


def _float32(value: float) -> float:
    """The nearest float32, as LLVM's text form demands of float constants."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def suffix(kind: ir.Type) -> str:
    """A type as intrinsics' names spell it, e.g. ``v16f32``."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{suffix(kind.element)}"
    return "f32" if kind == F32 else f"i{kind.width}"
