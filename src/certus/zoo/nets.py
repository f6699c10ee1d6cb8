"""Small networks to train and certify, as plain modules that a user would write."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from certus.core import validate
from certus.core.errors import ArgumentError
from certus.core.random import derive

Shape = tuple[int, ...]
_MOST_INPUTS = 1 << 18  # a damaged or hostile card must not allocate the machine's memory
_MOST_CLASSES = 1000
_SMALL_SIDE = 16


class Normalize(nn.Module):
    """(x - mean) / std for each channel, inside the model: threats then speak of raw inputs.

    mean and std have one number, or one for each channel of `shape` ([C, H, W] or [N]).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], shape: Sequence[int]) -> None:
        super().__init__()
        if {len(mean), len(std)} - {1, shape[0]} or not all(map(math.isfinite, [*mean, *std])):
            raise ArgumentError(
                f"mean and std must have 1 or {shape[0]} finite numbers, got {mean} and {std}"
            )
        if min(std) <= 0:
            raise ArgumentError(f"std must be positive, got {std}")
        for name, values in (("mean", mean), ("std", std)):
            # Rounded to float32 in every dtype, so that a model and its double agree.
            tensor = torch.tensor(values, dtype=torch.float32).to(torch.get_default_dtype())
            if not bool(torch.isfinite(tensor).all()) or (name == "std" and not bool(tensor.all())):
                raise ArgumentError(f"{name} must lie in the range of float32, got {values}")
            self.register_buffer(name, tensor.view(-1, *[1] * (len(shape) - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> [B, *shape]."""
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """The numbers, so that two different normalisations print differently."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class Residual(nn.Sequential):
    """x - f(x) for layers f that keep the shape: f says what to take off."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] -> [B, *shape]."""
        return x - super().forward(x)


@dataclass(frozen=True)
class Design:
    """How a network is built: layers(shape, classes), if it needs images, a line about it."""

    layers: Callable[[Shape, int], list[nn.Module]]
    images: bool
    about: str


def build_net(
    name: str,
    shape: Sequence[int],
    classes: int,
    seed: int = 0,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> nn.Sequential:
    """The network `name` of `NETS`, in training mode, on the CPU, with weights drawn from `seed`.

    shape is that of one input, [N] or [C, H, W]; logits are [B, classes] (dncnn returns images). With
    mean and std the first layer is `Normalize`. The global random state is left as it was.
    Raises ArgumentError for an unknown name or a shape that the network cannot take.
    """
    design = _design(name)
    size = _shape(name, design, shape)
    if validate.count(classes, "classes", least=2) > _MOST_CLASSES:
        raise ArgumentError(f"classes must be at most {_MOST_CLASSES}, got {classes}")
    validate.count(seed, "seed", least=0)
    # Only the CPU generator: torch.manual_seed would also seed every accelerator.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(derive(seed))
        layers = design.layers(size, classes)
        if mean or std:
            layers.insert(0, Normalize(mean, std, size))
    return nn.Sequential(*layers)


def _design(name: str) -> Design:
    if name not in NETS:
        raise ArgumentError(f"no network {name!r}; choose one of: {', '.join(NETS)}")
    return NETS[name]


def _shape(name: str, design: Design, shape: Sequence[int]) -> Shape:
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in shape)
    if not whole or len(shape) not in (1, 3) or math.prod(shape) > _MOST_INPUTS:
        raise ArgumentError(
            f"an input must have shape [N] or [C, H, W] with at most {_MOST_INPUTS} values, "
            f"got {list(shape)}"
        )
    if design.images and len(shape) != 3:
        fits = ", ".join(other for other, it in NETS.items() if not it.images)
        raise ArgumentError(
            f"{name} needs images [C, H, W], got {list(shape)}; choose one of: {fits}"
        )
    return tuple(shape)


def _flat(shape: Shape) -> list[nn.Module]:
    return [nn.Flatten()] if len(shape) > 1 else []


def _linear(shape: Shape, classes: int) -> list[nn.Module]:
    return [*_flat(shape), nn.Linear(math.prod(shape), classes)]


def _mlp(shape: Shape, classes: int) -> list[nn.Module]:
    return _dense(shape, classes, 128 if len(shape) > 1 else 64)


def _mlp_small(shape: Shape, classes: int) -> list[nn.Module]:
    return _dense(shape, classes, 24)


def _dense(shape: Shape, classes: int, width: int) -> list[nn.Module]:
    return [
        *_flat(shape),
        nn.Linear(math.prod(shape), width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, classes),
    ]


def _cnn_small(shape: Shape, classes: int) -> list[nn.Module]:
    return _convolutional(shape, classes, batch_norm=False)


def _cnn_bn(shape: Shape, classes: int) -> list[nn.Module]:
    return _convolutional(shape, classes, batch_norm=True)


def _convolutional(shape: Shape, classes: int, batch_norm: bool) -> list[nn.Module]:
    # For 28 x 28 this is CNN-A (Dathathri et al. 2020, https://arxiv.org/abs/2010.11645).
    channels, *sides = shape
    kernel = 4 if min(sides) >= _SMALL_SIDE else 3
    layers: list[nn.Module] = []
    for width in (16, 32):
        layers.append(nn.Conv2d(channels, width, kernel, stride=2, padding=1))
        layers += [nn.BatchNorm2d(width)] if batch_norm else []
        layers.append(nn.ReLU())
        channels, sides = width, [(side + 2 - kernel) // 2 + 1 for side in sides]
    values = channels * math.prod(sides)
    return [*layers, nn.Flatten(), nn.Linear(values, 100), nn.ReLU(), nn.Linear(100, classes)]


def _lenet(shape: Shape, classes: int) -> list[nn.Module]:
    # Zhai et al. 2020 and Jeong & Shin 2020 on MNIST. Pooling commutes with ReLU and is first here,
    # so that ReLU works on a quarter of the values. Small images keep their size in convolutions.
    channels, *sides = shape
    kernel, padding = (5, 0) if min(sides) >= _SMALL_SIDE else (3, 1)
    layers: list[nn.Module] = []
    for width in (20, 50):
        layers += [nn.Conv2d(channels, width, kernel, padding=padding), nn.MaxPool2d(2), nn.ReLU()]
        channels, sides = width, [(side + 2 * padding - kernel + 1) // 2 for side in sides]
    values = channels * math.prod(sides)
    return [*layers, nn.Flatten(), nn.Linear(values, 500), nn.ReLU(), nn.Linear(500, classes)]


def _dncnn(shape: Shape, classes: int) -> list[nn.Module]:
    # Zhang et al. 2017 with 5 layers of 32 and no normalisation; it predicts the noise.
    channels, width = shape[0], 32
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return [Residual(*layers, nn.Conv2d(width, channels, 3, padding=1))]


def _lipschitz_mlp(shape: Shape, classes: int) -> list[nn.Module]:
    return [
        *_flat(shape),
        orthogonal(nn.Linear(math.prod(shape), 128)),
        nn.ReLU(),
        orthogonal(nn.Linear(128, 128)),
        nn.ReLU(),
        nn.Linear(128, classes),
    ]


NETS: dict[str, Design] = {
    "linear": Design(_linear, False, "one linear layer"),
    "mlp": Design(_mlp, False, "two hidden layers of 128 (64 for vectors)"),
    "mlp-small": Design(_mlp_small, False, "two hidden layers of 24, for exact verification"),
    "cnn-small": Design(_cnn_small, True, "two convolutions (16, 32) and a layer of 100: CNN-A"),
    "cnn-bn": Design(_cnn_bn, True, "cnn-small with batch normalisation"),
    "lenet": Design(_lenet, True, "two convolutions (20, 50) with pooling and a layer of 500"),
    "dncnn": Design(_dncnn, True, "a denoiser of five convolutions: an image, no logits"),
    "lipschitz-mlp": Design(_lipschitz_mlp, False, "two orthogonal layers of 128, linear head"),
}
