"""Choosing each convolution's algorithm: drop what refuses, predict, measure on the real data, remember."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from zeroskip.codegen import Kernel, Target, load
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.conv import ALGORITHMS, Algorithm, ConvProblem, find
from zeroskip.engine import store
from zeroskip.engine.convolutions import Choice, ConvSite
from zeroskip.engine.executor import Context, Program
from zeroskip.engine.plan import Array, Candidate
from zeroskip.errors import AlgorithmError

# A variant predicted slower than the best by this factor is not measured; the model errs by less than this.
HOPELESS = 2.0
MEASURED_AT_MOST = 10
# Cycles a float between plain arrays and planes: 64x56x56 in and 64x54x54 out take 64 us.
CONVERSION = 0.7
REPEATS = 5
LEAST_SECONDS = 300e-6
# A candidate whose first run takes so many times as long as the best one's runs is not run again.
BEATEN = 1.5
# Between two runs of a layer in its network, as many bytes pass through the caches as the network has; more
# than the largest of them leave nothing behind.
SWEPT_AT_LEAST, SWEPT_AT_MOST = 2 << 20, 32 << 20


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution to be chosen for: its site, the key of its measurements, and what is predicted."""

    name: str
    site: ConvSite
    key: store.LayerKey
    candidates: tuple[Candidate, ...]


@dataclass
class Selector:
    """Answers the lowering's question; knows what was measured, now or before.

    `algorithm` is forced on every layer, `prefer` on those it accepts, unless they are ``"auto"``.
    """

    target: Target
    threads: int
    algorithm: str
    prefer: str = "auto"
    known: dict[str, tuple[Candidate, ...]] = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)

    def key(self, problem: ConvProblem) -> store.LayerKey:
        """What measurements of this convolution are remembered under: those of a forced algorithm apart."""
        rows = self.rows(problem)
        only = f" only {rows[0].name}" if len(rows) == 1 else ""
        return store.layer_key(self.target, self.threads, problem.signature + only, problem.digest)

    def rows(self, problem: ConvProblem) -> list[Algorithm]:
        """The algorithms that may be chosen for this convolution, should they accept it."""
        if self.algorithm != "auto":
            return [find(self.algorithm)]
        if self.prefer != "auto" and not find(self.prefer).refuses(problem, self.target):
            return [find(self.prefer)]
        return list(ALGORITHMS.values())

    def measured(
        self, key: store.LayerKey, rows: Sequence[Algorithm], problem: ConvProblem
    ) -> list[Candidate]:
        """What the store knows of this convolution; entries that name no variant of today are ignored."""
        known = self.known.get(key.text, ())
        names = {candidate.algorithm for candidate in known}
        variants = {row.name: row.variants(problem, self.target) for row in rows if row.name in names}
        return [c for c in known if c.microseconds is not None and c.variant in variants.get(c.algorithm, ())]

    def choose(self, name: str, site: ConvSite) -> Choice:
        """The fastest known variant of the layer, else the one predicted fastest without guesses."""
        rows = self.rows(site.problem)
        key = self.key(site.problem)
        measured = self.measured(key, rows, site.problem)
        if measured:
            best = min(measured, key=_microseconds)
            candidates = tuple(sorted(measured, key=_microseconds)) + refusals(
                rows, site.problem, self.target
            )
            return Choice(best.algorithm, best.variant, "measured", candidates)
        candidates = predict(rows, site.problem, self.target)
        possible = [c for c in candidates if not c.reason]
        if not possible:
            reasons = "; ".join(f"{c.algorithm}: {c.reason}" for c in candidates)
            raise AlgorithmError(f"layer {name!r} is refused by algorithm {self.algorithm!r}: {reasons}")
        self.layers.append(Layer(name, site, key, candidates))
        first = min(_certain(possible), key=lambda c: c.predicted_cycles or 0.0)
        return Choice(first.algorithm, first.variant, "predicted", candidates)


