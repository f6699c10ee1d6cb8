"""Reader of idx files, the format of MNIST (http://yann.lecun.com/exdb/mnist), plain or gzipped."""

import gzip
import math
import struct
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from certus.core.errors import FileError
from certus.core.files import opened

LIMIT = 1 << 28  # bytes of data in one file; the largest file of MNIST has 47 million
_CHUNK = 1 << 20
_HEADER = 20  # bytes before the data, at most
_GZIP = b"\x1f\x8b"
_UINT8 = 0x08
_SIDE = 28


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an idx file of unsigned bytes with 1 to 4 dimensions.

    Never holds more than the size that the header declares, and refuses a header that declares more
    than `LIMIT` bytes, so a file that unpacks without end costs nothing.
    Raises FileError where the file is missing, unreadable, truncated, too long, or not idx.
    """
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(opened(path, LIMIT + _HEADER))
            packed = stream.read(2) == _GZIP
            stream.seek(0)
            if not packed:
                return _parse(stream, path)
            return _parse(stack.enter_context(gzip.GzipFile(fileobj=stream)), path)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be read ({error}); copy or download it again") from error


def read_pair(images: Path, labels: Path, classes: int) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 28, 28] float32 in [0, 1] and labels [N] int64 below `classes`.

    Raises FileError where a file is damaged, has other dimensions, the counts differ, or a label is
    out of range.
    """
    pixels, classed = read_idx(images), read_idx(labels)
    if pixels.ndim != 3 or pixels.shape[1:] != (_SIDE, _SIDE):
        raise FileError(
            f"{images} must hold images of {_SIDE} x {_SIDE} pixels, "
            f"its dimensions are {pixels.shape}"
        )
    if classed.ndim != 1:
        raise FileError(
            f"{labels} must hold one label an image, its dimensions are {classed.shape}"
        )
    if len(pixels) != len(classed):
        raise FileError(
            f"{images} has {len(pixels)} images but {labels} has {len(classed)} labels; "
            "take both from the same data set"
        )
    if int(classed.max()) >= classes:
        raise FileError(f"{labels} has label {classed.max()}, labels must lie in 0..{classes - 1}")
    x = torch.from_numpy(pixels).unsqueeze(1).float().div_(255)
    return x, torch.from_numpy(classed).long()


def _parse(stream: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[np.uint8]:
    magic = _take(stream, 4, path)
    if magic[:2] != b"\0\0" or magic[2] != _UINT8 or magic[3] not in range(1, 5):
        raise FileError(f"{path} is not an idx file of bytes (it starts with {magic.hex()})")
    dims = struct.unpack(f">{magic[3]}I", _take(stream, 4 * magic[3], path))
    size = math.prod(dims)
    if not 0 < size <= LIMIT:
        raise FileError(f"{path} declares {size} values of shape {dims}, allowed are 1 to {LIMIT}")
    data = _take(stream, size, path)
    if stream.read(1):  # also makes gzip compare its checksum
        raise FileError(f"{path} goes on after the {size} values that its header declares")
    return np.frombuffer(data, np.uint8).reshape(dims)


def _take(stream: BinaryIO | gzip.GzipFile, size: int, path: Path) -> bytearray:
    # In chunks: a single read would allocate what a damaged header declares.
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(_CHUNK, size - len(data)))
        if not chunk:
            raise FileError(f"{path} is truncated; copy or download it again")
        data += chunk
    return data
