"""The builder's loads and stores."""

from __future__ import annotations

from llvmlite import ir

from zeroskip.codegen.expr import F32, I1, I8, I16, I32, I64, PTR, VOID, Expr
from zeroskip.codegen.values import Values, suffix


class Memory(Values):
    """Reading and writing memory and the kernel's arguments."""

    def arg(self, slot: int) -> Expr:
        """The kernel's integer argument `slot`."""
        return self._argument(slot, I64)

    def pointer(self, slot: int) -> Expr:
        """The kernel's pointer argument `slot`."""
        return self._argument(slot, PTR)

    def _argument(self, slot: int, kind: ir.Type) -> Expr:
        """Arguments are loaded once, where the function begins: LLVM has none to move out of loops."""
        key = (slot, kind == PTR)
        if key not in self._arguments:
            with self.ir.goto_entry_block():
                self._arguments[key] = self._load_typed(self.args + 8 * slot, kind, 8)
        return self._arguments[key]

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

    def load_u8(self, pointer: Expr) -> Expr:
        """The unsigned byte at `pointer`, as 64 bits."""
        return Expr(self, self.ir.zext(self.ir.load(pointer.value, typ=I8, align=1), I64))

    def load_f32(self, pointer: Expr) -> Expr:
        """The float at `pointer`."""
        return self._load_typed(pointer, F32, 4)

    def load_vector(self, pointer: Expr) -> Expr:
        """A vector of floats from any float's address."""
        return self._load_typed(pointer, self.vec, 4)

    def broadcast(self, pointer: Expr) -> Expr:
        """A vector whose lanes all hold the float at `pointer`."""
        return self.splat(self.load_f32(pointer))

    def broadcasts(self, pointer: Expr) -> list[Expr]:
        """Vectors for the four floats at `pointer`, each in all lanes: one load and shuffles."""
        four = self._load_typed(pointer, ir.VectorType(F32, 4), 4)
        repeated = self.shuffle(four, four, list(range(4)) * (self.lanes // 4))
        # left alone, LLVM turns the shuffles back into a load each
        kept = self._intrinsic("arithmetic.fence", [repeated], self.vec)
        starts = range(0, self.lanes, 4)
        return [self.shuffle(kept, kept, [start + i for start in starts for _ in range(4)]) for i in range(4)]

    def load_u32s(self, pointer: Expr) -> Expr:
        """A vector of unsigned 32-bit integers, as 64 bits each."""
        words = self.ir.load(pointer.value, typ=ir.VectorType(I32, self.lanes), align=4)
        return Expr(self, self.ir.zext(words, ir.VectorType(I64, self.lanes)))

    def store(self, value: Expr, pointer: Expr, align: int = 4) -> None:
        """Write a float or a vector of floats."""
        self.ir.store(value.value, pointer.value, align=align)

    def store_i64(self, value: Expr, pointer: Expr) -> None:
        """Write a 64-bit integer."""
        self.ir.store(value.value, pointer.value, align=8)

    def store_i32(self, value: Expr, pointer: Expr) -> None:
        """Write the low half of a 64-bit integer."""
        self.ir.store(self.ir.trunc(value.value, I32), pointer.value, align=4)

    def store_i8(self, value: Expr, pointer: Expr) -> None:
        """Write the low byte of a 64-bit integer."""
        self.ir.store(self.ir.trunc(value.value, I8), pointer.value, align=1)

    def load_masked(self, pointer: Expr, mask: Expr, otherwise: float = 0.0) -> Expr:
        """Lanes where `mask` holds; the others are `otherwise` and their memory is not touched."""
        fallback = self.vector(otherwise)
        return self._intrinsic("masked.load", [pointer, mask, fallback], self.vec, align_pointer=0)

    def store_masked(self, value: Expr, pointer: Expr, mask: Expr) -> None:
        """Write only the lanes where `mask` holds."""
        name = f"llvm.masked.store.{suffix(value.type)}.p0"
        kind = ir.FunctionType(VOID, [value.type, PTR, I32, mask.type])
        function = self._declare(name, kind)
        self.ir.call(function, [value.value, pointer.value, ir.Constant(I32, 4), mask.value])

    def prefetch(self, pointer: Expr, near: bool = True) -> None:
        """Ask for the cache line at `pointer`, which will be read; if not `near`, into the second cache."""
        kind = ir.FunctionType(VOID, [PTR, I32, I32, I32])
        numbers = [ir.Constant(I32, value) for value in (0, 3 if near else 2, 1)]
        self.ir.call(self._declare("llvm.prefetch.p0", kind), [pointer.value, *numbers])

    def mask_bits(self, pointer: Expr) -> Expr:
        """A lane mask from the bits stored at `pointer` (a byte, or two for sixteen lanes)."""
        width = I16 if self.lanes == 16 else I8
        bits = self.ir.load(pointer.value, typ=width, align=width.width // 8)
        if self.lanes < 8:
            bits = self.ir.trunc(bits, ir.IntType(self.lanes))
        return Expr(self, self.ir.bitcast(bits, ir.VectorType(I1, self.lanes)))

    def pixels(self, masks: Expr, number: Expr) -> Expr:
        """The lanes of a vector that `Planar.masks` says are pixels, for `kept`: a mask, or its place."""
        if self.lanes == 16:
            return self.mask_bits(masks + number * 2)
        return masks + number * self.vector_bytes

    def kept(self, value: Expr, pixels: Expr) -> Expr:
        """The lanes of a vector that are `pixels`, and zeros."""
        if self.lanes == 16:
            return self.select(pixels, value, 0.0)
        words = ir.VectorType(I32, self.lanes)
        mask = self.ir.load(pixels.value, typ=words, align=4)
        bits = self.ir.and_(self.ir.bitcast(value.value, words), mask)
        return Expr(self, self.ir.bitcast(bits, self.vec))

    def unpack_pair(self, pair: Expr, bits: int) -> tuple[Expr, Expr]:
        """A pair's integer (in 16 bits, unsigned, or in 32, signed), and the float above it in every lane."""
        narrow = self.ir.trunc(pair.value, I16 if bits == 16 else I32)
        low = self.ir.zext(narrow, I64) if bits == 16 else self.ir.sext(narrow, I64)
        high = self.ir.trunc(self.ir.lshr(pair.value, ir.Constant(I64, bits)), I32)
        return Expr(self, low), self.splat(Expr(self, self.ir.bitcast(high, F32)))

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
        function = self._declare(f"llvm.masked.gather.{suffix(self.vec)}.v{self.lanes}p0", kind)
        arguments = [pointers, ir.Constant(I32, 4), active, self.vector(otherwise).value]
        return Expr(self, self.ir.call(function, arguments))

    def scatter(self, value: Expr, pointer: Expr, indices: Expr, mask: Expr) -> None:
        """Write the lanes where `mask` holds to the floats `indices`, counted from `pointer`."""
        pointers = self._places(pointer, indices)
        kind = ir.FunctionType(VOID, [self.vec, pointers.type, I32, mask.type])
        function = self._declare(f"llvm.masked.scatter.{suffix(self.vec)}.v{self.lanes}p0", kind)
        self.ir.call(function, [value.value, pointers, ir.Constant(I32, 4), mask.value])
