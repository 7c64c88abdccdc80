"""The package as a whole: public names, documentation examples, what imports what, the wheel."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import zeroskip

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "zeroskip"


def modules() -> list[str]:
    walked = pkgutil.walk_packages([str(SOURCE)], "zeroskip.")
    return ["zeroskip", *(m.name for m in walked if not m.name.endswith("__main__"))]


@pytest.mark.parametrize("name", zeroskip.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(zeroskip, name) is not None
    assert name in dir(zeroskip)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    guarded = next(n for n in tree.body if isinstance(n, ast.If))
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname
    }
    assert seen == zeroskip._EXPORTS


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        zeroskip.nothing  # noqa: B018


@pytest.mark.parametrize("name", modules())
def test_documentation_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_little() -> None:
    heavy = run_python(
        "import sys, zeroskip; print(sorted({'numpy', 'onnx', 'llvmlite', 'PIL'} & set(sys.modules)))"
    )
    assert heavy.strip() == "[]"


@pytest.mark.parametrize("room", ["graph", "encodings", "compress"])
def test_rooms_that_work_without_llvm(room: str) -> None:
    run_python(f"import sys; sys.modules['llvmlite'] = None; import zeroskip.{room}")


def test_the_version_is_in_the_changelog_or_unreleased() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"## {zeroskip.__version__}" in text or "## Unreleased" in text


def test_dependencies_have_lower_bounds_only() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in (r for group in groups for r in group):
        name, bound, version = requirement.partition(">=")
        assert name.replace("-", "").isalnum() and bound and version.replace(".", "").isdecimal(), requirement


def test_the_package_is_pure_python() -> None:
    foreign = [p for p in SOURCE.rglob("*") if p.suffix in {".c", ".h", ".cc", ".cpp", ".cu", ".so", ".pyx"}]
    assert foreign == []


@pytest.mark.slow
def test_the_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    """Built and installed without network: the fresh environment borrows the dependencies from this one."""
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("zeroskip-*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "zeroskip/py.typed" in names
    assert not [n for n in names if not n.startswith("zeroskip")]
    venv.create(tmp_path / "fresh", with_pip=False)
    fresh = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin")
    site = next((tmp_path / "fresh").rglob("site-packages"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        fresh / "python",
        "install",
        "--quiet",
        "--no-deps",
        wheel,
    ]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"])
    code = "import zeroskip, zeroskip.graph; print(zeroskip.__file__)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [fresh / "python", "-c", code]
    place = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, cwd=tmp_path
    ).stdout
    assert Path(place.strip()).is_relative_to(tmp_path / "fresh")
