"""A small language for kernels: integers, pointers and vectors as Python values, loops as context managers.

A kernel is a function ``void kernel(const int64 *args, int64 task, int64 thread)``. Its arguments are 64-bit
slots (pointers, sizes); `task` selects a share of the work; `thread` the scratch memory it may use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from llvmlite import ir

from zeroskip.codegen.expr import I1, I64, VOID, Expr, Operand
from zeroskip.codegen.memory import Memory

Branch = AbstractContextManager[object]


class Builder(Memory):
    """Emits one kernel function: `Memory` and `Values` with control flow."""

    @contextmanager
    def loop(self, start: Operand, stop: Operand, step: Operand = 1) -> Iterator[Expr]:
        """``for i in range(start, stop, step)`` with a positive step; one turn, where known, is no loop."""
        match start, stop, step:
            case int(begin), int(end), int(turn) if begin < end <= begin + turn:
                yield self.int(begin)
                return
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
    def bits(self, mask: Expr) -> Iterator[Expr]:
        """``for i in ...`` the numbers of the bits set in a 64-bit integer, from the lowest."""
        before = self.ir.block
        body, done = (self.function.append_basic_block(name) for name in ("bit", "done"))
        self.ir.cbranch(self.ir.icmp_signed("!=", mask.value, ir.Constant(I64, 0)), body, done)
        self.ir.position_at_end(body)
        rest = self.ir.phi(I64)
        rest.add_incoming(mask.value, before)
        lowest = self._declare("llvm.cttz.i64", ir.FunctionType(I64, [I64, I1]))
        yield Expr(self, self.ir.call(lowest, [rest, ir.Constant(I1, 1)]))
        following = self.ir.and_(rest, self.ir.sub(rest, ir.Constant(I64, 1)))
        rest.add_incoming(following, self.ir.block)
        self.ir.cbranch(self.ir.icmp_signed("!=", following, ir.Constant(I64, 0)), body, done)
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

    def pinned(self, value: Expr) -> Expr:
        """The integer, computed here: not where LLVM would rather have it, behind the next loop."""
        kind = ir.FunctionType(value.type, [value.type])
        return Expr(self, self.ir.asm(kind, "", "=r,0", [value.value], side_effect=True))

    def distance(self, start: Expr, end: Expr) -> Expr:
        """Bytes from one pointer to another."""
        first, last = (self.ir.ptrtoint(pointer.value, I64) for pointer in (start, end))
        return Expr(self, self.ir.sub(last, first))

    def typed(self, address: Expr, pointee: ir.Type) -> ir.Value:
        """The address as a pointer whose pointee llvmlite knows, as its calls and atomics want."""
        value = address.value if address.type == I64 else self.ir.ptrtoint(address.value, I64)
        return self.ir.inttoptr(value, pointee.as_pointer())

    def text(self) -> str:
        """The finished module as LLVM IR."""
        if not self.ir.block.is_terminated:
            self.ir.ret_void()
        return str(self.module)
