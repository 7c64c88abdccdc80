"""Pictures with labels: a folder (or a .zip of one), read one picture at a time.

Either `labels.csv` (columns ``file,label``; the label is the class index) says what the pictures show, or
each class has a sub-folder. Class folders are numbered in alphabetical order, or by their names where all of
these are numbers. Pictures with neither are unlabelled: good for calibration, not for accuracy.
"""

from __future__ import annotations

import csv
import io
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from zeroskip.errors import InputError
from zeroskip.preprocess import Preprocess

Array = np.ndarray[Any, Any]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})


class _Source(Protocol):
    """Where the bytes come from: a folder or a zip file."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class _Folder:
    root: Path

    def names(self) -> list[str]:
        return sorted(p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()


@dataclass(frozen=True)
class _Zip:
    archive: zipfile.ZipFile

    def names(self) -> list[str]:
        return sorted(i.filename for i in self.archive.infolist() if not i.is_dir())

    def read(self, name: str) -> bytes:
        return self.archive.read(name)


@dataclass(frozen=True)
class ImageSet:
    """Pictures of one folder or zip file, not yet read.

    Attributes:
        path: the folder or zip file.
        files: name of each picture inside it.
        labels: class index of each picture; None where the set is unlabelled.
        classes: names of the class folders by index; empty where `labels.csv` gives the labels.
    """

    path: Path
    files: tuple[str, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]
    source: _Source

    def __len__(self) -> int:
        return len(self.files)

    def take(self, count: int | None) -> ImageSet:
        """At most `count` pictures, spread evenly over the set (so that all classes stay represented)."""
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise InputError(f"images: asked for {count} of {self.path}; ask for 1 or more")
        chosen = [i * len(self) // count for i in range(count)]
        labels = None if self.labels is None else tuple(self.labels[i] for i in chosen)
        return replace(self, files=tuple(self.files[i] for i in chosen), labels=labels)

    def split(self, count: int) -> tuple[ImageSet, ImageSet]:
        """`count` pictures spread evenly, and all others: what is calibrated on is not evaluated on."""
        taken = self.take(count)
        names = set(taken.files)
        rest = [i for i, name in enumerate(self.files) if name not in names]
        labels = None if self.labels is None else tuple(self.labels[i] for i in rest)
        return taken, replace(self, files=tuple(self.files[i] for i in rest), labels=labels)

    def picture(self, index: int) -> Image.Image:
        """The picture as stored.

        Raises:
            InputError: its file is missing, truncated or no picture.
        """
        name = self.files[index]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                picture = Image.open(io.BytesIO(self.source.read(name)))
                picture.load()
        # Pillow's decoders raise almost anything on damaged files: SyntaxError, struct.error, ...
        except Exception as error:
            unknown = isinstance(error, UnidentifiedImageError)  # whose own text shows an address in memory
            reason = "it is no picture, or its first bytes are damaged" if unknown else error
            raise InputError(
                f"cannot read the picture {self.path}/{name}: {reason}; replace or remove it"
            ) from error
        return picture

    def array(self, index: int, preprocess: Preprocess, size: tuple[int, int] | None = None) -> Array:
        """The picture as a float32 array, CHW or HWC as `preprocess.layout` says.

        `size` (height, width) is the model's; `preprocess.size` wins over it, and without either the picture
        keeps its own.
        """
        picture = self.picture(index).convert("L" if preprocess.order == "grey" else "RGB")
        pixels = np.asarray(_fit(picture, preprocess.size or size, preprocess.fit), np.float32)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if preprocess.order == "BGR":
            pixels = pixels[:, :, ::-1]
        scaled = (pixels - np.asarray(preprocess.mean, np.float32)) / np.asarray(preprocess.std, np.float32)
        return np.ascontiguousarray(scaled if preprocess.layout == "NHWC" else scaled.transpose(2, 0, 1))

    def batches(
        self, preprocess: Preprocess, size: tuple[int, int] | None = None, batch: int = 1
    ) -> Iterator[Array]:
        """Arrays of up to `batch` pictures each, in order; the last one may be smaller."""
        for start in range(0, len(self), batch):
            arrays = [self.array(i, preprocess, size) for i in range(start, min(start + batch, len(self)))]
            if len({a.shape for a in arrays}) > 1:
                raise InputError(
                    f"pictures of {self.path} differ in size ({_sides(arrays)}) and the model's input "
                    "has no fixed one; give a size"
                )
            yield np.stack(arrays)


def _sides(arrays: Sequence[Array]) -> str:
    return ", ".join(sorted({"x".join(map(str, a.shape)) for a in arrays})[:3])


def _fit(picture: Image.Image, size: tuple[int, int] | None, fit: str) -> Image.Image:
    """Bring a picture to height and width `size`; see `Preprocess.fit`."""
    if size is None or (picture.height, picture.width) == size:
        return picture
    height, width = size
    if fit == "stretch":
        return picture.resize((width, height), Image.Resampling.BILINEAR)
    scale = max(height / picture.height, width / picture.width)
    scaled = (max(width, round(picture.width * scale)), max(height, round(picture.height * scale)))
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    resized = picture.resize(scaled, Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + width, top + height))


def open_images(path: str | Path | ImageSet) -> ImageSet:
    """Open a folder or zip file of pictures; nothing but names and labels is read yet.

    Raises:
        InputError: no such folder, no pictures in it, or a `labels.csv` that is malformed or names a picture
            that is not there.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (folder / name).mkdir()
    ...     Image.new("RGB", (4, 4)).save(folder / name / "1.png")
    >>> open_images(folder).labels, open_images(folder).classes
    ((0, 1), ('cat', 'dog'))
    """
    if isinstance(path, ImageSet):
        return path
    root = Path(path)
    source = _open_source(root)
    names = [n for n in source.names() if not _hidden(n)]
    files = tuple(n for n in names if PurePosixPath(n).suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"images: {root} holds no JPEG or PNG file")
    tables = sorted((n for n in names if PurePosixPath(n).name == "labels.csv"), key=lambda n: n.count("/"))
    if tables:
        return _labelled_by_table(root, source, files, tables[0])
    return _labelled_by_folder(root, source, files)


def _open_source(root: Path) -> _Source:
    if root.is_dir():
        return _Folder(root)
    if not root.exists():
        raise InputError(f"images: {root} does not exist; give a folder of pictures or a .zip of one")
    try:
        return _Zip(zipfile.ZipFile(root))
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"images: {root} is neither a folder nor a readable .zip file: {error}") from None


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _labelled_by_table(root: Path, source: _Source, files: tuple[str, ...], table: str) -> ImageSet:
    """Rows of `labels.csv` name files beside it, or, by their bare name, files in folders below it."""
    where = f"{root}/{table}"
    try:
        rows = list(csv.DictReader(io.StringIO(source.read(table).decode("utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {where}: {error}") from None
    if not rows or not {"file", "label"} <= set(rows[0]):
        header = ",".join(rows[0]) if rows else "no rows"
        raise InputError(
            f"{where}: got {header}, expected the columns file,label and one row for each picture"
        )
    folder = PurePosixPath(table).parent
    counts = Counter(PurePosixPath(f).name for f in files)
    by_name = {PurePosixPath(f).name: f for f in files}
    exact, chosen, labels = set(files), [], []
    for line, row in enumerate(rows, start=2):
        name = str(folder / (row["file"] or ""))
        if name not in exact:
            bare = PurePosixPath(name).name
            if counts[bare] > 1:
                raise InputError(
                    f"{where}, line {line}: {row['file']!r} is in several folders; give its folder too"
                )
            if bare not in by_name:
                raise InputError(f"{where}, line {line}: names {row['file']!r}, which is not in {root}")
            name = by_name[bare]
        if not (row["label"] or "").strip().isdecimal():
            raise InputError(
                f"{where}, line {line}: label is {row['label']!r}, expected a class index (0, 1, ...)"
            )
        chosen.append(name)
        labels.append(int(row["label"]))
    return ImageSet(root, tuple(chosen), tuple(labels), (), source)


def _labelled_by_folder(root: Path, source: _Source, files: tuple[str, ...]) -> ImageSet:
    folders = sorted({str(PurePosixPath(f).parent) for f in files})
    if len(folders) == 1:
        return ImageSet(root, files, None, (), source)
    if "." in folders:
        loose = next(f for f in files if "/" not in f)
        raise InputError(f"images: {root} has class folders, but {loose!r} is in none; move it into one")
    names = [PurePosixPath(f).name for f in folders]
    if all(n.isdecimal() for n in names):
        index = {f: int(n) for f, n in zip(folders, names, strict=True)}
        classes: tuple[str, ...] = tuple(sorted(names, key=int))
    else:
        index = {f: i for i, f in enumerate(folders)}
        classes = tuple(names)
    return ImageSet(root, files, tuple(index[str(PurePosixPath(f).parent)] for f in files), classes, source)
