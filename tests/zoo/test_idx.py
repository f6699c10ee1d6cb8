"""The idx reader returns what was written and refuses everything that is damaged."""

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from certus.core.errors import FileError
from certus.zoo import read_idx, read_pair


def idx(array: np.ndarray) -> bytes:
    dims = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + dims + array.astype(np.uint8).tobytes()


PIXELS = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 9, 4, 5, 6], dtype=np.uint8)
GOOD = idx(PIXELS)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("array", [LABELS, PIXELS, PIXELS.reshape(7, 7, 4, 28)])
def test_round_trip(tmp_path: Path, pack, array: np.ndarray) -> None:
    found = read_idx(write(tmp_path / "a", pack(idx(array))))
    assert found.dtype == np.uint8
    assert np.array_equal(found, array)


DAMAGED = {
    "empty": (b"", "truncated"),
    "header cut": (GOOD[:9], "truncated"),
    "data cut": (GOOD[:-1], "truncated"),
    "trailing byte": (GOOD + b"\0", "goes on after"),
    "wrong magic": (b"PK\x03\x04" + GOOD[4:], "not an idx file"),
    "floats": (b"\0\0\x0d\x03" + GOOD[4:], "not an idx file"),
    "no dimensions": (b"\0\0\x08\0", "not an idx file"),
    "many dimensions": (b"\0\0\x08\xff" + bytes(2000), "not an idx file"),
    "no values": (b"\0\0\x08\x01" + bytes(4), "declares 0 values"),
    "huge": (b"\0\0\x08\x03" + b"\xff" * 12, "allowed are"),
}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files_are_refused(tmp_path: Path, pack, case: str) -> None:
    data, text = DAMAGED[case]
    with pytest.raises(FileError, match=text) as caught:
        read_idx(write(tmp_path / "a", pack(data)))
    assert "\n" not in str(caught.value)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD)
    flipped = bytearray(packed)
    flipped[-6] ^= 1  # in the checksum
    for data in (packed[:-20], packed[:-4], bytes(flipped), packed[:12] + b"\xff" * 50):
        with pytest.raises(FileError, match="copy or download it again"):
            read_idx(write(tmp_path / "a", data))


def test_memory_is_bounded_by_what_the_header_declares(tmp_path: Path) -> None:
    bomb = gzip.compress(idx(LABELS) + bytes(200_000_000), compresslevel=1)
    declares_much = b"\0\0\x08\x01" + struct.pack(">I", 1 << 28) + b"\0"
    tracemalloc.start()
    try:
        for data, text in ((bomb, "goes on after"), (declares_much, "truncated")):
            write(tmp_path / "a", data)
            tracemalloc.reset_peak()
            with pytest.raises(FileError, match=text):
                read_idx(tmp_path / "a")
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_idx(tmp_path / "a")
    with pytest.raises(FileError, match="is a folder"):
        read_idx(tmp_path)


def test_pair_is_scaled(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "i", GOOD), write(tmp_path / "l", idx(LABELS))
    x, y = read_pair(images, labels, 10)
    assert (x.shape, x.dtype, y.dtype) == ((7, 1, 28, 28), torch.float32, torch.int64)
    assert y.tolist() == LABELS.tolist()
    np.testing.assert_allclose(x[:, 0].numpy(), PIXELS / 255, rtol=1e-6)
    assert float(x.min()) >= 0 and float(x.max()) <= 1


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        (PIXELS[:6], LABELS, "6 images but .* 7 labels"),
        (PIXELS, LABELS + 1, "label 10"),
        (PIXELS[:, :27], LABELS, "28 x 28"),
        (LABELS, LABELS, "28 x 28"),
        (PIXELS, PIXELS, "one label an image"),
    ],
)
def test_pairs_that_do_not_fit(tmp_path: Path, images, labels, text: str) -> None:
    with pytest.raises(FileError, match=text):
        read_pair(write(tmp_path / "i", idx(images)), write(tmp_path / "l", idx(labels)), 10)
