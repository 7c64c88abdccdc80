"""What the README says runs as it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "line", [c for b in blocks("sh") for c in b.splitlines() if c.startswith("zeroskip ")]
)
def test_commands_run(line: str, place: Path) -> None:
    if "smaller.onnx" in line.split():  # made by an earlier line of the same block
        shutil.copy(place / "examples" / "digits.onnx", place / "smaller.onnx")
    command = [sys.executable, "-m", *line.split()]
    result = subprocess.run(
        command, cwd=place, capture_output=True, text=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert result.returncode == 0, result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_python_example_runs(place: Path) -> None:
    (code,) = blocks("python")
    result = subprocess.run([sys.executable, "-c", code], cwd=place, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "(1, 10)" in result.stdout
    assert (place / "pruned.onnx").is_file()


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE))
def test_make_targets_are_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", TEXT))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
