"""The benchmarks run end to end on a small model, and the pages say what the committed results say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from zeroskip.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "benchmarks"
NAMES = ("results", "networks", "roofline", "render", "must")


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
    for script, options in {"rivals": ("--batch", 1, 2, "--models"), "layers": ()}.items():
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
    assert page.count(render.MISSING) == 2  # no must.json: the README's block and the floors
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
    assert "`mnist-lenet`" in modules["render"].results_block(json.loads(out.read_text()))


def test_what_is_not_there_is_named(modules: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no ONNX file"):
        modules["networks"].files([tmp_path])
    with pytest.raises(InputError, match="lenet99"):
        modules["networks"].find("lenet99.s90")


def test_commands_are_shown_without_places(modules: dict[str, Any]) -> None:
    given = ["/home/me/zeroskip/benchmarks/must.py", "--models", "/data/nets", "--seconds", "5"]
    assert modules["results"].command(given) == "python benchmarks/must.py --models nets --seconds 5"
