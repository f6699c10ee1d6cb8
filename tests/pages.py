"""The Python examples of a document, and what they print."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
_NUMBER = r"\d+(?:[.,]\d+)*"


def examples(name: str) -> list[tuple[str, str]]:
    """Each block of Python, and the block after it where the text between them says that it is printed."""
    block = r"```python\n(.*?)```\n(?:\nprints[^\n]*\n\n```\n(.*?)```)?"
    return re.findall(block, (DOCS / name).read_text(), re.DOTALL)


def printed(*codes: str) -> str:
    """What these blocks print, one after the other in one program."""
    shown, names = StringIO(), {"__name__": "example"}
    with redirect_stdout(shown):
        for code in codes:
            exec(compile(code, "example", "exec"), names)
    return shown.getvalue()


def agree(found: str, expected: str, absolute: float = 1e-12) -> None:
    """The same words, and figures within a seventh: they may differ a little on another machine."""
    assert re.sub(_NUMBER, "0", found) == re.sub(_NUMBER, "0", expected)
    numbers = [
        [float(v.replace(",", "")) for v in re.findall(_NUMBER, text)] for text in (found, expected)
    ]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.15, abs=absolute)
