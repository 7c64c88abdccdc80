"""Transposing small blocks between vectors: lanes of i and t become lanes of t and i."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zeroskip.codegen import Builder, Expr

Place = Callable[[int, int], int]


def transpose(
    b: Builder, sources: Sequence[Expr | None], inner: int, lane_from: Place, lane_to: Place
) -> list[Expr]:
    """Vectors t = 0, 1 ... whose lane ``lane_to(i, j)`` is lane ``lane_from(j, t)`` of vector i, j < `inner`.

    There are as many results as `sources`, a power of two; `inner` times their number must not exceed a
    vector. Lanes that come from a source that is None are undefined. One shuffle per vector and halving.
    """
    count = len(sources)
    lanes = b.lanes
    # each vector with the lane of its element (i, j, t); first it holds all t of one i
    state = [
        [(vector, {(i, j, t): lane_from(j, t) for j in range(inner) for t in range(count)})]
        for i, vector in enumerate(sources)
    ]
    while len(state) > 1:
        merged = []
        for low, high in zip(state[0::2], state[1::2], strict=True):
            row = []
            for (a, in_a), (c, in_c) in zip(low, high, strict=True):
                kept = sorted({t for _, _, t in in_a})
                middle = len(kept) // 2
                for half in (kept[:middle], kept[middle:]):
                    wanted = [key for key in (*in_a, *in_c) if key[2] in half]
                    last = len(half) == 1
                    place = {key: lane_to(*key[:2]) if last else n for n, key in enumerate(wanted)}
                    row.append((_merge(b, a, c, in_a, in_c, place, lanes), place))
            merged.append(row)
        state = merged
    results = [vector for vector, _ in state[0]]
    assert all(vector is not None for vector in results)
    return results  # type: ignore[return-value]


def _merge(
    b: Builder,
    a: Expr | None,
    c: Expr | None,
    in_a: dict[tuple[int, int, int], int],
    in_c: dict[tuple[int, int, int], int],
    place: dict[tuple[int, int, int], int],
    lanes: int,
) -> Expr | None:
    if a is None and c is None:
        return None
    indices = [0] * lanes
    for key, lane in place.items():
        if lane < 0:
            continue
        if key in in_a:
            indices[lane] = in_a[key] if a is not None else 0
        else:
            indices[lane] = lanes * (a is not None) + in_c[key] if c is not None else 0
    first = a if a is not None else c
    second = c if c is not None else a
    assert first is not None and second is not None
    return b.shuffle(first, second, indices)
