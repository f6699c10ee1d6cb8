"""Data sets have the promised shapes and splits, and missing files are explained."""

import dataclasses
import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from certus.core.errors import ArgumentError, FileError
from certus.zoo import DATA, SOURCES, Dataset, load_data

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PARTS = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
COMMAND = "certus data {} --download"


def idx_files(folder: Path, seed: int = 0, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for part in PARTS:
        count = 12 if "train" in part else 5
        dims = (count, 28, 28) if "images" in part else (count,)
        values = rng.integers(0, 10, dims, dtype=np.uint8)
        data = bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + values.tobytes()
        path = folder / f"{part}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize(
    ("name", "train", "test", "shape", "classes"),
    [("digits", 1347, 450, (1, 8, 8), 10), ("breast-cancer", 426, 143, (30,), 2)],
)
def test_bundled(name: str, train: int, test: int, shape: tuple[int, ...], classes: int) -> None:
    data, again = load_data(name), load_data(name)
    assert (len(data.x_train), len(data.x_test)) == (train, test)
    assert (data.shape, data.classes, data.clip) == (shape, classes, (0.0, 1.0))
    assert (data.x_test.dtype, data.y_test.dtype) == (torch.float32, torch.int64)
    assert data.fingerprint() == again.fingerprint()
    assert data.describe().startswith(f"{name}: {train} train and {test} test inputs of ")
    for part in (data.y_train, data.y_test):  # stratified: class shares as in the whole
        share = torch.bincount(part, minlength=classes) / len(part)
        whole = torch.bincount(torch.cat([data.y_train, data.y_test])) / (train + test)
        assert float((share - whole).abs().max()) < 0.005


def test_digits_are_the_ones_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, bundle = load_data("digits"), load_digits()
    both = torch.cat([data.x_train, data.x_test]).flatten(1) * 16
    ours = {(*row, y) for row, y in zip(both.tolist(), [*data.y_train, *data.y_test], strict=True)}
    ours = {tuple(map(int, row)) for row in ours}
    theirs = {(*map(int, x), int(y)) for x, y in zip(bundle.data, bundle.target, strict=True)}
    assert ours == theirs


def test_breast_cancer_is_scaled_by_the_training_split() -> None:
    data = load_data("breast-cancer")
    assert torch.equal(data.x_train.amin(0), torch.zeros(30))
    assert torch.equal(data.x_train.amax(0), torch.ones(30))
    assert float(data.x_test.amax()) <= 1
    assert int((data.x_test.amax(0) == 1).sum()) < 30  # the test split had no say in the scale


def test_fingerprint_follows_every_tensor() -> None:
    data = load_data("breast-cancer")
    prints = {data.fingerprint()}
    for part in ("x_train", "y_train", "x_test", "y_test"):
        value = getattr(data, part).clone()
        value.view(-1)[0] = 1 - value.view(-1)[0].round()
        prints.add(dataclasses.replace(data, **{part: value}).fingerprint())
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x_test": torch.full((3, 2), 1.5)}, "must lie in"),
        ({"x_test": torch.full((3, 2), -0.5)}, "must lie in"),
        ({"x_test": torch.full((3, 2), float("nan"))}, "NaN"),
        ({"x_test": torch.zeros(3, 4)}, "shape"),
        ({"x_test": torch.zeros(4, 2)}, "labels must have shape"),
        ({"x_test": torch.zeros(3, 2).double()}, "float32"),
        ({"y_train": torch.tensor([0, 1, 2])}, "labels must lie in"),
        ({"y_train": torch.tensor([0, 1, -1])}, "labels must lie in"),
        ({"y_train": torch.tensor([0, 1, 1], dtype=torch.int32)}, "int64"),
        ({"classes": 1}, "classes"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change: dict, text: str) -> None:
    x, y = torch.rand(3, 2), torch.tensor([0, 1, 0])
    good = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "classes": 2}
    Dataset(name="ok", **good)
    with pytest.raises(ArgumentError, match=text):
        Dataset(name="bad", **(good | change))


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ArgumentError, match="digits, breast-cancer, mnist, fashion-mnist"):
        load_data("imagenet")
    assert list(DATA) == ["digits", "breast-cancer", "mnist", "fashion-mnist"]


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_idx_files_are_found(tmp_path: Path, name: str, packed: bool, nested: bool) -> None:
    idx_files(tmp_path / name if nested else tmp_path, packed=packed)
    data = load_data(name, str(tmp_path))
    assert (data.name, data.shape, len(data.x_train), len(data.x_test)) == (
        name,
        (1, 28, 28),
        12,
        5,
    )


def test_the_folder_with_the_name_wins_and_the_environment_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idx_files(tmp_path, seed=0)
    alone = load_data("mnist", tmp_path).fingerprint()
    idx_files(tmp_path / "mnist", seed=1)
    monkeypatch.setenv("CERTUS_DATA", str(tmp_path))
    assert load_data("mnist").fingerprint() == load_data("mnist", tmp_path).fingerprint() != alone
    assert load_data("fashion-mnist").fingerprint() == alone


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_missing_files_are_explained(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CERTUS_DATA", raising=False)
    idx_files(tmp_path / name)
    (tmp_path / name / "t10k-labels-idx1-ubyte").unlink()
    for directory in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(FileError) as caught:
            load_data(name, directory)
        text = str(caught.value)
        for part in ("t10k-labels-idx1-ubyte", "--data-dir", "CERTUS_DATA", COMMAND.format(name)):
            assert part in text
        assert "\n" not in text
        assert ("train-images" in text) == (directory != tmp_path)  # only what is missing


def test_files_of_another_data_set_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    idx_files(tmp_path)
    labels = (tmp_path / "t10k-labels-idx1-ubyte").read_bytes()
    digests = {"t10k-labels-idx1-ubyte.gz": hashlib.md5(labels).hexdigest()}
    source = SOURCES["mnist"]
    monkeypatch.setitem(SOURCES, "mnist", dataclasses.replace(source, digests=digests))
    assert load_data("mnist", tmp_path).name == "mnist"
    with pytest.raises(FileError, match="belongs to mnist, not to fashion-mnist"):
        load_data("fashion-mnist", tmp_path)


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="the shared MNIST files are absent")
def test_real_mnist() -> None:
    data = load_data("mnist", SHARED)
    assert (len(data.x_train), len(data.x_test), data.shape) == (60_000, 10_000, (1, 28, 28))
    assert data.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert torch.bincount(data.y_train).tolist()[:3] == [5923, 6742, 5958]
    assert abs(float(data.x_train.mean()) - 0.1307) < 1e-4
    with pytest.raises(FileError, match="belongs to mnist"):
        load_data("fashion-mnist", SHARED / "mnist")
