"""Machine code from Python: the only room that knows LLVM."""

from zeroskip.codegen.builder import Builder
from zeroskip.codegen.call import Argument, Asking, Call, Coming, Part, Scratch, side_by_side
from zeroskip.codegen.compile import Kernel, assembly, load
from zeroskip.codegen.expr import Expr, Var
from zeroskip.codegen.layout import SLACK, Address, Layout, Operand, Plain, Planar
from zeroskip.codegen.target import Target, resolve

__all__ = [
    "SLACK",
    "Address",
    "Argument",
    "Asking",
    "Builder",
    "Call",
    "Coming",
    "Expr",
    "Kernel",
    "Layout",
    "Operand",
    "Part",
    "Plain",
    "Planar",
    "Scratch",
    "Target",
    "Var",
    "assembly",
    "load",
    "resolve",
    "side_by_side",
]
