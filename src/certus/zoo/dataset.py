"""Data sets that are classified: images and vectors scaled to [0, 1], split into train and test."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core import validate
from certus.core.errors import ArgumentError, FileError
from certus.core.fingerprint import fingerprint
from certus.zoo.download import SOURCES
from certus.zoo.idx import read_pair

_HELD_OUT = 0.25
_PARTS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """Inputs with labels: x_* [N, *shape] float32 inside clip, y_* [N] int64 in 0..classes - 1.

    clip is the range of valid inputs, which threats intersect their balls with.
    Raises ArgumentError where the tensors do not fit together.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor
    classes: int
    clip: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check dtypes, shapes, labels, and that every input lies inside clip."""
        validate.count(self.classes, "classes", least=2)
        for part, x, y in (
            ("train", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            validate.inputs(x, tuple(self.x_train.shape[1:]))
            validate.labels(y, len(x), self.classes)
            if x.dtype != torch.float32 or y.dtype != torch.int64:
                raise ArgumentError(
                    f"the {part} split of {self.name} must be float32 and int64, "
                    f"got {x.dtype} and {y.dtype}"
                )
            low, high = float(x.min()), float(x.max())
            if low < self.clip[0] or high > self.clip[1]:
                raise ArgumentError(
                    f"the {part} inputs of {self.name} must lie in {self.clip}, "
                    f"got {low:g}..{high:g}"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.x_test.shape[1:])

    def fingerprint(self) -> str:
        """Hash of every input and label of both splits."""
        names = ("x_train", "y_train", "x_test", "y_test")
        return fingerprint((name, getattr(self, name)) for name in names)

    def describe(self) -> str:
        """For example `digits: 1347 train and 450 test inputs of 1x8x8, 10 classes, in [0, 1]`."""
        dims = "x".join(map(str, self.shape))
        low, high = self.clip
        return (
            f"{self.name}: {len(self.x_train)} train and {len(self.x_test)} test inputs of {dims}, "
            f"{self.classes} classes, in [{low:g}, {high:g}]"
        )


def digits(directory: Path | None = None) -> Dataset:
    """UCI handwritten digits, 1797 images [1, 8, 8], 10 classes; bundled with scikit-learn.

    Grey levels 0..16 divided by 16; a quarter of each class is held out (always the same images).
    """
    from sklearn.datasets import load_digits

    bundle: Any = load_digits()
    x = (bundle.images[:, None] / 16).astype(np.float32)
    return _split("digits", x, bundle.target, 10)


def breast_cancer(directory: Path | None = None) -> Dataset:
    """Wisconsin diagnostic breast cancer, 569 vectors [30], 2 classes; bundled with scikit-learn.

    Each feature is scaled by the minimum and maximum of the training split, and held-out values
    beyond them are clipped to [0, 1]: a radius is a fraction of a feature's range in training.
    """
    from sklearn.datasets import load_breast_cancer

    bundle: Any = load_breast_cancer()
    return _split("breast-cancer", bundle.data, bundle.target, 2)


def mnist(directory: Path | None = None) -> Dataset:
    """MNIST, 60,000 + 10,000 images [1, 28, 28] of digits, from idx files (LeCun et al. 1998)."""
    return _from_idx("mnist", directory)


def fashion_mnist(directory: Path | None = None) -> Dataset:
    """Fashion-MNIST, in the format of MNIST, of articles of clothing (Xiao et al. 2017)."""
    return _from_idx("fashion-mnist", directory)


DATA: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": digits,
    "breast-cancer": breast_cancer,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
}


def load_data(name: str, directory: Path | str | None = None) -> Dataset:
    """The data set `name` of `DATA`.

    directory: where downloaded files lie (directly, or in a folder with the name of the data set);
    by default what the environment variable CERTUS_DATA names. Bundled data sets ignore it.
    Raises ArgumentError for an unknown name, FileError where files are missing or damaged.
    """
    if name not in DATA:
        raise ArgumentError(f"no data set {name!r}; choose one of: {', '.join(DATA)}")
    directory = directory or os.environ.get("CERTUS_DATA")
    return DATA[name](Path(directory) if directory else None)


def _split(name: str, x: Any, y: Any, classes: int) -> Dataset:
    from sklearn.model_selection import train_test_split

    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=_HELD_OUT, stratify=y, random_state=0
    )
    if x.ndim == 2:
        low, high = x_train.min(0), x_train.max(0)
        span = np.where(high > low, high - low, 1.0)
        x_train, x_test = (((part - low) / span).clip(0, 1) for part in (x_train, x_test))
    return Dataset(
        name=name,
        x_train=torch.tensor(x_train, dtype=torch.float32),
        y_train=torch.tensor(y_train, dtype=torch.int64),
        x_test=torch.tensor(x_test, dtype=torch.float32),
        y_test=torch.tensor(y_test, dtype=torch.int64),
        classes=classes,
    )


def _from_idx(name: str, directory: Path | None) -> Dataset:
    paths = _locate(name, directory)
    _refuse_namesakes(name, paths[-1])
    x_train, y_train = read_pair(paths[0], paths[1], 10)
    x_test, y_test = read_pair(paths[2], paths[3], 10)
    return Dataset(
        name=name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, classes=10
    )


def _locate(name: str, directory: Path | None) -> list[Path]:
    advice = (
        "name their directory with --data-dir or CERTUS_DATA, "
        f"or run: certus data {name} --download"
    )
    if directory is None:
        raise FileError(f"{name} needs {', '.join(_PARTS)} (plain or .gz); {advice}")
    missing: list[str] = []
    # The folder with the name comes first: data sets in this format share their file names.
    for folder in (directory / name, directory):
        found = [_plain_or_packed(folder / part) for part in _PARTS]
        paths = [path for path in found if path is not None]
        if len(paths) == len(_PARTS):
            return paths
        lost = [part for part, path in zip(_PARTS, found, strict=True) if path is None]
        missing = lost if not missing or len(lost) < len(missing) else missing
    raise FileError(
        f"{name}: no {', '.join(missing)} (plain or .gz) in {directory} or the folder {name} there; {advice}"
    )


def _plain_or_packed(path: Path) -> Path | None:
    packed = path.with_name(f"{path.name}.gz")
    return next((choice for choice in (path, packed) if choice.is_file()), None)


def _refuse_namesakes(name: str, labels: Path) -> None:
    # A folder of MNIST files named for Fashion-MNIST would load without a hint.
    file = f"{_PARTS[-1]}.gz"
    data = labels.read_bytes() if labels.stat().st_size < 1 << 20 else b""
    for other, source in SOURCES.items():
        if other != name and source.matches(file, data):
            raise FileError(
                f"{labels} belongs to {other}, not to {name}; keep each in a folder with its name"
            )
