"""The benchmarks run end to end on a small model, and the pages say what the committed results say."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zeroskip.conv import ALGORITHMS
from zeroskip.encodings import conv_memory
from zeroskip.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
NAMES = (
    "results",
    "networks",
    "roofline",
    "render",
    "must",
    "must_tables",
    "reached",
    "series",
    "curves",
    "shapes",
    "algorithm_tables",
)


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in NAMES}
    finally:
        sys.path.remove(str(FOLDER))


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def measured(colour_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of result files of the colour model."""
    folder = tmp_path_factory.mktemp("results")
    one, two = ("--batch", 1, "--models"), ("--batch", 2, "--add", "--models")
    for script, options in (("rivals", one), ("rivals", two), ("layers", ())):
        done = run(
            f"{script}.py", "--seconds", 0.03, "--out", folder / f"{script}.json", *options, colour_model
        )
        assert done.returncode == 0, done.stderr
    return folder


def test_pages_are_what_the_results_say() -> None:
    done = run("render.py", "--check")
    assert done.returncode == 0, f"{done.stdout}run: python benchmarks/render.py"


def test_results_name_machine_versions_and_command(measured: Path) -> None:
    for path in measured.iterdir():
        found = json.loads(path.read_text())
        assert {"cpu", "caches", "processors"} <= set(found["machine"])
        assert {"zeroskip", "python", "llvm", "numpy"} <= set(found["versions"])
        assert found["command"].startswith(f"python benchmarks/{path.stem}.py ")
        assert str(measured) not in path.read_text()


def test_comparisons(measured: Path) -> None:
    rows = json.loads((measured / "rivals.json").read_text())["comparisons"]
    assert [row["shape"][0] for row in rows] == [1, 2]
    for row in rows:
        ours, theirs = row["contenders"]["zeroskip"], row["contenders"]["onnxruntime"]
        assert theirs["median_ms"] / ours["median_ms"] == pytest.approx(theirs["speedup"], rel=1e-4)
        assert ours["difference"] <= row["tolerance"]
        assert 0 < row["nonzero"] < row["weights"]


def test_rendering(measured: Path, modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules["results"], "FOLDER", measured)
    render = modules["render"]
    text = "".join(f"<!-- {name} -->\nold\n<!-- /{name} -->\n" for name in render.BLOCKS)
    page = render.rendered(text)
    assert "old" not in page
    missing = {name for name, (source, _) in render.BLOCKS.items() if source not in ("rivals", "layers")}
    assert page.count(render.MISSING) == len(missing)
    assert "| `colours` | 2 | 1 |" in page
    assert "GFLOP/s" in page
    assert render.rendered(page) == page
    (plot,) = render.plots().values()
    assert plot.count("<title>") == 1 and plot.endswith("</svg>\n")


def test_floors(modules: dict[str, Any], tmp_path: Path, shared: Path) -> None:
    must = modules["must"]
    built = {"resnet50", "mobilenetv1", "mobilenetv2"}
    for floor in must.FLOORS:
        if floor.network.split(".")[0] not in built:
            assert modules["networks"].find(floor.network).is_file()
    out = tmp_path / "must.json"
    done = run("must.py", "--only", "mnist-lenet", "--seconds", 0.05, "--out", out)
    assert done.stdout[:5] in ("ok   ", "SHORT"), done.stderr
    (entry,) = json.loads(out.read_text())["speed"]
    assert (entry["network"], entry["floor"], done.returncode) == (
        "mnist-lenet",
        0.8,
        0 if entry["met"] else 1,
    )
    found = json.loads(out.read_text())
    assert "`mnist-lenet`" in modules["must_tables"].before_and_after(found)
    assert "| `mnist-lenet` | 1 |" in modules["must_tables"].floors(found)


def test_what_is_held_against_the_floors(modules: dict[str, Any], colour_model: Path, tmp_path: Path) -> None:
    reached, must = modules["reached"], modules["must"]
    same = reached.faster(colour_model, Path(shutil.copy(colour_model, tmp_path / "same.onnx")), 0.05)
    assert 0.3 < same["ratio"] < 3
    assert reached.empty_run(0.05) < 1000
    found = {"sparsity": [same]}
    if must.processors() > 1:
        found["threads"] = [reached.two_threads(colour_model, 0.05)]
        found["callers"] = [reached.two_callers(colour_model, 0.05)]
    for section, (entry,) in found.items():
        assert entry["ratio"] > 0
        assert colour_model.stem in reached.words(entry)
        assert f"`{colour_model.stem}`" in getattr(modules["must_tables"], f"_{section}")(
            [entry | {"floor": 1.0, "met": True}]
        )