def _certain(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates whose prediction guesses no zeros, if there are any."""
    return [c for c in candidates if not ALGORITHMS[c.algorithm].guesses] or candidates


def _microseconds(candidate: Candidate) -> float:
    return candidate.microseconds if candidate.microseconds is not None else float("inf")


def refusals(rows: Sequence[Algorithm], problem: ConvProblem, target: Target) -> tuple[Candidate, ...]:
    """The algorithms that refuse the problem, with their reasons."""
    reasons = {row.name: row.refuses(problem, target) for row in rows}
    return tuple(Candidate(name, reason=reason) for name, reason in reasons.items() if reason)


def predict(rows: Sequence[Algorithm], problem: ConvProblem, target: Target) -> tuple[Candidate, ...]:
    """Every variant of the algorithms with its predicted cycles, then the refusals."""
    refused = refusals(rows, problem, target)
    names = {candidate.algorithm for candidate in refused}
    possible = [
        Candidate(
            row.name,
            variant,
            predicted_cycles=row.cycles(problem, variant, target) + _conversion(row, problem),
        )
        for row in rows
        if row.name not in names
        for variant in row.variants(problem, target)
    ]
    return (*possible, *refused)


def _conversion(row: Algorithm, problem: ConvProblem) -> float:
    """Cycles to bring the caller's arrays into planes and back."""
    return 0.0 if row.plain else CONVERSION * problem.plain_floats


def worth_measuring(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    """The variants that may win: of each algorithm the few predicted fastest, unless predicted hopeless.

    The best dense one is always among them: no prediction can make a network slower than without its zeros.
    """
    possible = sorted((c for c in candidates if not c.reason), key=lambda c: c.predicted_cycles or 0.0)
    limit = HOPELESS * (_certain(possible)[0].predicted_cycles or 0.0)
    chosen: dict[str, list[Candidate]] = {}
    for candidate in possible:
        mine = chosen.setdefault(candidate.algorithm, [])
        hopeful = (candidate.predicted_cycles or 0.0) <= limit and len(mine) < MEASURED_AT_MOST
        if hopeful or (candidate.algorithm == "direct" and not mine):
            mine.append(candidate)
    return [candidate for mine in chosen.values() for candidate in mine]


@dataclass(eq=False)
class Tuner:
    """Measures candidates inside a context, layer by layer, on what the layers before really computed."""

    context: Context
    inputs: Mapping[str, Array]
    pool: ThreadPool | None
    layers: Mapping[str, Layer]
    found: dict[store.LayerKey, tuple[Candidate, ...]] = field(default_factory=dict, init=False)
    _swept: Array = field(init=False)

    def __post_init__(self) -> None:
        plan = self.context.plan
        size = plan.weight_bytes + plan.arena_bytes
        self._swept = np.ones(min(max(size, SWEPT_AT_LEAST), SWEPT_AT_MOST) // 8, np.int64)

    def run(
        self, progress: Callable[[int, int, str], None] | None = None
    ) -> dict[store.LayerKey, tuple[Candidate, ...]]:
        """`found`: measured candidates of every layer (those that the store does not know), by key."""
        outputs = self.context.fresh_outputs()
        external, objects = self.context.bind(self.inputs, outputs)
        steps = self.context.plan.steps
        self._compile()
        for number, step in enumerate(steps):
            for group in self.context.programs([step]):
                if isinstance(group, Program):
                    group.run(external, self.pool)
                else:
                    group.run(self.context.view, objects)
            layer = self.layers.get(step.name)
            if layer is not None and layer.key not in self.found:
                self.found[layer.key] = self._measure_layer(layer, external)
            if progress is not None:
                progress(number + 1, len(steps), step.name)
        return self.found

    def _compile(self) -> None:
        """Compile every candidate's kernel at once: more of it happens side by side."""
        kernels: dict[str, Kernel] = {}
        for layer in {layer.key.text: layer for layer in self.layers.values()}.values():
            for candidate in worth_measuring(layer.candidates):
                for call in self._calls(layer, candidate):
                    kernels[call.kernel.name] = call.kernel
        load(kernels.values(), self.context.plan.target)

    def _calls(self, layer: Layer, candidate: Candidate):  # type: ignore[no-untyped-def]
        site, algorithm = layer.site, ALGORITHMS[candidate.algorithm]
        numbers = count(-2, -1)

        def allocate(size: int) -> int:
            number = next(numbers)
            self.context.add_buffer(number, size)
            return number

        return site.calls(algorithm, candidate.variant, allocate)

    def _measure_layer(self, layer: Layer, external: dict[int, int]) -> tuple[Candidate, ...]:
        fresh = self.context.memory(layer.site.x)
        output = self.context.memory(layer.site.y)
        computed = output.copy()  # where it replaces the residual, every run would add to it
        timed, best = [], float("inf")
        for candidate in worth_measuring(layer.candidates):
            program = Program(self.context, self._calls(layer, candidate))
            seconds = self._seconds(program, external, fresh, BEATEN * best)
            timed.append(replace(candidate, microseconds=round(1e6 * seconds, 2)))
            best = min(best, seconds)
        output[...] = computed
        return tuple(sorted(timed, key=_microseconds))

    def _seconds(self, program: Program, external: dict[int, int], fresh: Array, beaten: float) -> float:
        """The fastest of several runs with the caches as in the network; of one, if that is `beaten`.

        The layer's input is `fresh` in the second cache; weights and output are where the rest of the network
        left them (a network of 25 MB ran 8 % faster when its layers were chosen so).
        """
        program.run(external, self.pool)
        best, spent, runs = float("inf"), 0.0, 0
        while (runs < REPEATS or spent < LEAST_SECONDS) and (runs == 0 or best <= beaten):
            self._swept.max()
            fresh.max(initial=0)
            start = time.perf_counter()
            program.run(external, self.pool)
            seconds = time.perf_counter() - start
            best, spent, runs = min(best, seconds), spent + seconds, runs + 1
        return best
