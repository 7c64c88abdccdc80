"""Values of the function being built: numbers, pointers and vectors with Python's operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llvmlite import ir

if TYPE_CHECKING:
    from zeroskip.codegen.values import Values

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
PTR = ir.PointerType()
VOID = ir.VoidType()


@dataclass(frozen=True, eq=False)
class Expr:
    """A typed value in the function being built, with Python's operators."""

    builder: Values
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


class Var:
    """A mutable local (an `alloca` that LLVM promotes to a register)."""

    def __init__(self, builder: Values, initial: Expr) -> None:
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
