"""Local response normalisation across channels (Krizhevsky et al. 2012)."""

from __future__ import annotations

from zeroskip.codegen import Builder, Call, Expr, Kernel, Operand, Target
from zeroskip.codegen.mathematics import power
from zeroskip.ops import runs
from zeroskip.ops.runs import Run


def lrn(
    x: Operand,
    y: Operand,
    *,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    bias: float = 1.0,
    target: Target,
    threads: int = 1,
) -> Call:
    """The call for ``y = x / (bias + alpha/size * sum of x**2 over size channels)**beta``.

    Both are planar and of one geometry; not in place.
    """
    assert x.planar.same_geometry(y.layout) and x.buffer != y.buffer, f"{x} to {y}"
    numbers = "_".join(f"{number:.9g}" for number in (alpha, beta, bias))
    name = f"lrn_{size}_{numbers}".replace(".", "p").replace("-", "m").replace("+", "")
    arguments, tasks = runs.arguments(y, (x.address, x.planar.plane), target, threads)
    return Call(Kernel(name, lambda b: _emit(b, size, alpha / size, beta, bias)), arguments, tasks)


def _emit(b: Builder, size: int, scale: float, beta: float, bias: float) -> None:
    before = (size - 1) // 2
    x, plane_bytes = b.pointer(runs.OWN), b.arg(runs.OWN + 1)

    def on_plane(plane: Expr) -> runs.Values:
        first = b.maximum(plane - before, 0)
        last = b.minimum(plane + (size - before), b.arg(Run.PLANES))

        def values(i: Expr, tail: Expr | None) -> Expr:
            total = b.var(b.vector())
            with b.loop(first, last) as c:
                other = b.load_vector(x + c * plane_bytes + i * 4)
                total.set(b.fma(other, other, total.get()))
            norm = b.fma(scale, total.get(), b.vector(bias))
            return b.load_vector(x + plane * plane_bytes + i * 4) * power(b, norm, -beta)

        return values

    runs.for_vectors(b, True, on_plane)