def test_what_is_not_there_is_named(modules: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ONNX file"):
        modules["networks"].files([tmp_path])
    with pytest.raises(InputError, match="lenet99"):
        modules["networks"].find("lenet99.s90")


def test_commands_are_shown_without_places(modules: dict[str, Any]) -> None:
    given = ["/home/me/zeroskip/benchmarks/must.py", "--models", "/data/nets", "--seconds", "5"]
    assert modules["results"].command(given) == "python benchmarks/must.py --models nets --seconds 5"


def interrupted_at_the_first_line(script: str, *arguments: object) -> tuple[int, str]:
    """Status and first line of a benchmark that gets Ctrl-C after that line."""
    process = subprocess.Popen(
        [sys.executable, str(FOLDER / script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):  # native code that calls back loses an interrupt
            process.wait(5)
    process.stdout.close()
    return process.returncode, first


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_the_sweep_goes_on_after_an_interrupt(modules: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "algorithms.json"
    options = ("--only", "3x3, 7", "cv12", "--filters", "one", "--seconds", 0, "--out", out)
    status, first = interrupted_at_the_first_line("algorithms.py", *options)
    assert status in (130, -signal.SIGINT)
    assert first.startswith("mec cv12, 1 filter(s): ")
    part = tmp_path / "algorithms.part.json"
    assert not out.exists() and part.is_file()
    done = run("algorithms.py", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("resnet 3x3, 7, 1 filter(s): ")
    assert not part.exists()
    found = json.loads(out.read_text())
    assert [entry["name"] for entry in found["shapes"]] == ["cv12", "3x3, 7"]
    names = {entry["algorithm"] for entry in found["shapes"][0]["measured"]}
    refused = set(found["shapes"][0]["refused"])
    assert names | refused == set(ALGORITHMS) and not names & refused
    for swept in modules["series"].layers(found, many=False):
        assert set(swept.sparse) | set(swept.dense) <= names
        for points in swept.sparse.values():
            assert [x for x, _ in points] == found["densities"][: len(points)]
        assert swept.memory["mec"][0] == (0.05, 4.0 * 53_760)  # cv12 in the paper's table
        plot = modules["curves"].times([swept], list(found["algorithms"]))
        assert plot.endswith("</svg>\n") and "sparse_direct" in plot
        break


def test_crossovers(modules: dict[str, Any]) -> None:
    series = modules["series"]
    points = [(0.1, 10.0), (0.2, 20.0), (0.4, 80.0)]
    assert series.crossing(points, 40.0) == pytest.approx(0.2 * 2**0.5, rel=1e-3)
    assert series.crossing(points, 5.0) == 0.0
    assert series.crossing(points, 100.0) == 1.0
    assert series.at(points, 0.1) == 10.0
    assert series.at(points, 0.5) is None


def test_shapes_are_the_papers(modules: dict[str, Any]) -> None:
    """MEC's table: sizes of im2col's and MEC's matrices, of which the mean ratio is 2.93."""
    ratios = []
    for shape in modules["shapes"].MEC:
        words = [
            conv_memory(name, shape.x_shape, shape.w_shape(1), stride=shape.stride)
            for name in ("im2col", "mec")
        ]
        ratios.append(words[0] / words[1])
    assert sum(ratios) / len(ratios) == pytest.approx(2.93, abs=0.005)


def test_lowerings_beside_rivals(tmp_path: Path) -> None:
    out = tmp_path / "lowering.json"
    done = run("lowering.py", "--only", "cv12", "--seconds", 0.02, "--out", out)
    assert done.stdout[:5] in ("ok   ", "SHORT"), done.stderr
    (row,) = json.loads(out.read_text())["layers"]
    assert done.returncode == (0 if row["met"] else 1)
    assert {"mec", "im2col", "auto", "onnxruntime"} <= set(row["contenders"])
    assert row["ratios"]["mec"] > 0


def test_selection_on_real_pictures(modules: dict[str, Any], tmp_path: Path, shared: Path) -> None:
    out = tmp_path / "selection.json"
    done = run("selection.py", "--only", "cifar10-resnet20", "--seconds", 0.02, "--out", out)
    assert done.stdout[:5] in ("ok   ", "SHORT"), done.stderr
    found = json.loads(out.read_text())
    (net,) = found["networks"]
    assert net["ratio"] > 0 and net["best_single"] in net["contenders"]
    assert len(net["layers"]) == 21
    tables = importlib.import_module("selection_tables")
    assert "`cifar10-resnet20`" in tables.selection(found)
    assert "| 16x32x32 -> 16, 3x3" in tables.winners(found)


def test_every_algorithm_is_described() -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    assert [name for name in ALGORITHMS if f"### `{name}`" not in text] == []
