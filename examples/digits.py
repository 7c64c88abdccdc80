"""The embedded example's data: scikit-learn's digits as 32x32 grey images, a fixed third held back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIZE = 32
SEED = 0

PREPROCESS = {"order": "grey", "layout": "NCHW", "mean": [0.0], "std": [255.0]}
"""What turns an 8-bit grey image into the network's input; stored in the model's metadata as JSON."""

FloatArray = np.ndarray[Any, np.dtype[np.float32]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Digits:
    """Images as float32 ``[count, 1, 32, 32]`` in 0..1, labels as int64 ``[count]``."""

    train_images: FloatArray
    train_labels: IntArray
    held_back_images: FloatArray
    held_back_labels: IntArray


def enlarge(digit: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """One 8x8 digit with values 0..16 as an 8-bit 32x32 image (bilinear)."""
    grey = np.round(digit * (255 / 16)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def load() -> Digits:
    """All 1797 digits: two thirds to train on, a third (599) held back, split by class with seed 0."""
    source = load_digits()
    pixels = np.stack([enlarge(digit) for digit in source.images])[:, np.newaxis]
    images = (pixels.astype(np.float32) - PREPROCESS["mean"][0]) / np.float32(PREPROCESS["std"][0])
    labels = source.target.astype(np.int64)
    train, held_back = train_test_split(
        np.arange(len(labels)), test_size=1 / 3, random_state=SEED, stratify=labels
    )
    return Digits(
        images[train].astype(np.float32),
        labels[train],
        images[held_back].astype(np.float32),
        labels[held_back],
    )
