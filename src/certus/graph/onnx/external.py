"""Data of a tensor that lie in another file: where they are, looked at before any is read."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certus.core import FileError
from certus.core.files import opened

_ANY = 1 << 62  # bytes: only the piece that is named is read
_WIDEST = 16  # bytes of a number


@dataclass(frozen=True)
class Place:
    """`length` bytes of a file from `offset` on; what names tensor and file in messages."""

    what: str
    path: Path
    offset: int
    length: int

    def data(self) -> bytes:
        """The bytes; FileError where they cannot be read."""
        with opened(self.path, _ANY) as file:
            try:
                file.seek(self.offset)
                data = file.read(self.length)
            except OSError as error:
                raise FileError(f"{self.what} cannot be read ({error})") from error
        if len(data) < self.length:
            raise FileError(f"{self.what} ends early: {self.path.name} is shorter than it was")
        return data


def place_of(model: str, tensor: Any, folder: Path | None) -> Place:
    """Where the external data of a TensorProto lie: in a regular file in the model's folder or below.

    Raises FileError for any other place, and where the file holds less, or the model claims more, than the
    tensor's shape needs.
    """
    what = f"{model}: external data of {tensor.name[:80]!r}"
    if folder is None:
        raise FileError(f"{what} cannot be found for a model given as bytes; give its path")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    try:
        path = _inside(folder, location)
        if path is None:
            raise FileError(f"{what} lies outside the model's folder ({location})")
        with opened(path, _ANY) as file:
            size = file.seek(0, 2)
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except (OSError, ValueError) as error:
        raise FileError(f"{what} cannot be read from {location} ({error})") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise FileError(f"{what} ends early: {location} is shorter than the model says")
    most = _WIDEST * math.prod(tensor.dims)
    if length > most:
        raise FileError(
            f"{what} has {length:,} bytes, its shape {list(tensor.dims)} at most {most:,}"
        )
    return Place(what, path, offset, length)


def _inside(folder: Path, location: str) -> Path | None:
    """The file, None where it lies outside the folder."""
    home, place = folder.resolve(), Path(location)
    path = (home / place).resolve()
    safe = not place.is_absolute() and ".." not in place.parts and path.is_relative_to(home)
    return path if safe else None
