"""The networks of the benchmark, their inputs and their boxes: published weights or seeded ones."""

import gzip
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from vit import difference, read_vit

SEED = 20260701
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
_AGREE = 1e-4  # relative difference from onnxruntime
_BOUND = re.compile(r"\(assert \((<=|>=) X_(\d+) ([-+.\deE]+)\)\)")
_RIVAL = re.compile(r"\(>= Y_\d+ Y_(\d+)\)")


@dataclass(frozen=True, eq=False)
class Case:
    """One network with a batch of inputs x [B, *shape], labels y [B] and a box around each input.

    path: the ONNX file that the module was rebuilt from, if any.
    """

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor
    lower: Tensor
    upper: Tensor
    eps: float
    path: Path | None = None


@dataclass(frozen=True)
class Source:
    """How a case is made; `weights` is a file of the data folder's sdp_models, if there is one."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    eps: float
    weights: str = ""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


class Block(nn.Module):
    """relu(conv(relu(conv(x))) + shortcut(x)) without batch normalisation."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1)
        projected = stride > 1 or inner != outer
        self.shortcut = nn.Sequential(*[nn.Conv2d(inner, outer, 1, stride)] * projected)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        return torch.relu(self.conv2(torch.relu(self.conv1(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """cifar_resnet2b (one stage of two blocks) and cifar_resnet4b (two stages)."""

    def __init__(self, width: int, stages: int, values: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(width, 2 * width, 2), Block(2 * width, 2 * width, 1))
        self.layer2 = nn.Sequential()
        if stages == 2:
            self.layer2.extend([Block(2 * width, 2 * width, 2), Block(2 * width, 2 * width, 1)])
        self.linear1, self.linear2 = nn.Linear(values, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features = self.layer2(self.layer1(torch.relu(self.conv1(x))))
        return self.linear2(torch.relu(self.linear1(features.flatten(1))))


def mlp() -> nn.Module:
    """784-256-256-10."""
    layers = (nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    return nn.Sequential(nn.Flatten(), *layers)


def cnn_a() -> nn.Module:
    """CNN-A for MNIST (Dathathri et al. 2020)."""
    layers = (
        *(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)),
    )
    return nn.Sequential(*layers)


def cnn7(shape: tuple[int, int, int]) -> nn.Module:
    """The seven-layer network with batch normalisation of Shi et al. 2021; statistics from noise."""
    channels, side = shape[0], shape[1]
    layers: list[nn.Module] = []
    for width, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1)):
        layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    half = (side + 1) // 2
    layers += [nn.Flatten(), nn.Linear(128 * half * half, 512), nn.BatchNorm1d(512), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(512, 10))
    norms = [m for m in net if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.rand(64, *shape))
    for norm in norms:
        norm.momentum = 0.1
    return net


_CIFAR = {"mean": CIFAR_MEAN, "std": CIFAR_STD}
SOURCES = {
    "mlp": Source(mlp, (1, 28, 28), 0.05),
    "cnn_a": Source(cnn_a, (1, 28, 28), 0.3, "mnist_cnn_a_adv"),
    "resnet2b": Source(
        lambda: ResNet(8, 1, 1024), (3, 32, 32), 2 / 255, "cifar_resnet2b", **_CIFAR
    ),
    "resnet4b": Source(
        lambda: ResNet(16, 2, 512), (3, 32, 32), 1 / 255, "cifar_resnet4b", **_CIFAR
    ),
    "cnn7": Source(lambda: cnn7((3, 32, 32)), (3, 32, 32), 2 / 255, **_CIFAR),
    "cnn7_mnist": Source(lambda: cnn7((1, 28, 28)), (1, 28, 28), 0.1),
}
VITS = {"vit_pgd": "pgd_2_3_16", "vit_ibp": "ibp_3_3_8"}
NAMES = ("mlp", "cnn_a", "resnet2b", "resnet4b", "cnn7", *VITS)


def load_case(name: str, batch: int, data: Path | None) -> Case:
    """The case with a batch; data None, or a network without a file: seeded weights."""
    torch.manual_seed(SEED)
    if name in VITS:
        return _vit(name, batch, data)
    source = SOURCES[name]
    module = source.build()
    if data is not None and source.weights:
        module.load_state_dict(load_file(data / "sdp_models" / f"{source.weights}.safetensors"))
    module.eval().requires_grad_(False)
    images, labels = _images(source.shape, batch, data)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (source.mean, source.std))
    x, lower, upper = (
        (image - mean) / std
        for image in (
            images,
            (images - source.eps).clamp(0, 1),
            (images + source.eps).clamp(0, 1),
        )
    )
    if labels is None or not source.weights:  # a net that never saw labels is asked to keep its own
        labels = module(x).argmax(1)
    return Case(name, module, x, labels, lower, upper, source.eps)


def _images(
    shape: tuple[int, int, int], batch: int, data: Path | None
) -> tuple[Tensor, Tensor | None]:
    """Images [batch, *shape] in [0, 1], repeated cyclically where there are too few, and labels."""
    if data is None:
        from sklearn.datasets import load_digits

        digits = torch.from_numpy(load_digits().images[:batch]).float() / 16
        images = interpolate(digits[:, None], shape[1:], mode="bilinear").clamp(0, 1)
        return images.expand(-1, shape[0], -1, -1).contiguous(), None
    kind = "mnist" if shape[0] == 1 else "cifar"
    found = np.load(data / "sdp_models" / f"sdp_{kind}_000_099.npz", allow_pickle=False)
    index = torch.arange(batch) % len(found["y"])
    images = torch.from_numpy(found["X"]).permute(0, 3, 1, 2)[index].contiguous()
    if batch > len(found["y"]):  # repeated images are shifted by a pixel, so that none is twice
        shift = torch.arange(batch) // len(found["y"])
        images = torch.stack(
            [image.roll(int(s), -1) for image, s in zip(images, shift, strict=True)]
        )
    return images, torch.from_numpy(found["y"])[index]


def _vit(name: str, batch: int, data: Path | None) -> Case:
    if data is None:
        raise FileNotFoundError(f"{name} needs the data folder with vnncomp/vit_2023")
    folder = data / "vnncomp" / "vit_2023"
    path = folder / "onnx" / f"{VITS[name]}.onnx.gz"
    module = read_vit(path).eval().requires_grad_(False)
    files = sorted((folder / "vnnlib").glob(f"{VITS[name]}_*.vnnlib.gz"))
    boxes = [_box(files[i % len(files)]) for i in range(batch)]
    lower = torch.stack([box[0] for box in boxes])
    upper = torch.stack([box[1] for box in boxes])
    labels = torch.tensor([box[2] for box in boxes])
    x, eps = (lower + upper) / 2, float((upper - lower).max() / 2)
    error = difference(path, module, x)
    if error > _AGREE:
        raise ValueError(f"{path.name} rebuilt differs from onnxruntime by {error:.1e}")
    return Case(name, module, x, labels, lower, upper, eps, path)


def _box(path: Path) -> tuple[Tensor, Tensor, int]:
    """Lower and upper limits [3, 32, 32] and the label of a classification property."""
    text = gzip.decompress(path.read_bytes()).decode()
    limits = torch.empty(2, 3 * 32 * 32)
    for relation, position, value in _BOUND.findall(text):
        limits[int(relation == "<="), int(position)] = float(value)
    found = _RIVAL.search(text)
    assert found is not None, path
    lower, upper = limits.view(2, 3, 32, 32)
    return lower, upper, int(found[1])
