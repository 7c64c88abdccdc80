"""The tuning store and the cache of kernels: shared by processes, survivors of damage, never in the way."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import warnings
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from zeroskip.codegen import compile as compilation
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions
from zeroskip.engine.plan import Candidate
from zeroskip.engine.selection import contender
from zeroskip.engine.tuning import Stable, Tuner
from zeroskip.errors import CacheWarning

TUNED = SessionOptions(tune=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty folder for caches, and no kernels in memory."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(folder))
    monkeypatch.setattr(compilation, "_loaded", {})
    monkeypatch.setattr("zeroskip.codegen.cache._warned", set())
    return folder


@pytest.fixture
def answer(networks):
    """The small network's answer, checked against onnxruntime's."""
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)}
    expected = networks.rival(networks.small()).run(None, x)[0]

    def check(options=TUNED):
        session = InferenceSession(networks.small(), options)
        np.testing.assert_allclose(session.run(None, x)[0], expected, atol=1e-4 * np.abs(expected).max())
        return session

    return check


def rows(cache):
    """What was measured."""
    with closing(sqlite3.connect(cache / "tuning.sqlite")) as connection:
        found = connection.execute("SELECT key, candidates FROM choices WHERE key NOT LIKE '% predicted|%'")
        return dict(found.fetchall())


def convolutions(session):
    return [step for step in session.plan.steps if step.op == "Conv"]


def test_measured_once_and_remembered(cache, networks):
    steps = []
    options = SessionOptions(tune=True, progress=lambda done, total, name: steps.append(name))
    first = InferenceSession(networks.small(), options)
    assert {"first", "second"} <= set(steps)
    assert [step.how for step in convolutions(first)] == ["measured"] * 2
    assert rows(cache)
    steps.clear()
    again = InferenceSession(networks.small(), options)
    assert not steps, "nothing is left to be measured"
    untuned = InferenceSession(networks.small())
    for session in (again, untuned):
        for step, before in zip(convolutions(session), convolutions(first)):
            assert (step.algorithm, step.variant, step.how) == (before.algorithm, before.variant, "measured")


def test_predicted_once_and_remembered(cache, networks, monkeypatch):
    first = InferenceSession(networks.small())
    with monkeypatch.context() as patch:
        patch.setattr("zeroskip.engine.selection.predict", lambda *layer: pytest.fail("predicted again"))
        again = InferenceSession(networks.small())
    for before, step in zip(convolutions(first), convolutions(again), strict=True):
        assert (step.algorithm, step.variant, step.how) == (before.algorithm, before.variant, "predicted")
        assert step.candidates == before.candidates


def test_predictions_of_other_algorithms_are_not_remembered(cache, networks, monkeypatch):
    InferenceSession(networks.small())
    few = {name: ALGORITHMS[name] for name in ("direct", "im2col")}
    monkeypatch.setattr("zeroskip.engine.selection.ALGORITHMS", few)
    for step in convolutions(InferenceSession(networks.small())):
        assert {candidate.algorithm for candidate in step.candidates} == set(few)


def test_the_fastest_is_chosen(cache, networks):
    for step in convolutions(InferenceSession(networks.small(), TUNED)):
        times = {
            (c.algorithm, c.variant): c.microseconds for c in step.candidates if c.microseconds is not None
        }
        assert times[step.algorithm, step.variant] == min(times.values())
        assert all(c.reason or c.microseconds is not None for c in step.candidates)
        assert any(c.algorithm == "direct" for c in step.candidates), "dense is always a candidate"


def test_a_forced_algorithm_is_measured_apart(cache, networks):
    """Having forced one algorithm does not make it the choice of later sessions."""
    forced = InferenceSession(networks.small(), SessionOptions(tune=True, algorithm="direct"))
    assert {step.algorithm for step in convolutions(forced)} == {"direct"}
    free = InferenceSession(networks.small(), TUNED)
    for step in convolutions(free):
        assert len({c.algorithm for c in step.candidates if c.microseconds is not None}) > 1


def test_calibration_is_measured_on(cache, networks):
    x = np.ones((2, 3, 12, 12), np.float32)
    kept = x.copy()
    session = InferenceSession(networks.small(), SessionOptions(tune=True, calibration={"x": x}))
    assert session.plan.shapes == {"x": (2, 3, 12, 12)}
    np.testing.assert_array_equal(x, kept)


def test_damaged_kernels_are_compiled_anew(cache, answer, monkeypatch):
    answer()
    objects = list((cache / "objects").glob("*.o"))
    assert objects
    for number, path in enumerate(objects):
        content = path.read_bytes()
        path.write_bytes([b"", content[:50], content[:-1], content[:60] + b"x" + content[61:]][number % 4])
    monkeypatch.setattr(compilation, "_loaded", {})
    with pytest.warns(CacheWarning, match=r"are damaged; compiling them anew"):
        answer()
    monkeypatch.setattr(compilation, "_loaded", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer()


def test_a_damaged_store_is_put_aside(cache, answer):
    answer()
    store = cache / "tuning.sqlite"
    good = store.read_bytes()
    for damaged in (
        b"not a database at all" * 50,
        good[: len(good) // 2],
        good[:100] + b"\xff" * (len(good) - 100),
    ):
        store.write_bytes(damaged)
        with pytest.warns(CacheWarning, match=r"tuning store .*damaged"):
            answer()
        assert (cache / "tuning.sqlite.damaged").exists()
        assert rows(cache)


@pytest.mark.parametrize("content", ["{", "[1]", '[{"algorithm": "direct", "speed": 3}]', "[]", "null"])
def test_damaged_entries(cache, answer, content):
    answer()
    with closing(sqlite3.connect(cache / "tuning.sqlite")) as connection, connection:
        connection.execute("UPDATE choices SET candidates = ?", (content,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        answer()
        assert all(step.how == "measured" for step in convolutions(answer()))


@pytest.mark.parametrize("name", ["no_such_algorithm", "direct"])
def test_entries_of_another_library(cache, answer, name):
    """Algorithms or variants that this version has not are not chosen."""
    answer()
    entry = [
        {"algorithm": name, "variant": "977x3", "microseconds": 0.1, "predicted_cycles": 1, "reason": ""}
    ]
    with closing(sqlite3.connect(cache / "tuning.sqlite")) as connection, connection:
        connection.execute("UPDATE choices SET candidates = ?", (json.dumps(entry),))
    session = answer(SessionOptions())
    assert all(step.variant != "977x3" for step in convolutions(session))


def test_a_store_that_is_empty(cache, answer):
    """As another process leaves it that has only just begun."""
    cache.mkdir()
    (cache / "tuning.sqlite").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer()


def test_a_folder_in_place_of_the_store(cache, answer):
    (cache / "tuning.sqlite").mkdir(parents=True)
    with pytest.warns(CacheWarning, match=r"tuning store .* cannot be (read|written)"):
        answer()


def test_a_file_in_place_of_the_folder(cache, answer):
    cache.write_text("no folder")
    with pytest.warns(CacheWarning, match=r"ZEROSKIP_CACHE_DIR") as caught:
        answer()
    kernels = [str(w.message) for w in caught if "compiled kernels" in str(w.message)]
    assert len(kernels) == len(set(kernels)) <= 2, "one for reading, one for writing, not one for each kernel"


def test_a_locked_store_is_waited_for_then_done_without(cache, answer, monkeypatch):
    answer()
    monkeypatch.setattr("zeroskip.engine.store._BUSY_SECONDS", 0.05)
    with closing(sqlite3.connect(cache / "tuning.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.warns(CacheWarning, match="locked"):
            answer()
    assert rows(cache)


@pytest.fixture
def packed(monkeypatch):
    """The layers and variants that were made ready to be measured, in order."""
    made, real = [], Stable.entrants

    def entrants(self, chosen, *rest):
        made.extend((layer.name, c.algorithm, c.variant) for layer, c in chosen)
        return real(self, chosen, *rest)

    monkeypatch.setattr(Stable, "entrants", entrants)
    return made


@pytest.mark.parametrize("candidates", [1, 5, 12])
def test_interrupted_tuning_keeps_what_was_measured(cache, answer, networks, packed, candidates, monkeypatch):
    monkeypatch.setattr("zeroskip.engine.tuning.SLOW", np.inf)  # slow heats would be packed again
    answer()
    before, model = rows(cache), networks.small(seed=5, size=20)
    packed.clear()

    def interrupt(done, total, name):
        if done > candidates:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InferenceSession(model, SessionOptions(tune=True, progress=interrupt))
    after = rows(cache)
    unfinished = [json.loads(after[key]) for key in after.keys() - before.keys()]
    measured = {(c["algorithm"], c["variant"]) for found in unfinished for c in found}
    heats = len(packed) - len(packed) % 2 - 2  # of the two layers; the last one ran no more
    assert sum(map(len, unfinished)) >= max(0, heats)
    untuned = InferenceSession(model)
    assert {step.how for step in convolutions(untuned)} == {"predicted"}, "other candidates may be faster"
    packed.clear()
    tuned = InferenceSession(model, TUNED)
    assert {step.how for step in convolutions(tuned)} == {"measured"}
    twice = [name for name in packed if name[1:] in measured]
    assert len(twice) <= 2 * 3 + len(measured), "finals, and what only the other layer had measured"
    assert len(rows(cache)) == len(before) + 2, "nothing is unfinished any more"


def test_an_interrupted_tuning_is_continued(cache, networks, packed, monkeypatch):
    """With all measured, only finals are left."""
    model = networks.small(seed=6)

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroskip.engine.tuning.Tuner._finals", lambda self, packed: interrupt())

    with pytest.raises(KeyboardInterrupt):
        InferenceSession(model, TUNED)
    assert packed
    packed.clear()
    with pytest.raises(KeyboardInterrupt):
        InferenceSession(model, TUNED)
    assert not packed


def test_slow_heats_are_run_again_as_long_as_that_helps(cache, networks, monkeypatch):
    """The second heat seems to be disturbed: less and less, then as much as before."""
    ran, heat = [], Tuner._heat
    paces = iter([2.0, 1.7, 1.4, 1.4])

    def disturbed(tuner, entries, packed):
        heat(tuner, entries, packed)
        ran.append([candidate.name for _, candidate in entries])
        return next(paces) if len(ran) > 1 and ran[-1] == ran[1] else 1.0

    monkeypatch.setattr("zeroskip.engine.tuning.Tuner._heat", disturbed)
    InferenceSession(networks.small(), TUNED)
    assert next(paces, None) is None
    assert ran.count(ran[1]) == 4
    assert all(ran.count(names) == 1 for names in ran if names != ran[1])


def test_progress_only_grows(cache, networks):
    seen = []
    InferenceSession(
        networks.small(), SessionOptions(tune=True, progress=lambda *report: seen.append(report[:2]))
    )
    totals = {total for _, total in seen}
    counts = [done for done, _ in seen]
    assert len(totals) == 1 and counts == sorted(counts) and counts[-1] == max(totals)


def candidate(algorithm, variant, cycles, microseconds=None):
    return Candidate(algorithm, variant, microseconds, cycles)


RACE = (
    candidate("sparse_direct", "1x14", 100),
    candidate("sparse_direct", "1x8", 110),
    candidate("sparse_direct", "1x4", 190),
    candidate("sparse_direct", "1x6", 195),
    candidate("direct", "8x3", 150),
    candidate("direct", "6x4", 160),
    candidate("im2col", "8x3", 900),
)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({}, "1x14"),
        ({"1x14": 10}, "1x8"),
        ({"1x14": 10, "1x8": 11}, "8x3"),  # of each kind the first
        ({"1x14": 10, "1x8": 11, "8x3": 14}, "6x4"),  # and the second
        ({"1x14": 10, "1x8": 11, "8x3": 16}, None),  # unless the first was far behind
        ({"1x14": 10, "1x8": 5.5, "8x3": 16}, None),
        ({"1x14": 19, "1x8": 6, "8x3": 20}, None),  # 1x4 would take 10.4
        ({"1x14": 6, "1x8": 11, "8x3": 6.5, "6x4": 9}, None),
        ({"1x14": 10, "1x8": 11, "8x3": 15, "6x4": 16}, None),
        ({"1x14": 20, "1x8": 10, "8x3": 14.5, "6x4": 17}, None),
    ],
)
def test_who_is_measured_next(measured, expected):
    """A variant is expected to be as much slower than predicted as others of its kind were."""
    done = [replace(c, microseconds=measured[c.variant]) for c in RACE if c.variant in measured]
    found = contender(RACE, [c for c in done if c.algorithm != "im2col"])
    assert (found and found.variant) == expected


PROCESS = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np
from zeroskip.conv import ALGORITHMS
from zeroskip.engine import InferenceSession, SessionOptions
x = {"x": np.ones((1, 3, 12, 12), np.float32)}
for threads in (1, 2):
    session = InferenceSession(sys.argv[1], SessionOptions(tune=True, threads=threads))
    print(session.run(None, x)[0].ravel().tolist())
"""


def test_processes_share_store_and_cache(cache, networks, tmp_path):
    path = tmp_path / "small.onnx"
    path.write_bytes(networks.small())
    command = [sys.executable, "-c", PROCESS, str(path)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)
    ]
    results = [process.communicate(timeout=120) for process in running]
    expected = networks.rival(path).run(None, {"x": np.ones((1, 3, 12, 12), np.float32)})[0].ravel()
    for process, (output, errors) in zip(running, results):
        assert process.returncode == 0, errors
        for line in output.splitlines():
            np.testing.assert_allclose(json.loads(line), expected, rtol=1e-4, atol=1e-4)
    assert len(rows(cache)) == 4, "two layers, for one thread and for two"
    assert not list(cache.rglob("*.tmp*")), "no temporary files are left"
