"""Measuring candidates in the network itself: where a kernel runs decides how fast it is.

A layer that is run over and over alone teaches the processor its branches and keeps its data near; the one
that is best then need not be best between fifty others (a ResNet-50 tuned so was slower than the one
predicted). So the whole network runs, on real activations, each layer by a candidate of its own:

1. *Heats*: a few runs for each candidate that is worth it, one candidate of every layer at a time. What was
   measured says which others are (`selection.contender`).
2. *Finals*: the best few of a layer that are close run alternately, and medians decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from zeroskip.codegen import Call
from zeroskip.codegen.compile import begin
from zeroskip.codegen.runtime import ThreadPool
from zeroskip.conv import ALGORITHMS
from zeroskip.engine.executor import Context, Program
from zeroskip.engine.memory import allocate
from zeroskip.engine.plan import Array, Candidate, PythonCall
from zeroskip.engine.selection import BEATEN, PREDICTED, Layer, contender, microseconds, worth_measuring
from zeroskip.engine.store import LayerKey
from zeroskip.engine.weights import Weights

# Runs of a heat, at least and at most, after the first, which may be slower and does not count; of each side
# in a final.
HEAT, LONG_HEAT, FINAL = 3, 24, 9
# Other users of the processors disturb milliseconds, all runs of a small network, or a whole heat (so a layer
# of a MobileNet once got a kernel that takes twice as long). A heat should last so many seconds, and is
# repeated if it was so many times as slow, measured by predictions, as the fastest, and again as long as that
# makes it so many times as fast.
HEAT_SECONDS, SLOW, BETTER = 0.03, 1.25, 1.1
# Finalists are within this factor of the best, and at most so many.
CLOSE, FINALISTS = 1.2, 4

Progress = Callable[[int, int, str], None]
Part = Program | PythonCall


@dataclass(frozen=True, eq=False)
class Entrant:
    """A candidate that is ready to run in its layer's place; holds the memory that it works in."""

    layer: Layer
    candidate: Candidate
    program: Program
    memory: tuple[Array, ...]


@dataclass(frozen=True)
class Heat:
    """What ran at the same time, and at what pace: the median of the seconds that a predicted cycle took."""

    entries: Sequence[tuple[Layer, Candidate]]
    pace: float


