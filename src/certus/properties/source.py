"""The bytes of a property: from a file (plain or gzipped) or a text, without comments and quotes."""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from certus.core import FileError, UnsupportedError
from certus.core.files import content, unpacked

_HEADER = 1 << 16  # bytes in which the version stands
LARGEST = 2**27  # bytes; reading takes six times as much memory
_PIECES = 1_000_000  # comments, strings and quoted names

_QUOTED = re.compile(rb"""\|[^|]*\||"[^"]*"|;[^\n]*""")
_COMMENT = re.compile(rb";[^\n]*")
_SECOND = re.compile(rb"\(\s*(?:vnnlib-version\s*<\s*2|declare-network\b)")


@dataclass(frozen=True)
class Source:
    """A property's text, with a name for errors. Comments are gone, line breaks are kept."""

    name: str
    text: bytes

    def error(self, position: int, message: str) -> FileError:
        """A FileError that names the line of a position in the text."""
        line = self.text.count(b"\n", 0, max(position, 0)) + 1
        return FileError(f"{self.name}, line {line}: {message}")


def read(source: str | Path) -> Source:
    """A path, or a text: a string that holds a line break or begins with `(` or `;` is a text.

    Files may be gzipped, whatever their name. Raises FileError for a file that cannot be read, is
    empty or larger than LARGEST, and UnsupportedError for VNN-LIB 2.0.
    """
    name, raw = _load(source)
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if not raw or raw.isspace():
        raise FileError(
            f"{name} is empty; expected a VNN-LIB property: (declare-const X_0 Real) ..."
        )
    if b"\0" in raw:
        raise FileError(f"{name} is no text: it holds zero bytes; expected a VNN-LIB property")
    text = _uncommented(name, raw)
    if _SECOND.search(text, 0, _HEADER):
        raise UnsupportedError(
            f"{name} is written in VNN-LIB 2.0, which is not read; write the property in VNN-LIB 1.0"
        )
    return Source(name, text)


def _load(source: str | Path) -> tuple[str, bytes]:
    if isinstance(source, str) and (
        not source.strip() or "\n" in source or source.lstrip()[0] in "(;"
    ):
        return "the property", source.encode("utf-8", "backslashreplace")
    path = Path(source)
    return str(path), unpacked(content(path, LARGEST), str(path), LARGEST)


def _uncommented(name: str, raw: bytes) -> bytes:
    """Without comments; quoted names and strings become one symbol. Line breaks stay."""
    quotes = b"|" in raw or b'"' in raw
    pattern = _QUOTED if quotes else _COMMENT
    if sum(1 for _ in islice(pattern.finditer(raw), _PIECES + 1)) > _PIECES:
        raise FileError(f"{name} holds more than {_PIECES:,} comments and quoted names")
    return pattern.sub(lambda found: _blank(found.group()), raw)


def _blank(piece: bytes) -> bytes:
    return b"" if piece[:1] == b";" else b"quoted" + b"\n" * piece.count(b"\n")
