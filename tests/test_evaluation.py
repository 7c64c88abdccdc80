from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import zeroskip as zs
from zeroskip.errors import InputError, ModelError
from zeroskip.evaluation import evaluate, preprocess_of
from zeroskip.preprocess import Preprocess

INPUTS = np.eye(4, dtype=np.float32)


@dataclass
class Entry:
    name: str = "x"
    shape: Sequence[Any] = ("N", 4)
    type: str = "tensor(float)"


class Session:
    """Answers with what it is given; records the batches."""

    def __init__(self, entry: Entry | None = None, spoil: float = 0.0) -> None:
        self.entry, self.spoil, self.batches = entry or Entry(), spoil, []

    def get_inputs(self) -> list[Entry]:
        return [self.entry]

    def run(self, names: list[str] | None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.batches.append(len(feed[self.entry.name]))
        return [feed[self.entry.name].reshape(len(feed[self.entry.name]), -1) + self.spoil]


def test_counts_and_ranks() -> None:
    scores = np.array([[9, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]], np.float32)
    found = evaluate(Session(), (scores, [1, 0, 0]))
    assert (found.top1, found.top5, found.count) == (1 / 3, 2 / 3, 3)
    assert found.predictions == (0, 5, 0)
    top1, top5 = found
    assert (top1, top5) == (found.top1, found.top5)
    assert found.to_dict() == {"top1": 1 / 3, "top5": 2 / 3, "images": 3}


def test_of_equal_scores_the_first_counts() -> None:
    ties = np.zeros((1, 8), np.float32)
    assert [evaluate(Session(), (ties, [k])).top5 for k in range(8)] == [1, 1, 1, 1, 1, 0, 0, 0]


def test_batches_fixed_batches_and_progress() -> None:
    session, seen = Session(), []
    inputs = np.repeat(INPUTS, 2, axis=0)
    evaluate(session, (inputs, [0] * 8), batch=3, progress=lambda done, total: seen.append((done, total)))
    assert session.batches == [3, 3, 2]
    assert seen == [(3, 8), (6, 8), (8, 8)]
    fixed = Session(Entry(shape=(3, 4)))
    assert evaluate(fixed, (inputs, [0] * 8), batch=5).count == 8
    assert fixed.batches == [3, 3, 3]


def test_limit_spreads_over_the_set() -> None:
    assert evaluate(Session(), (np.repeat(INPUTS, 4, axis=0), np.repeat(range(4), 4)), limit=4).labels == (
        0,
        1,
        2,
        3,
    )


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((INPUTS, [0, 1]), "4 inputs and 2 labels"),
        ((INPUTS[:0], []), "and some"),
        ((INPUTS, [0, 1, 2, 4]), "label 4"),
    ],
)
def test_bad_arrays(images: tuple[np.ndarray, list[int]], words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(Session(), images)


def test_scores_must_be_finite() -> None:
    with pytest.raises(ModelError, match="NaN"):
        evaluate(Session(spoil=float("nan")), (INPUTS, [0] * 4))


def test_any_session_on_pictures(colour_model: Path, colour_pictures: Path) -> None:
    found = evaluate(ort.InferenceSession(str(colour_model)), colour_pictures, batch=5)
    assert (found.top1, found.count) == (1.0, 24)


def test_explicit_preprocessing_wins(colour_model: Path, colour_pictures: Path) -> None:
    session = ort.InferenceSession(str(colour_model))
    swapped = evaluate(session, colour_pictures, preprocess=Preprocess("BGR", std=(255,)))
    assert swapped.top1 == pytest.approx(1 / 3)


def test_graph_path_and_session_agree(colour_model: Path, colour_pictures: Path) -> None:
    graph = zs.load(colour_model)
    options = zs.SessionOptions(tune=False)
    for model in (graph, colour_model, zs.InferenceSession(graph, options=options)):
        assert evaluate(model, colour_pictures, options=options).top1 == 1.0


def test_pictures_without_labels(colour_pictures: Path) -> None:
    with pytest.raises(InputError, match=r"no labels; add labels\.csv"):
        evaluate(Session(Entry(shape=("N", 3, 16, 16))), colour_pictures / "red", preprocess=Preprocess())


@pytest.mark.parametrize(
    ("shape", "words"), [(("N", 1, 16, 16), "1 channels.*gives 3"), (("N", 10), "four dimensions")]
)
def test_inputs_that_take_no_such_pictures(colour_pictures: Path, shape: Sequence[Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        evaluate(Session(Entry(shape=shape)), colour_pictures, preprocess=Preprocess())


def test_nothing_known_of_preprocessing(colour_pictures: Path) -> None:
    with pytest.raises(InputError, match="preprocessing is not known"):
        evaluate(Session(Entry(shape=("N", 3, 16, 16))), colour_pictures)


def test_a_models_json_travels_with_the_graph(shared: Path, tmp_path: Path) -> None:
    graph = zs.load(shared / "models" / "cifar10-resnet20.onnx")
    graph.save(tmp_path / "copy.onnx")
    assert preprocess_of(tmp_path / "copy.onnx").mean == (123.675, 116.28, 103.53)


def test_the_shared_pictures_through_onnxruntime(shared: Path) -> None:
    """Its folder's README reports 59.9 % for 1000 pictures of this kind; others differ by a point or two."""
    model = shared / "models" / "squeezenet1.0-deepcompression.onnx"
    found = evaluate(
        ort.InferenceSession(str(model)), shared / "images", preprocess=preprocess_of(model), limit=200
    )
    assert 0.5 < found.top1 < 0.7
    assert found.top5 > found.top1
