"""``zeroskip doctor --calibrate`` as users call it: what it measures is kept, and shown from then on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def doctor(cache: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb", "ZEROSKIP_CACHE_DIR": str(cache)}
    command = [sys.executable, "-m", "zeroskip", "doctor", *options]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | plain | environment)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibrated")


@pytest.fixture(scope="module")
def calibrated(cache: Path) -> subprocess.CompletedProcess[str]:
    return doctor(cache, "--calibrate", "--seconds", "0.002")


def test_not_measured(tmp_path: Path) -> None:
    done = doctor(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "zeroskip doctor --calibrate" in done.stdout
    assert json.loads(doctor(tmp_path, "--json").stdout)["sparse_roofline"] is None


def test_calibrate(calibrated: subprocess.CompletedProcess[str]) -> None:
    assert (calibrated.returncode, calibrated.stderr) == (0, "")
    assert max(map(len, calibrated.stdout.splitlines())) <= 80
    for word in ("alpha", "beta", "GB/s", "3x3, 64x56x56", "knee"):
        assert word in calibrated.stdout


def test_what_was_measured_is_kept(cache: Path, calibrated: subprocess.CompletedProcess[str]) -> None:
    done = doctor(cache, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)["sparse_roofline"]
    machine = found["machine"]
    assert machine["flops"] > 1e9 and machine["bandwidth"] > 1e8
    assert machine["alpha"] > 0.5
    assert 1.4 < machine["beta"] < 2.2  # 6 or 8 bytes for each non-zero
    for layer in found["layers"]:
        assert [point["density"] for point in layer["points"]] == [0.05, 0.1, 0.2, 0.4]
    assert f"alpha      {machine['alpha']:.2f}" in doctor(cache).stdout
    code = "import zeroskip as zs; print(zs.sparse_roofline((1, 64, 56, 56), (64, 64, 3, 3)).machine.alpha)"
    environment = os.environ | {"ZEROSKIP_CACHE_DIR": str(cache)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert float(shown.stdout) == machine["alpha"]


def test_bad_options_and_places(tmp_path: Path) -> None:
    assert doctor(tmp_path, "--calibrate", "--seconds", "0").returncode == 2
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    done = doctor(blocked / "cache")
    assert done.returncode == 0


def test_a_damaged_calibration_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "sparse-roofline.json").write_text("{")
    done = doctor(tmp_path, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["sparse_roofline"] is None
    (line,) = done.stderr.splitlines()
    assert line.startswith("zeroskip: warning: ") and "--calibrate" in line


@pytest.mark.skipif(os.name == "nt", reason="POSIX terminals")
def test_a_terminal_sees_a_bar_and_a_program_json_alone(cache: Path) -> None:
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "zeroskip", "doctor", "--calibrate", "--seconds", "0.002", "--json"]
    environment = os.environ | {"ZEROSKIP_CACHE_DIR": str(cache), "TERM": "xterm", "COLUMNS": "80"}
    shown = bytearray()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end, env=environment) as process:
        os.close(end)
        try:
            while part := os.read(terminal, 4096):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
    os.close(terminal)
    assert process.returncode == 0
    assert b"calibrating" in shown
    assert len(found["sparse_roofline"]["layers"]) == 4
