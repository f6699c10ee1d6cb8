"""A name may stand for anything: only regular files are read or replaced, and errors are one line."""

import gzip
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from certus.core import CertusError, FileError
from certus.core.errors import LONGEST, one_line
from certus.core.files import (
    LINE,
    content,
    lines,
    locked,
    opened,
    replace_file,
    replaceable,
    replacing,
    unpacked,
)


def special(folder: Path, kind: str) -> Path:
    """What is no regular file, under a name of its own."""
    path = folder / "name"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "absent":
        path.symlink_to(folder / "nothing")
    return path


KINDS = {
    "folder": "name is a folder",
    "pipe": "name is a pipe",
    "socket": "name is a socket",
    "zeros": "name is a device",
}
LINKS = {"loop": "name cannot be read .Too many", "absent": "name cannot be read .No such file"}


@pytest.mark.parametrize(("kind", "message"), (KINDS | LINKS).items())
def test_only_regular_files_are_read(tmp_path: Path, kind: str, message: str) -> None:
    path = special(tmp_path, kind)
    with pytest.raises(FileError, match=message) as caught, opened(path, 100):
        pass
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"), (KINDS | {"loop": "name is a link to itself"}).items()
)
def test_only_regular_files_are_replaced(tmp_path: Path, kind: str, message: str) -> None:
    path = special(tmp_path, kind)
    before = path.lstat()
    with pytest.raises(FileError, match=message):
        replace_file(path, b"new")
    assert path.lstat().st_mode == before.st_mode and len(list(tmp_path.iterdir())) == 1


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    for name in ("a\0b", "a" * 300, "a/" * 3000):
        with pytest.raises(FileError, match="cannot be read") as caught:
            content(tmp_path / name, 10)
        assert len(str(caught.value)) <= LONGEST and "\0" not in str(caught.value)
        with pytest.raises(FileError, match="cannot be written"):
            replaceable(tmp_path / name)


def test_sizes_are_looked_at_before_a_byte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="1,099,511,627,776 bytes, at most 1,000 are read"):
        content(path, 1000)
    path.write_bytes(b"x" * 1000)
    assert content(path, 1000) == b"x" * 1000


def test_archives_unpack_as_far_as_they_may() -> None:
    assert unpacked(b"plain", "a", 3) == b"plain"
    packed = gzip.compress(bytes(1000), mtime=0)
    assert unpacked(packed, "a", 1000) == bytes(1000)
    with pytest.raises(FileError, match="a unpacks to more than 999 bytes"):
        unpacked(packed, "a", 999)
    with pytest.raises(FileError, match="a: the gzip archive is damaged"):
        unpacked(packed[:-9], "a", 1000)


def test_a_bomb_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("certus.core.files._FREE", 1 << 20)
    with pytest.raises(FileError, match="unpacks to more than 1,048,576 bytes"):
        unpacked(gzip.compress(bytes(1 << 22), mtime=0), "bomb", 1 << 30)


def test_lines_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n" + b"x" * LINE + b"y")
    with (
        lines(path, 1 << 30) as found,
        pytest.raises(FileError, match=r"a\.csv, line 3: longer than"),
    ):
        assert (next(found), next(found)) == ("one\r\n", "two\n")
        next(found)


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    link = tmp_path / "link"
    link.symlink_to("target")
    replace_file(link, b"new")
    assert link.is_symlink() and (tmp_path / "target").read_text() == "new"


def test_replacing_a_file_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder" / ("x" * 255)  # the longest name that a file can have
    replace_file(path, b"old")
    with pytest.raises(KeyError), replacing(path) as draft:
        draft.write_bytes(b"half")
        raise KeyError
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(FileError, match="disk full"):
        replace_file(path, b"newer")
    assert path.read_bytes() == b"new" and list(path.parent.iterdir()) == [path]


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileError, match="create it first"):
        replaceable(tmp_path / "none" / "a")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(FileError, match="read-only"):
        replaceable(tmp_path / "a")


def test_a_folder_is_locked_for_other_processes_until_this_one_ends(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    code = (
        "import sys; from pathlib import Path; from certus.core.files import locked\n"
        "with locked(Path(sys.argv[1])) as free: print(free, flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "True\n"
        with locked(tmp_path) as free:
            assert not free
        other.kill()
    with locked(tmp_path) as free:
        assert free
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_printable_line() -> None:
    assert str(FileError("plain, with umlauts: äöü")) == "plain, with umlauts: äöü"
    error = CertusError("a\nb\x1b[31m\u202e\ud800")
    assert str(error) == "a\\nb\\x1b[31m\\u202e\\ud800"
    long = FileError("begin " + "\0" * 10**6 + " end")
    assert str(long).startswith("begin \\x00") and str(long).endswith(" end")
    assert len(str(long)) == LONGEST and len(long.args[0]) > 10**6
    for size in (9, 10, 11, 19, 20, 21, 100):
        assert len(one_line("a" * size, 10)) == min(size, 10)
