"""What all tests share: a cache of their own, real models where they are, a small model and its pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, settings
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from zeroskip.codegen import resolve
from zeroskip.codegen.target import runs_here

SHARED = Path(__file__).resolve().parents[1] / "../shared"
TARGETS = [name for name in ("host", "x86-64-v3", "x86-64") if runs_here(resolve(name))]
COLOURS = {"blue": (20, 30, 220), "green": (30, 210, 20), "red": (230, 20, 30)}

# Examples are the same in every run; how long they take and are drawn is not what they are to show.
settings.register_profile(
    "suite",
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="Write the golden texts anew.")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the processes they start, neither read nor write the user's caches."""
    before = os.environ.get("ZEROSKIP_CACHE_DIR")
    os.environ["ZEROSKIP_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["ZEROSKIP_CACHE_DIR"]
    else:
        os.environ["ZEROSKIP_CACHE_DIR"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real models and pictures that lies beside the repository on some machines."""
    if not SHARED.is_dir():
        pytest.skip(
            f"needs real models and pictures in {SHARED.name}/ beside the repository, which is not there"
        )
    return SHARED.resolve()


@pytest.fixture(scope="session", params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    """Each target that runs here: AVX-512 or what the host has, AVX2, SSE2."""
    return str(request.param)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with its golden file; ``pytest --update-golden`` writes it."""

    def check(name: str, text: str) -> None:
        path = Path(str(request.path)).parent / "golden" / name
        lines = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(lines, encoding="utf-8")
        assert lines == path.read_text(encoding="utf-8")

    return check


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that is right by construction: scores are the means of blue, green and red (RGB input)."""
    weight = np.zeros((3, 3, 3, 3), np.float32)
    weight[[0, 1, 2], [2, 1, 0], 1, 1] = 1
    nodes = [
        helper.make_node("Conv", ["input", "weight"], ["mixed"], name="mix", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["mixed"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"], name="pool"),
        helper.make_node("Flatten", ["means"], ["scores"], name="flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"zeroskip.preprocess": '{"order": "RGB", "mean": [0], "std": [255]}'})
    path = tmp_path_factory.mktemp("colours") / "colours.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def colour_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight noisy pictures of each colour, in class folders."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for index in range(8):
            noise = rng.integers(-20, 20, (16, 16, 3))
            pixels = np.clip(np.asarray(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder
