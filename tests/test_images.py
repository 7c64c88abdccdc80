import csv
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zeroskip.errors import InputError
from zeroskip.images import open_images
from zeroskip.preprocess import Preprocess

RAW = Preprocess()


def paint(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (6, 4)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def label(folder: Path, rows: list[tuple[str, str]], header: tuple[str, str] = ("file", "label")) -> Path:
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def zipped(folder: Path, prefix: str = "") -> Path:
    target = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for path in folder.rglob("*"):
            if path.is_file():
                archive.write(path, prefix + path.relative_to(folder).as_posix())
    return target


def test_class_folders(colour_pictures: Path) -> None:
    images = open_images(colour_pictures)
    assert images.classes == ("blue", "green", "red")
    assert images.labels == (0,) * 8 + (1,) * 8 + (2,) * 8


def test_numbered_class_folders_mean_their_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "2"):
        paint(tmp_path / name / "a.png")
    images = open_images(tmp_path)
    assert dict(zip(images.files, images.labels or (), strict=True)) == {
        "10/a.png": 10,
        "2/a.png": 2,
        "9/a.png": 9,
    }


def test_labels_by_path_or_bare_name(tmp_path: Path) -> None:
    paint(tmp_path / "x.png")
    paint(tmp_path / "deep" / "y.jpg")
    images = open_images(label(tmp_path, [("y.jpg", "7"), ("x.png", "0"), ("deep/y.jpg", "3")]))
    assert images.files == ("deep/y.jpg", "x.png", "deep/y.jpg")
    assert images.labels == (7, 0, 3)


@pytest.mark.parametrize("prefix", ["", "wrapped/"])
def test_zips_of_both_kinds(colour_pictures: Path, tmp_path: Path, prefix: str) -> None:
    copy = Path(shutil.copytree(colour_pictures, tmp_path / "c"))
    folders = open_images(zipped(copy, prefix))
    paint(tmp_path / "t" / "jpeg" / "x.png")
    table = open_images(zipped(label(tmp_path / "t", [("x.png", "4")]), prefix))
    assert folders.labels == open_images(copy).labels
    assert table.labels == (4,)
    assert np.array_equal(folders.array(3, RAW), open_images(copy).array(3, RAW))


def test_unlabelled_pictures(tmp_path: Path) -> None:
    paint(tmp_path / "x.png")
    paint(tmp_path / ".hidden" / "y.png")
    images = open_images(tmp_path)
    assert (images.files, images.labels) == (("x.png",), None)


def test_order_mean_std_and_layout(tmp_path: Path) -> None:
    paint(tmp_path / "x.png", (10, 20, 30), (5, 3))
    images = open_images(tmp_path)
    rgb = images.array(0, RAW)
    assert (rgb.shape, rgb.dtype) == ((3, 3, 5), np.float32)
    assert rgb[:, 0, 0].tolist() == [10, 20, 30]
    assert images.array(0, Preprocess("BGR"))[:, 0, 0].tolist() == [30, 20, 10]
    scaled = Preprocess("BGR", "NHWC", (1, 2, 3), (2, 4, 8))
    assert images.array(0, scaled)[0, 0].tolist() == [14.5, 4.5, 0.875]
    grey = images.array(0, Preprocess("grey"))
    assert grey.shape == (1, 3, 5)
    assert abs(float(grey[0, 0, 0]) - (0.299 * 10 + 0.587 * 20 + 0.114 * 30)) <= 0.5


def test_crop_keeps_the_middle_and_stretch_the_whole(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "x.png")
    images = open_images(tmp_path)
    assert (images.array(0, Preprocess(fit="crop"), (8, 8)) == 200).all()
    stretched = images.array(0, Preprocess(fit="stretch"), (8, 8))[0, 0]
    assert stretched[0] == 0
    assert stretched[4] > 100
    assert images.array(0, Preprocess(size=(5, 7)), (8, 8)).shape == (3, 5, 7)


def test_batches_and_take(colour_pictures: Path) -> None:
    images = open_images(colour_pictures)
    assert [len(b) for b in images.batches(RAW, None, 10)] == [10, 10, 4]
    few = images.take(6)
    assert few.labels == (0, 0, 1, 1, 2, 2)
    taken, rest = images.split(6)
    assert (taken.files, len(rest)) == (few.files, 18)
    assert not set(taken.files) & set(rest.files)
    with pytest.raises(InputError, match="1 or more"):
        images.take(0)


def test_pictures_of_several_sizes_need_a_size(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", size=(4, 4))
    paint(tmp_path / "b.png", size=(4, 5))
    images = open_images(tmp_path)
    with pytest.raises(InputError, match="differ in size"):
        next(images.batches(RAW, None, 2))
    assert next(images.batches(RAW, (4, 4), 2)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    "spoil",
    [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no picture", lambda b: b[:40] + b"\xff" * 60],
)
def test_an_unreadable_picture_is_named(tmp_path: Path, spoil: object) -> None:
    path = paint(tmp_path / "bad.png", size=(300, 300))
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"cannot read the picture .*bad\.png: [^<]*; replace"):
        open_images(tmp_path).array(0, RAW)


def test_a_vanished_picture_is_named(tmp_path: Path) -> None:
    path = paint(tmp_path / "gone.png")
    images = open_images(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"gone\.png"):
        images.array(0, RAW)


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ([("gone.png", "1")], ("file", "label"), r"line 2: names 'gone\.png', which is not in"),
        ([("x.png", "cat")], ("file", "label"), "label is 'cat'"),
        ([("x.png", "-1")], ("file", "label"), "label is '-1'"),
        ([("x.png", "")], ("file", "label"), "label is ''"),
        ([("twice.png", "1")], ("file", "label"), "several folders"),
        ([("x.png", "1")], ("name", "label"), "expected the columns file,label"),
        ([], ("file", "label"), "one row for each"),
    ],
)
def test_bad_labels(tmp_path: Path, rows: list[tuple[str, str]], header: tuple[str, str], words: str) -> None:
    for name in ("x.png", "a/twice.png", "b/twice.png"):
        paint(tmp_path / name)
    with pytest.raises(InputError, match=words):
        open_images(label(tmp_path, rows, header))


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    paint(tmp_path / "x.png")
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(InputError, match=r"cannot read .*labels\.csv"):
        open_images(tmp_path)


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    (tmp_path / "empty").mkdir()
    paint(tmp_path / "loose" / "x.png")
    paint(tmp_path / "loose" / "a" / "x.png")
    for name, words in (
        ("absent", "does not exist"),
        ("bad.zip", "readable .zip"),
        ("empty", "no JPEG or PNG"),
        ("loose", "'x.png' is in none"),
    ):
        with pytest.raises(InputError, match=words):
            open_images(tmp_path / name)


def test_real_pictures(shared: Path) -> None:
    assert len(open_images(shared / "images")) == 500
    cifar = open_images(shared / "cifar10" / "test.zip")
    assert (len(cifar), cifar.classes[:2]) == (2000, ("airplane", "automobile"))
    assert cifar.array(0, RAW).shape == (3, 32, 32)
