"""Train the embedded example, a small residual CNN on scikit-learn's digits, and write it as ONNX.

    python examples/train_digits.py            # needs zeroskip[train]; writes examples/digits.onnx

The digits are enlarged from 8x8 to 32x32 and a third of them is held back (see `digits.py`). Seeds are fixed
and one thread is used, so that a run repeats bit for bit with the same torch on the same kind of CPU. The
last line printed says how long it took.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from digits import PREPROCESS, SEED, SIZE, Digits, load

OPSET = 17
CLASSES = 10


@dataclass(frozen=True)
class Layer:
    """A convolution, its batch normalisation, then the sum with `add` (if any) and ReLU (if any)."""

    name: str
    source: str
    channels: int
    kernel: int
    stride: int = 1
    depthwise: bool = False
    add: str = ""
    relu: bool = True


# 0.42 M weights and 35 MMAC: plain, residual, bottleneck and depthwise blocks, 3x3 and 1x1, strides 1 and 2.
LAYERS = (
    Layer("stem", "image", 32, 3),
    Layer("down1", "stem", 64, 3, stride=2),
    Layer("block1a", "down1", 64, 3),
    Layer("block1b", "block1a", 64, 1, add="down1"),
    Layer("down2", "block1b", 128, 3, stride=2),
    Layer("block2a", "down2", 128, 3),
    Layer("block2b", "block2a", 128, 1, add="down2"),
    Layer("block3a", "block2b", 256, 1),
    Layer("block3b", "block3a", 256, 3, depthwise=True),
    Layer("block3c", "block3b", 128, 1, add="block2b", relu=False),
    Layer("block4a", "block3c", 64, 1),
    Layer("block4b", "block4a", 64, 3),
    Layer("block4c", "block4b", 256, 1),
)


class Network(nn.Module):
    """The rows of `LAYERS`, global average pooling, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        width = {"image": 1}
        self.convs = nn.ModuleDict()
        self.norms = nn.ModuleDict()
        for row in LAYERS:
            inner = width[row.source]
            groups = inner if row.depthwise else 1
            self.convs[row.name] = nn.Conv2d(
                inner, row.channels, row.kernel, row.stride, row.kernel // 2, groups=groups, bias=False
            )
            self.norms[row.name] = nn.BatchNorm2d(row.channels)
            width[row.name] = row.channels
        self.classifier = nn.Linear(width[LAYERS[-1].name], CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Images ``[N, 1, 32, 32]`` to logits ``[N, 10]``."""
        values = {"image": image}
        for row in LAYERS:
            value = self.norms[row.name](self.convs[row.name](values[row.source]))
            if row.add:
                value = value + values[row.add]
            values[row.name] = functional.relu(value) if row.relu else value
        return self.classifier(values[LAYERS[-1].name].mean((2, 3)))


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image turned by up to 12 degrees, scaled by up to 12 % and shifted by up to 2.5 pixels."""
    angle, scale, dx, dy = torch.empty(4, len(images)).uniform_(-1, 1, generator=generator)
    angle, scale = angle * torch.pi * 12 / 180, 1 + 0.12 * scale
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = 2.5 / (SIZE / 2)
    affine = torch.stack([cos, -sin, dx * shift, sin, cos, dy * shift], 1).view(-1, 2, 3)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def train(digits: Digits, epochs: int, batch: int = 48) -> Network:
    """AdamW with one cosine cycle, label smoothing and augmentation."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = torch.from_numpy(digits.train_images), torch.from_numpy(digits.train_labels)
    network = Network().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    steps = epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(epochs):
        network.train()
        order = torch.randperm(len(images), generator=generator)
        losses = []
        for start in range(0, len(images) - batch + 1, batch):
            chosen = order[start : start + batch]
            outputs = network(augment(images[chosen], generator))
            loss = functional.cross_entropy(outputs, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1:3}/{epochs}  loss {np.mean(losses):.4f}", flush=True)
    return network.eval()


def accuracy(network: Network, digits: Digits) -> float:
    """Top-1 on the held-back digits, a fraction."""
    with torch.inference_mode():
        answers = network(torch.from_numpy(digits.held_back_images)).argmax(1).numpy()
    return float(np.mean(answers == digits.held_back_labels))


def to_onnx(network: Network, top1: float) -> onnx.ModelProto:
    """The network with batch normalisation as nodes, a symbolic batch, and preprocessing as metadata."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []

    def constant(name: str, value: torch.Tensor) -> str:
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(value.detach().numpy()), name))
        return name

    def node(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"{output}.{op.lower()}", **attributes))
        return output

    for row in LAYERS:
        conv, norm, pad = network.convs[row.name], network.norms[row.name], row.kernel // 2
        value = f"{row.name}_conv"
        nodes.append(
            helper.make_node(
                "Conv",
                [row.source, constant(f"{row.name}.weight", conv.weight)],
                [value],
                name=row.name,
                kernel_shape=[row.kernel] * 2,
                strides=[row.stride] * 2,
                pads=[pad] * 4,
                group=conv.groups,
            )
        )
        parameters = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        names = [
            constant(f"{row.name}.{key}", value)
            for key, value in zip(("scale", "shift", "mean", "variance"), parameters, strict=True)
        ]
        last = not (row.add or row.relu)
        value = node(
            "BatchNormalization", [value, *names], row.name if last else f"{row.name}_norm", epsilon=norm.eps
        )
        if row.add:
            value = node("Add", [value, row.add], f"{row.name}_sum" if row.relu else row.name)
        if row.relu:
            node("Relu", [value], row.name)
    node("GlobalAveragePool", [LAYERS[-1].name], "pooled")
    node("Flatten", ["pooled"], "features")
    weight = constant("classifier.weight", network.classifier.weight)
    bias = constant("classifier.bias", network.classifier.bias)
    nodes.append(
        helper.make_node("Gemm", ["features", weight, bias], ["logits"], name="classifier", transB=1)
    )
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="zeroskip")
    model.ir_version = 8
    helper.set_model_props(
        model,
        {
            "zeroskip.preprocess": json.dumps(PREPROCESS),
            "description": "scikit-learn digits at 32x32; examples/train_digits.py wrote it",
            "held_back_top1": f"{top1:.4f}",
        },
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("digits.onnx"))
    options = parser.parse_args()
    start = time.perf_counter()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    digits = load()
    network = train(digits, options.epochs)
    top1 = accuracy(network, digits)
    onnx.save(to_onnx(network, top1), options.output)
    weights = sum(p.numel() for p in network.parameters() if p.dim() > 1)
    print(
        f"{options.output}: {weights} weights, top-1 {top1:.4f} on {len(digits.held_back_labels)} held-back "
        f"digits, {time.perf_counter() - start:.0f} s on one core"
    )


if __name__ == "__main__":
    main()
