"""The commands as users call them: a process, its two outputs, its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zeroskip.cli import main
from zeroskip.cli.app import COMMANDS

Run = subprocess.CompletedProcess[str]


def zeroskip(*arguments: object, **environment: str) -> Run:
    command = [sys.executable, "-m", "zeroskip", *map(str, arguments)]
    plain = {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | plain | environment)


def succeeded(*arguments: object, **environment: str) -> str:
    result = zeroskip(*arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def as_json(*arguments: object) -> dict[str, Any]:
    found = json.loads(succeeded(*arguments, "--json"))
    assert isinstance(found, dict)
    return found


def refused(*arguments: object, status: int = 1) -> str:
    """The single line on standard error."""
    result = zeroskip(*arguments)
    assert result.returncode == status
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("zeroskip: ")
    return line


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_80_columns(command: str) -> None:
    text = succeeded(*([command] if command else []), "--help")
    assert max(map(len, text.splitlines())) <= 80
    expected = ("MODEL", "--json", "--debug") if command not in ("", "doctor") else ("--help",)
    assert all(word in text for word in expected)


def test_version() -> None:
    assert succeeded("--version").startswith("zeroskip 0.")


@pytest.mark.parametrize(
    "arguments",
    [(), ("bake",), ("inspect",), ("inspect", "m.onnx", "--fast"), ("bench", "m.onnx", "--threads", "none"),
     ("optimize", "m.onnx"), ("evaluate", "m.onnx")],
)  # fmt: skip
def test_a_wrong_command_line(arguments: tuple[str, ...]) -> None:
    result = zeroskip(*arguments)
    assert result.returncode == 2
    assert "Usage: zeroskip" in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_inspect(colour_model: Path, golden: Callable[[str, str], None]) -> None:
    golden("inspect.txt", succeeded("inspect", colour_model))


def test_inspect_pictures(colour_model: Path, colour_pictures: Path) -> None:
    found = as_json("inspect", colour_model, "--images", colour_pictures)
    assert found["total"] == {
        "dense_macs": 16 * 16 * 81,
        "effectual_macs": 16 * 16 * 3,
        "weights": 81,
        "nonzero": 3,
    }
    assert [layer["name"] for layer in found["layers"]] == ["mix", "pool", "flatten"]
    assert 0 <= found["layers"][0]["input_zeros"] < 0.5


def test_evaluate(colour_model: Path, colour_pictures: Path) -> None:
    found = as_json("evaluate", colour_model, "--images", colour_pictures)
    assert (found["top1"], found["top5"], found["images"]) == (1.0, 1.0, 24)
    swapped = as_json("evaluate", colour_model, "--images", colour_pictures, "-p", "order=BGR", "--limit", 9)
    assert swapped["top1"] == pytest.approx(1 / 3)
    assert "100.0 %" in succeeded("evaluate", colour_model, "--images", colour_pictures)


def test_bench(colour_model: Path) -> None:
    found = as_json("bench", colour_model, "--seconds", "0.05", "--batch", 2)
    ours, theirs = found["contenders"][:2]
    assert (ours["name"], theirs["name"], found["reference"]) == ("zeroskip", "onnxruntime", "onnxruntime")
    assert ours["latency"]["median_ms"] > 0
    assert ours["difference"] <= found["tolerance"]
    assert found["shape"] == [2, 3, 16, 16]
    assert {"cpu", "system", "python"} <= set(found["machine"])
    text = succeeded("bench", colour_model, "--seconds", "0.05", "--rival", "onnxruntime")
    assert "onnxruntime" in text
    assert max(map(len, text.splitlines())) <= 80

    layers = as_json("bench", colour_model, "--profile", "--seconds", "0.05")
    assert {"microseconds", "gflops", "share_of_limit"} <= set(layers["steps"][0])
    text = succeeded("bench", colour_model, "--profile", "--seconds", "0.05")
    assert "GFLOP/s" in text
    assert max(map(len, text.splitlines())) <= 80


def test_optimize(colour_model: Path, colour_pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    options = ("--seconds", "0.05", "--images", colour_pictures)
    found = as_json("optimize", colour_model, "-o", out, *options)
    assert found["after"]["top1"] == 1.0
    assert found["pruning"] is None
    assert out.is_file()
    assert as_json("evaluate", out, "--images", colour_pictures)["top1"] == 1.0
    text = succeeded("optimize", colour_model, "-o", out, *options)
    assert max(map(len, text.splitlines())) <= 80
    assert "before" in text


def test_optimize_prunes(colour_pictures: Path, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
    out = tmp_path / "out.onnx"
    found = as_json("optimize", example, "-o", out, "--sparsity", "0.9", "--seconds", "0.05")
    assert found["pruning"]["total"]["sparsity"] > 0.8
    assert found["after"]["file_bytes"] < found["before"]["file_bytes"]


def test_doctor(tmp_path: Path) -> None:
    found = as_json("doctor")
    assert found["vector_bits"] in (128, 256, 512)
    assert {"zeroskip", "python", "numpy", "llvmlite", "llvm", "onnx"} <= set(found["versions"])
    assert {cache["name"] for cache in found["caches"]} == {"compiled kernels", "tuning results"}
    assert found["environment"]["ZEROSKIP_CACHE_DIR"] == os.environ["ZEROSKIP_CACHE_DIR"]
    assert (
        max(map(len, succeeded("doctor", ZEROSKIP_CACHE_DIR=str(tmp_path / ("long" * 20))).splitlines()))
        <= 80
    )


@pytest.mark.parametrize("command", ["inspect", "bench", "evaluate", "optimize"])
def test_a_bad_model_is_one_line(
    command: str, colour_model: Path, colour_pictures: Path, tmp_path: Path
) -> None:
    more = {"evaluate": ("--images", colour_pictures), "optimize": ("-o", tmp_path / "out.onnx")}.get(
        command, ()
    )
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(colour_model.read_bytes()[:100])
    assert "bad.onnx" in refused(command, bad, *more)
    assert "absent.onnx" in refused(command, tmp_path / "absent.onnx", *more, "--json")
    assert str(tmp_path) in refused(command, tmp_path, *more)


def test_a_shape_too_large_for_any_machine_is_one_line(tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "digits.onnx"
    line = refused("bench", example, "--batch", 2**40)
    assert "does not fit into memory" in line and "--batch" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("options", [["--json"], []])
def test_a_full_disk_is_one_line(colour_model: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "zeroskip", "inspect", str(colour_model), *options]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr == "zeroskip: cannot write the result to standard output: No space left on device\n"


def test_bad_pictures_and_options_are_one_line(
    colour_model: Path, colour_pictures: Path, tmp_path: Path
) -> None:
    assert "absent" in refused("evaluate", colour_model, "--images", tmp_path / "absent")
    assert "no labels" in refused("evaluate", colour_model, "--images", colour_pictures / "red")
    assert "mean=x" in refused("evaluate", colour_model, "--images", colour_pictures, "-p", "mean=x")
    assert "'colour'" in refused("evaluate", colour_model, "--images", colour_pictures, "-p", "colour=1")
    assert "'fastnet'" in refused("bench", colour_model, "--rival", "fastnet")
    assert "processors" in refused("bench", colour_model, "--threads", 100_000)
    assert "'other'" in refused("inspect", colour_model, "--shape", "other=1x3x16x16")
    assert "1x3xA" in refused("inspect", colour_model, "--shape", "1x3xA")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    assert "bad.png" in refused("inspect", colour_model, "--images", tmp_path)


def test_an_unwritable_output_is_one_line_and_the_old_file_stays(colour_model: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused("optimize", colour_model, "-o", tmp_path / "no" / "out.onnx")
    assert "the model itself" in refused("optimize", colour_model, "-o", colour_model)
    old = tmp_path / "old.onnx"
    old.write_text("old")
    assert "sparsity" in refused("optimize", colour_model, "-o", old, "--sparsity", "1.5")
    assert old.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["old.onnx"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = zeroskip("inspect", tmp_path / "absent.onnx", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("zeroskip: ")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_an_interrupt_ends_quietly(colour_model: Path) -> None:
    command = [sys.executable, "-m", "zeroskip", "bench", str(colour_model), "--seconds", "60"]
    # a suite that runs in the background inherits an ignored SIGINT: the command gets the usual one back
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_an_interrupt_before_the_command_begins_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(prog_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("zeroskip.cli.app.app", interrupted)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_closed_pipe_ends_quietly(colour_model: Path) -> None:
    line = f"{sys.executable} -m zeroskip inspect {colour_model} | true"
    result = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    assert "Traceback" not in result.stderr
