import json
from pathlib import Path

import pytest

from zeroskip.errors import InputError
from zeroskip.preprocess import METADATA_KEY, Preprocess, metadata_beside, preprocess_for


def beside(folder: Path, **entry: object) -> Path:
    (folder / "models.json").write_text(json.dumps({"net": {"file": "net.onnx", "preprocess": entry}}))
    return folder / "net.onnx"


def test_the_last_source_wins_field_by_field(tmp_path: Path) -> None:
    path = beside(tmp_path, order="BGR", mean=[1, 2, 3], std=[4, 5, 6])
    metadata = {METADATA_KEY: '{"mean": [7, 8, 9]}'}
    assert preprocess_for(path) == Preprocess("BGR", "NCHW", (1, 2, 3), (4, 5, 6))
    assert preprocess_for(path, metadata) == Preprocess("BGR", "NCHW", (7, 8, 9), (4, 5, 6))
    assert preprocess_for(path, metadata, std=2.0, order=None) == Preprocess("BGR", "NCHW", (7, 8, 9), (2,))


def test_an_entry_is_found_by_file_or_by_key(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text(json.dumps({"net": {"preprocess": {"mean": [3]}}, "odd": 5}))
    assert preprocess_for(tmp_path / "net.onnx").mean == (3,)
    with pytest.raises(InputError, match="not known"):
        preprocess_for(tmp_path / "other.onnx")


def test_the_onnx_standards_own_metadata() -> None:
    metadata = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1"}
    assert preprocess_for(None, metadata) == Preprocess("BGR", "NCHW", (127.5,), (127.5,))


def test_json_round_trip() -> None:
    steps = Preprocess("grey", "NHWC", (1.5,), (2,), (8, 9), "stretch")
    assert preprocess_for(None, {METADATA_KEY: steps.to_json()}) == steps


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": "RBG"}, "'RBG'.*RGB, BGR, grey"),
        ({"layout": "CHW"}, "NCHW"),
        ({"fit": "pad"}, "crop"),
        ({"std": (1, 0, 1)}, "divides by zero"),
        ({"mean": (1, 2)}, "expected 1 or 3"),
        ({"mean": (1, float("nan"), 2)}, "finite"),
        ({"mean": "red"}, "expected"),
        ({"mean": (1, 2, 3), "order": "grey"}, "expected 1 or 1"),
        ({"size": (0, 3)}, "pixels"),
        ({"sizes": 3, "mean": 0}, "unknown option 'sizes'"),
        ({}, "models.json"),
    ],
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        preprocess_for(None, None, **({"mean": 0} | options if options else {}))


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"net": {"preprocess": 3}}', '{"net": {"preprocess": {"means": 1}}}']
)
def test_a_bad_models_json_is_named_but_stops_no_loading(tmp_path: Path, text: str) -> None:
    (tmp_path / "models.json").write_text(text)
    with pytest.raises(InputError, match=r"models\.json"):
        preprocess_for(tmp_path / "net.onnx")
    assert metadata_beside(tmp_path / "net.onnx") == {}


def test_the_shared_models_are_described(shared: Path) -> None:
    for path in sorted((shared / "models").glob("*.onnx")):
        assert preprocess_for(path).channels in (1, 3)
