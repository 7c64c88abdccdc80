"""The layers that algorithms are swept over: those of the papers, and of the networks they are used for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zeroskip.engine.functional import conv_graph
from zeroskip.graph import Graph

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shape:
    """A layer: `channels` x `height` x `width` in, `filters` out; pads are top, left, bottom, right.

    `padded_density` is the published share of non-zeros in the padded input, None where there is none.
    """

    family: str
    name: str
    channels: int
    height: int
    width: int
    filters: int
    kernel: tuple[int, int]
    stride: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    padded_density: float | None = None

    @property
    def x_shape(self) -> tuple[int, int, int, int]:
        """Of one image."""
        return 1, self.channels, self.height, self.width

    def w_shape(self, filters: int) -> tuple[int, int, int, int]:
        """Of the weights, with so many filters."""
        return filters, self.channels // self.groups, *self.kernel

    @property
    def density(self) -> float | None:
        """The published share of non-zeros in the input itself."""
        top, left, bottom, right = self.pads
        area = (self.height + top + bottom) * (self.width + left + right)
        return self.padded_density and self.padded_density * area / (self.height * self.width)

    @property
    def layer(self) -> str:
        """In a few words, e.g. ``96x24x24 -> 256, 5x5``."""
        (r, s), stride = self.kernel, f"/{self.stride}" if self.stride > 1 else ""
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return f"{self.channels}x{self.height}x{self.width} -> {self.filters}, {r}x{s}{stride}{groups}"

    def graph(self, w: Array) -> Graph:
        """The network of this layer alone."""
        steps = (self.stride, self.stride)
        return conv_graph(self.x_shape, w, strides=steps, pads=self.pads, groups=self.groups)


def _square(
    family: str, name: str, channels: int, size: int, filters: int, kernel: int, **more: Any
) -> Shape:
    return Shape(family, name, channels, size, size, filters, (kernel, kernel), **more)


def _same(family: str, name: str, channels: int, size: int, filters: int, kernel: int, **more: Any) -> Shape:
    return _square(family, name, channels, size, filters, kernel, pads=(kernel // 2,) * 4, **more)


# Cho & Brand 2017, their benchmark: no padding
MEC = (
    _square("mec", "cv1", 3, 227, 96, 11, stride=4),
    _square("mec", "cv2", 3, 231, 96, 11, stride=4),
    _square("mec", "cv3", 3, 227, 64, 7, stride=2),
    _square("mec", "cv4", 64, 224, 64, 7, stride=2),
    _square("mec", "cv5", 96, 24, 256, 5),
    _square("mec", "cv6", 256, 12, 512, 3),
    _square("mec", "cv7", 3, 224, 64, 3),
    _square("mec", "cv8", 64, 112, 128, 3),
    _square("mec", "cv9", 64, 56, 64, 3),
    _square("mec", "cv10", 128, 28, 128, 3),
    _square("mec", "cv11", 256, 14, 256, 3),
    _square("mec", "cv12", 512, 7, 512, 3),
)
# Inception-v3, the kinds of layer that Amer et al. 2021 measured: one of each kernel and map; densities are
# those of their log of the first validation image (nodes 2, 4, 7, 10, 26, 62, 65, 71, 90, 91)
INCEPTION = (
    _same("inception", "3x3, 147", 32, 147, 64, 3, padded_density=0.575),
    _square("inception", "3x3, 73", 80, 73, 192, 3, padded_density=0.614),
    _same("inception", "5x5, 35", 48, 35, 64, 5, padded_density=0.623),
    _same("inception", "3x3, 35", 96, 35, 96, 3, padded_density=0.363),
    _square("inception", "3x3/2, 35", 288, 35, 384, 3, stride=2, padded_density=0.405),
    Shape("inception", "1x7, 17", 192, 17, 17, 192, (1, 7), pads=(0, 3, 0, 3), padded_density=0.125),
    Shape("inception", "7x1, 17", 192, 17, 17, 192, (7, 1), pads=(3, 0, 3, 0), padded_density=0.159),
    _square("inception", "3x3/2, 17", 192, 17, 320, 3, stride=2, padded_density=0.17),
    _same("inception", "3x3, 8", 448, 8, 384, 3, padded_density=0.114),
    Shape("inception", "1x3, 8", 384, 8, 8, 384, (1, 3), pads=(0, 1, 0, 1), padded_density=0.209),
    Shape("inception", "3x1, 8", 384, 8, 8, 384, (3, 1), pads=(1, 0, 1, 0)),
)
# AlexNet as Park et al. 2017 pruned it (Caffe's, two groups); VGG-16's layers of different shape
ALEXNET_VGG = (
    _same("alexnet-vgg", "AlexNet conv2", 96, 27, 256, 5, groups=2),
    _same("alexnet-vgg", "AlexNet conv3", 256, 13, 384, 3),
    _same("alexnet-vgg", "AlexNet conv5", 384, 13, 256, 3, groups=2),
    _same("alexnet-vgg", "VGG conv1_1", 3, 224, 64, 3),
    _same("alexnet-vgg", "VGG conv1_2", 64, 224, 64, 3),
    _same("alexnet-vgg", "VGG conv2_1", 64, 112, 128, 3),
    _same("alexnet-vgg", "VGG conv3_2", 256, 56, 256, 3),
    _same("alexnet-vgg", "VGG conv4_2", 512, 28, 512, 3),
    _same("alexnet-vgg", "VGG conv5_1", 512, 14, 512, 3),
)
RESNET = (
    _same("resnet", "3x3, 56", 64, 56, 64, 3),
    _same("resnet", "3x3, 28", 128, 28, 128, 3),
    _same("resnet", "3x3, 14", 256, 14, 256, 3),
    _same("resnet", "3x3, 7", 512, 7, 512, 3),
    _square("resnet", "1x1, 56", 64, 56, 256, 1),
    _square("resnet", "1x1, 28", 512, 28, 128, 1),
    _square("resnet", "1x1, 14", 1024, 14, 256, 1),
    _square("resnet", "1x1, 7", 512, 7, 2048, 1),
)
# the 3x3 layers of its fire modules (version 1.0, 224x224 pictures)
SQUEEZENET = (
    _same("squeezenet", "fire2, fire3", 16, 54, 64, 3),
    _same("squeezenet", "fire4", 32, 54, 128, 3),
    _same("squeezenet", "fire5", 32, 27, 128, 3),
    _same("squeezenet", "fire6, fire7", 48, 27, 192, 3),
    _same("squeezenet", "fire8", 64, 27, 256, 3),
    _same("squeezenet", "fire9", 64, 13, 256, 3),
)
SHAPES = MEC + INCEPTION + ALEXNET_VGG + RESNET + SQUEEZENET
FAMILIES = {
    "mec": "MEC's cv1-cv12 (Cho & Brand 2017)",
    "inception": "Inception-v3",
    "alexnet-vgg": "AlexNet and VGG-16",
    "resnet": "ResNet-50",
    "squeezenet": "SqueezeNet 1.0",
}
