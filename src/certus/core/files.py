"""Files of a user: read only where they are regular and not too large, written whole or not at all.

A name may stand for anything: a device without an end, a pipe that nobody writes to, a link to either.
Every failure is a FileError of one line that holds the name.
"""

import gzip
import io
import os
import stat
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from certus.core.errors import FileError

LINE = 1 << 20  # characters of one line of a table
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20
_FREE = 1 << 28  # bytes that any archive may unpack to
_RATIO = 20  # beyond that, so many times its own size: weights and properties shrink by less
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link to itself",
}


@contextmanager
def opened(path: Path, most: int) -> Iterator[io.BufferedReader]:
    """A regular file of at most `most` bytes, open for reading; links are followed.

    Raises FileError for anything else, without waiting and without reading.
    """
    try:
        _regular(path, Path(path).stat().st_mode)  # first: opening alone may act on a device
        file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({_why(error)})") from error
    with file:
        found = os.fstat(file.fileno())
        _regular(path, found.st_mode)
        if found.st_size > most:
            raise FileError(f"{path} has {found.st_size:,} bytes, at most {most:,} are read")
        yield file


def content(path: Path, most: int) -> bytes:
    """All bytes of a regular file of at most `most`; FileError as `opened`."""
    with opened(path, most) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            data = file.read(size + 1)
        except OSError as error:
            raise FileError(f"{path} cannot be read ({_why(error)})") from error
    if len(data) != size:
        raise FileError(f"{path} cannot be read (it changes while it is read)")
    return data


def unpacked(raw: bytes, name: str, most: int) -> bytes:
    """What a gzip archive holds, other bytes as they are; FileError where it is damaged or a bomb."""
    if raw[:2] != _GZIP:
        return raw
    most = min(most, max(_FREE, _RATIO * len(raw)))
    data = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
            while chunk := file.read(_CHUNK):
                data += chunk
                if len(data) > most:
                    raise FileError(
                        f"{name} unpacks to more than {most:,} bytes, the most that is read"
                    )
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{name}: the gzip archive is damaged ({_why(error)})") from error
    return bytes(data)


@contextmanager
def lines(path: Path, most: int) -> Iterator[Iterator[str]]:
    """The lines of a UTF-8 text with their ends; FileError as `opened`, and for a line longer than LINE.

    What is not UTF-8 is the UnicodeDecodeError of the line.
    """
    with opened(path, most) as raw, io.TextIOWrapper(raw, "utf-8-sig", newline="") as text:
        yield _bounded(text, path)


def replaceable(path: Path) -> Path:
    """Where `path` leads, if a file can be written there: links are followed, folders must exist.

    Raises FileError where they do not, and where something else than a regular file would be replaced.
    """
    try:
        target = Path(os.path.realpath(path))
        if not target.parent.is_dir():
            raise FileError(
                f"{path} cannot be written: the folder {path.parent} does not exist; create it first"
            )
        with suppress(FileNotFoundError):
            _regular(path, target.lstat().st_mode)
        if not os.access(target.parent, os.W_OK | os.X_OK):
            raise FileError(f"{path} cannot be written (its folder is read-only)")
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be written ({_why(error)})") from error
    return target


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft for the block to write, which then takes the place of `path`: the old bytes or the new ones.

    Raises FileError as `replaceable`, and where the draft cannot be written.
    """
    target = replaceable(path)
    draft = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            yield draft
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({_why(error)})") from error


def replace_file(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `replacing` does; makes the folder where it is missing."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({_why(error)})") from error
    with replacing(path) as draft:
        draft.write_bytes(data)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether this block has the folder for itself: False where another process is in such a block.

    The lock ends with the process, however that ends. True, too, where the system has no such locks.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        free = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        except OSError:  # a file system without locks
            pass
        yield free
    finally:
        os.close(handle)


def _regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise FileError(f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file")


def _bounded(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    number = 0
    while line := text.readline(LINE + 1):
        number += 1
        if len(line) > LINE:
            raise FileError(f"{path}, line {number}: longer than {LINE:,} characters")
        yield line


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