class Stable:
    """Makes entrants: their weights lie in huge pages, one after the other, as a plan's do.

    All of them share the buffers that the calls of one candidate pass on to each other.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._shared: list[Array] = []

    def entrants(
        self, chosen: Sequence[tuple[Layer, Candidate]], packed: Callable[[Layer], None] = lambda layer: None
    ) -> list[Entrant]:
        """One for each choice; kernels are compiled while the next is packed. `packed` is called for each."""
        weights = Weights()
        ready: list[list[Call]] = []
        for layer, candidate in chosen:
            calls = layer.site.calls(ALGORITHMS[candidate.algorithm], candidate.variant, self._allocator())
            begin((call.kernel for call in calls), self._context.plan.target)
            ready.append(weights.gather(calls))
            packed(layer)
        for number, array in enumerate(self._shared):
            self._context.bases[_buffer(number)] = int(array.ctypes.data)
        memory = tuple(self._shared)
        return [
            Entrant(layer, candidate, Program(self._context, calls), memory)
            for (layer, candidate), calls in zip(chosen, ready, strict=True)
        ]

    def _allocator(self) -> Callable[[int], int]:
        asked = 0

        def ask(size: int) -> int:
            nonlocal asked
            if asked == len(self._shared):
                self._shared.append(allocate(size))
            elif self._shared[asked].nbytes < size:
                self._shared[asked] = allocate(size)
            asked += 1
            return _buffer(asked - 1)

        return ask


def _buffer(number: int) -> int:
    """What calls name the shared buffer: no plan has negative numbers, and -1 is none."""
    return -2 - number


class Track:
    """The network as it was planned, in whose steps entrants can take the place of layers."""

    def __init__(
        self, context: Context, inputs: Mapping[str, Array], pool: ThreadPool | None, layers: Sequence[Layer]
    ) -> None:
        self._context, self._inputs, self._pool = context, inputs, pool
        self._outputs = context.fresh_outputs()
        coming = iter(layers)  # nodes may have the same name, or none, but they stand in this order
        self._steps: list[tuple[Layer | None, list[Part], list[Part]]] = []
        for step in context.plan.steps:
            layer = next(coming) if step.how == PREDICTED else None
            first = layer.site.before if layer else 0
            parts = (step.calls[:first], step.calls[first:])
            prepare, work = (context.programs([replace(step, calls=calls)]) for calls in parts)
            self._steps.append((layer, prepare, work))

    def run(self, entrants: Iterable[Entrant]) -> dict[Layer, float]:
        """Run the network up to the last entrant; the seconds of each by its layer."""
        external, objects = self._context.bind(self._inputs, self._outputs)
        running = {entrant.layer: entrant.program for entrant in entrants}
        seconds: dict[Layer, float] = {}

        for layer, prepare, work in self._steps:
            if len(seconds) == len(running):
                break
            self._context.run_groups(prepare, external, objects, self._pool)
            if layer is None or layer not in running:
                self._context.run_groups(work, external, objects, self._pool)
                continue
            start = time.perf_counter()
            running[layer].run(external, self._pool)
            seconds[layer] = time.perf_counter() - start
        return seconds


@dataclass(eq=False)
class Tuner:
    """Measures the candidates of `layers`, some of which may be `measured` already.

    Layers of one key share what is measured: heats are run in the first of them, finals in all.
    """

    context: Context
    inputs: Mapping[str, Array]
    pool: ThreadPool | None
    layers: Sequence[Layer]
    measured: Mapping[LayerKey, Sequence[Candidate]] = field(default_factory=dict)
    found: dict[LayerKey, tuple[Candidate, ...]] = field(default_factory=dict, init=False)
    """Layers all of whose candidates are measured, fastest first."""

    def __post_init__(self) -> None:
        self._groups: dict[LayerKey, list[Layer]] = {}
        for layer in self.layers:
            self._groups.setdefault(layer.key, []).append(layer)
        self._times: dict[LayerKey, dict[tuple[str, str], Candidate]] = {
            key: {c.name: c for c in self.measured.get(key, ())} for key in self._groups
        }
        self._worth = {key: len(worth_measuring(group[0].candidates)) for key, group in self._groups.items()}
        self._stable = Stable(self.context)
        self._track = Track(self.context, self.inputs, self.pool, self.layers)

    def run(self, progress: Progress | None = None) -> dict[LayerKey, tuple[Candidate, ...]]:
        """`found`, complete; `progress` is told of finished and all candidates."""
        report = _growing(progress or (lambda done, total, name: None))
        total = sum(self._worth.values()) + len(self._worth)
        heats: list[Heat] = []
        while more := self._heats(report, total):
            heats += more
            normal = SLOW * min(heat.pace for heat in heats)
            slow = [heat for heat in more if heat.pace > normal]
            while slow:  # these may have kept others out, which come next
                again = [Heat(heat.entries, self._heat(heat.entries, lambda layer: None)) for heat in slow]
                slow = [
                    new for old, new in zip(slow, again, strict=True) if normal < new.pace < old.pace / BETTER
                ]
        done = self._done({})
        self._finals(_counted(report, done, total))
        report(total, total, "")
        return self.found

    def _heats(self, report: Progress, total: int) -> list[Heat]:
        """Heats until no other candidate may win."""
        heats, racing = [], dict(self._groups)
        while racing:
            entries = []
            for key, group in list(racing.items()):
                candidate = contender(group[0].candidates, list(self._times[key].values()))
                if candidate is None:
                    del racing[key]
                else:
                    entries.append((group[0], candidate))
            if entries:
                pace = self._heat(entries, _counted(report, self._done(racing), total))
                heats.append(Heat(entries, pace))
        return heats

    @property
    def unfinished(self) -> dict[LayerKey, tuple[Candidate, ...]]:
        """What is measured of the other layers."""
        return {k: tuple(times.values()) for k, times in self._times.items() if times and k not in self.found}

    def _done(self, racing: Mapping[LayerKey, object]) -> int:
        """Candidates that are measured, or need not be."""
        return sum(len(self._times[k]) if k in racing else worth for k, worth in self._worth.items())

    def _heat(self, entries: Sequence[tuple[Layer, Candidate]], packed: Callable[[Layer], None]) -> float:
        """Some runs with each layer's entry; those that are beaten, by no mere disturbance, leave early.

        Returns the pace.
        """
        entrants = {entrant.layer: entrant for entrant in self._stable.entrants(entries, packed)}
        start = time.perf_counter()
        fastest = self._track.run(entrants.values())
        best = {layer: self._best(layer.key) for layer in entrants}
        runs, spent = 0, 0.0
        while entrants and runs < (LONG_HEAT if spent < HEAT_SECONDS else HEAT):
            finished = self._track.run(entrants.values())
            runs, spent = runs + 1, time.perf_counter() - start
            for layer, seconds in finished.items():
                self._record(entrants[layer], seconds)
                fastest[layer] = min(fastest[layer], seconds)
                if fastest[layer] > BEATEN * best[layer] and (spent > HEAT_SECONDS / 2 or runs > HEAT):
                    del entrants[layer]
        return median(fastest[layer] / (candidate.predicted_cycles or 1.0) for layer, candidate in entries)

    def _best(self, key: LayerKey) -> float:
        return 1e-6 * min(map(microseconds, self._times[key].values()), default=float("inf"))

    def _record(self, entrant: Entrant, seconds: float) -> None:
        """The fastest of a candidate's runs counts: whatever disturbs one makes it slower."""
        times, candidate = self._times[entrant.layer.key], entrant.candidate
        known = times.get(candidate.name, candidate)
        times[candidate.name] = replace(
            candidate, microseconds=min(microseconds(known), round(1e6 * seconds, 2))
        )

    def _finals(self, packed: Callable[[Layer], None]) -> None:
        """The best of each layer against those close to it, one after the other."""
        rivals = {key: _finalists(times.values()) for key, times in self._times.items()}
        champions = self._entrants({key: close[0] for key, close in rivals.items() if len(close) > 1}, packed)
        for place in range(1, FINALISTS):
            close = {key: close[place] for key, close in rivals.items() if len(close) > place}
            challengers = self._entrants(close, lambda layer: None)
            mine = {key: champions[key] for key in close}
            for key, ratio in self._duel(mine, challengers).items():
                champion, challenger = champions[key][0].candidate, close[key]
                time = round(ratio * microseconds(self._times[key][champion.name]), 2)
                self._times[key][challenger.name] = replace(challenger, microseconds=time)
                if ratio < 1:
                    champions[key] = challengers[key]
        for key, times in self._times.items():
            self.found[key] = tuple(sorted(times.values(), key=microseconds))

    def _entrants(
        self, chosen: Mapping[LayerKey, Candidate], packed: Callable[[Layer], None]
    ) -> dict[LayerKey, list[Entrant]]:
        """Entrants in all layers of each key."""
        entries = [(layer, candidate) for key, candidate in chosen.items() for layer in self._groups[key]]
        made: dict[LayerKey, list[Entrant]] = {}
        for entrant in self._stable.entrants(entries, packed):
            made.setdefault(entrant.layer.key, []).append(entrant)
        return made

    def _duel(
        self, champions: Mapping[LayerKey, list[Entrant]], challengers: Mapping[LayerKey, list[Entrant]]
    ) -> dict[LayerKey, float]:
        """How many times as long as the champion each challenger takes, in all layers of the key."""
        sides = [[e for group in side.values() for e in group] for side in (champions, challengers)]
        if not sides[0]:
            return {}
        runs: tuple[list[dict[Layer, float]], ...] = ([], [])
        for number in range(FINAL + 1):
            for side, times in zip(sides, runs, strict=True):
                seconds = self._track.run(side)
                if number:
                    times.append(seconds)
        first, second = (
            {
                key: sum(median(run[e.layer] for run in times) for e in group)
                for key, group in challengers.items()
            }
            for times in runs
        )
        return {key: second[key] / first[key] for key in challengers}


def _finalists(times: Iterable[Candidate]) -> list[Candidate]:
    """The best candidate and those close to it."""
    order = sorted(times, key=microseconds)
    return [c for c in order[:FINALISTS] if microseconds(c) <= CLOSE * microseconds(order[0])]


def _growing(report: Progress) -> Progress:
    """Reports progress that never shrinks: a heat that is run again may bring candidates back."""
    reached = 0

    def grown(done: int, total: int, name: str) -> None:
        nonlocal reached
        reached = max(reached, done)
        report(reached, total, name)

    return grown


def _counted(report: Progress, done: int, total: int) -> Callable[[Layer], None]:
    """Reports each layer as one more candidate."""
    count = done

    def packed(layer: Layer) -> None:
        nonlocal count
        count = min(count + 1, total)
        report(count, total, layer.name)

    return packed
