"""Download of public data sets: a file is kept only if it matches its published digest."""

import gzip
import hashlib
import http.client
import io
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from certus.core.errors import ArgumentError, FileError
from certus.core.files import content, replace_file
from certus.core.progress import Progress, silent
from certus.core.validate import positive

_LIMIT = 1 << 26  # bytes of one file, packed or unpacked; the largest has 47 million
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set lies and how its files are recognised.

    mirrors: addresses of folders (http or https), tried in turn. digests: file name (.gz) to MD5.
    packed: the MD5 is of the .gz file; otherwise of its content, which survives packing it anew.
    """

    mirrors: tuple[str, ...]
    digests: dict[str, str]
    packed: bool

    def __post_init__(self) -> None:
        """Refuse mirrors that are not web addresses."""
        for mirror in self.mirrors:
            if not mirror.startswith(("http://", "https://")):
                raise ArgumentError(f"a mirror must start with http:// or https://, got {mirror!r}")
        if not self.mirrors:
            raise ArgumentError("a download needs at least one mirror")

    def matches(self, file: str, data: bytes) -> bool:
        """Whether `data`, the bytes of a .gz or plain file, is the published `file`."""
        wanted = self.digests[file]
        return wanted in (_md5(data), None if self.packed else _md5_unpacked(data))


SOURCES: dict[str, Source] = {
    "mnist": Source(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        digests={
            "train-images-idx3-ubyte.gz": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte.gz": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte.gz": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte.gz": "27ae3e4e09519cfbb04c329615203637",
        },
        packed=False,
    ),
    "fashion-mnist": Source(
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        digests={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        packed=True,
    ),
}


def download_data(
    name: str,
    directory: Path | str,
    mirrors: Sequence[str] | None = None,
    timeout: float = 30.0,
    progress: Progress = silent,
) -> list[Path]:
    """Fetch the files of a data set into `directory`/`name` and return their paths.

    timeout: seconds without an answer after which a mirror is given up. progress is called with the
    bytes of the present file, its size (0: not told) and its name. Files that are there and match
    their digest are kept; a file appears under its name only after its digest was compared.
    Raises ArgumentError for an unknown data set, FileError where no mirror gave the right file.
    """
    if name not in SOURCES:
        raise ArgumentError(f"no download for {name!r}; choose one of: {', '.join(SOURCES)}")
    positive(timeout, "timeout")
    source = SOURCES[name]
    if mirrors is not None:
        source = replace(source, mirrors=tuple(mirrors))
    folder = Path(directory) / name
    return [_file(source, file, folder / file, timeout, progress) for file in source.digests]


def _file(source: Source, file: str, path: Path, timeout: float, progress: Progress) -> Path:
    with suppress(FileError):  # not there yet
        if source.matches(file, content(path, _LIMIT)):
            return path
    failures = []
    for mirror in source.mirrors:
        address = f"{mirror.rstrip('/')}/{file}"
        try:
            data = _read(address, timeout, lambda done, total: progress(done, total, file))
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{address}: {_line(error)}")
            continue
        if source.matches(file, data):
            replace_file(path, data)
            return path
        failures.append(f"{address}: not the published file (MD5 differs)")
    raise FileError(
        f"cannot download {file} ({'; '.join(failures)}); put it into {path.parent} by hand"
    )


def _read(address: str, timeout: float, tick: Callable[[int, int], None]) -> bytes:
    data = bytearray()
    with urllib.request.urlopen(address, timeout=timeout) as answer:
        declared = answer.headers.get("Content-Length", "")
        total = int(declared) if declared.isdecimal() else 0
        while chunk := answer.read(_CHUNK):
            data += chunk
            if len(data) > _LIMIT:
                raise ValueError(f"larger than {_LIMIT} bytes")
            tick(len(data), total)
    return bytes(data)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5_unpacked(data: bytes) -> str | None:
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if size > _LIMIT:
                    return None
                digest.update(chunk)
    except (OSError, EOFError, zlib.error):
        return None
    return digest.hexdigest()


def _line(error: Exception) -> str:
    reason = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
    return " ".join(str(reason).split()) or type(error).__name__
