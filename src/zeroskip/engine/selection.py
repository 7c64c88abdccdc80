"""Choosing each convolution's algorithm: drop what refuses, predict, take the fastest of the measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zeroskip.codegen import Target
from zeroskip.conv import ALGORITHMS, Algorithm, ConvProblem, find
from zeroskip.conv.preparation import preparation
from zeroskip.engine import store
from zeroskip.engine.convolutions import Choice, ConvSite
from zeroskip.engine.plan import Candidate
from zeroskip.errors import AlgorithmError

# A variant predicted slower than the best by this factor is not measured; the model errs by less than this.
HOPELESS = 2.0
MEASURED_AT_MOST = 10
PREDICTED = "predicted"
# What guesses zeros among the activations is taken unmeasured where it is predicted faster by this factor:
# some networks have fewer.
GUESSED = 1.1
# What is not measured runs with kernels that other layers have, unless others are predicted faster by this
# factor: predictions err by more, and compiling a kernel takes 40 ms.
ANOTHER_KERNEL = 1.05
# Of each kind of candidates so many are tried, unless the first is beaten by this factor; another one if it
# would come within the last factor of the layer's best, were it as much slower than predicted as its kind. So
# half of those above are measured, and the layers of five networks take 0.6 % longer.
TRIED, BEATEN, PROMISING = 2, 1.5, 1.2


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution to be chosen for: its site, the key of its measurements, and what is predicted."""

    name: str
    site: ConvSite
    key: store.LayerKey
    candidates: tuple[Candidate, ...]


@dataclass
class Selector:
    """Answers the lowering's question; knows what was measured or predicted, now or before.

    `algorithm` is forced on every layer, `prefer` on those it accepts, unless they are ``"auto"``. Of what
    is `known`, `fresh` are the predictions that the store has not.
    """

    target: Target
    threads: int
    algorithm: str
    prefer: str = "auto"
    known: store.Remembered = field(default_factory=dict)
    fresh: store.Remembered = field(default_factory=dict)
    layers: list[Layer] = field(default_factory=list)
    _kernels: set[tuple[str, bool, str]] = field(default_factory=set)

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

    def measured(self, problem: ConvProblem) -> list[Candidate]:
        """What the store knows of this convolution."""
        return self.current(self.known.get(self.key(problem), ()), problem)

    def current(self, entries: Sequence[Candidate], problem: ConvProblem) -> list[Candidate]:
        """The measured ones among remembered candidates that are still variants of an algorithm."""
        names = {candidate.algorithm for candidate in entries}
        rows = [row for row in self.rows(problem) if row.name in names]
        variants = {row.name: row.variants(problem, self.target) for row in rows}
        there = [c for c in entries if c.variant in variants.get(c.algorithm, ())]
        return [c for c in there if c.microseconds is not None]

    def choose(self, name: str, site: ConvSite) -> Choice:
        """The fastest known variant of the layer, else the one predicted fastest.

        That may guess zeros among the activations only where these come from a ReLU.
        """
        rows = self.rows(site.problem)
        key = self.key(site.problem)
        measured = self.measured(site.problem)
        if measured:
            best = min(measured, key=microseconds)
            candidates = tuple(sorted(measured, key=microseconds)) + refusals(rows, site.problem, self.target)
            return Choice(best.algorithm, best.variant, "measured", candidates)
        candidates = self._candidates(rows, store.predicted(key), site.problem)
        possible = [c for c in candidates if not c.reason]
        if not possible:
            reasons = "; ".join(f"{c.algorithm}: {c.reason}" for c in candidates)
            raise AlgorithmError(f"layer {name!r} is refused by algorithm {self.algorithm!r}: {reasons}")
        self.layers.append(Layer(name, site, key, candidates))
        first = min(possible if site.problem.rectified else _certain(possible), key=self._cost)
        self._kernels.add(_kernel(first))
        return Choice(first.algorithm, first.variant, PREDICTED, candidates)

    def _candidates(
        self, rows: Sequence[Algorithm], key: store.LayerKey, problem: ConvProblem
    ) -> tuple[Candidate, ...]:
        """What is predicted of a layer: layers that share what is measured share that too."""
        found = self.known.get(key, ())
        if {candidate.algorithm for candidate in found} != {row.name for row in rows}:
            found = self.known[key] = self.fresh[key] = predict(rows, problem, self.target)
        return found

    def _cost(self, candidate: Candidate) -> float:
        factor = 1.0 if _kernel(candidate) in self._kernels else ANOTHER_KERNEL
        guessed = GUESSED if ALGORITHMS[candidate.algorithm].guesses else 1.0
        return factor * guessed * (candidate.predicted_cycles or 0.0)


def _kernel(candidate: Candidate) -> tuple[str, bool, str]:
    """What tells a candidate's kernels from others': what follows a variant's slash are numbers for them."""
    whole = ALGORITHMS[candidate.algorithm].whole(candidate.variant)
    return candidate.algorithm, whole, candidate.variant.partition("/")[0]


def _certain(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """The candidates whose prediction guesses no zeros, if there are any."""
    return [c for c in candidates if not ALGORITHMS[c.algorithm].guesses] or candidates


def microseconds(candidate: Candidate) -> float:
    """Its time, infinite if it was not measured."""
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
            predicted_cycles=row.cycles(problem, variant, target) + preparation(row, variant, problem),
        )
        for row in rows
        if row.name not in names
        for variant in row.variants(problem, target)
    ]
    return (*possible, *refused)


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


def contender(candidates: tuple[Candidate, ...], measured: Sequence[Candidate]) -> Candidate | None:
    """The candidate to be measured next, None where no other one may win.

    Predictions are compared within a kind (variants of an algorithm, on shifted panels or not) as they are,
    and with other kinds' after correction by what was measured.
    """
    times = {c.name: microseconds(c) for c in measured}
    best = min(times.values(), default=float("inf"))
    expected: list[tuple[float, Candidate]] = []
    for kind in _kinds(worth_measuring(candidates)):
        known = [c for c in kind if c.name in times]
        left = [c for c in kind if c.name not in times]
        fastest = min((times[c.name] for c in known), default=0.0)
        if left and len(known) < TRIED and fastest <= BEATEN * best:
            return left[0]
        if left:
            slower = min(times[c.name] / (c.predicted_cycles or 1.0) for c in known)
            expected.append((slower * (left[0].predicted_cycles or 1.0), left[0]))
    time, candidate = min(expected, key=lambda entry: entry[0], default=(float("inf"), None))
    return candidate if time <= PROMISING * best else None


def _kinds(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """The candidates by kind, each kind's and the kinds in order of their predictions."""
    kinds: dict[tuple[str, bool], list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: c.predicted_cycles or 0.0):
        whole = ALGORITHMS[candidate.algorithm].whole(candidate.variant)
        kinds.setdefault((candidate.algorithm, whole), []).append(candidate)
    return list(kinds.values())
