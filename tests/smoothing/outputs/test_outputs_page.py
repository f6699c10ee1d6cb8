"""The examples of docs/smoothing-outputs.md run as they are written, and print what it says."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "docs" / "smoothing-outputs.md"
EXAMPLES = re.findall(
    r"```python\n(.*?)```\n\nprints[^\n]*\n\n```\n(.*?)```", PAGE.read_text(), re.DOTALL
)
NUMBER = r"\d+(?:\.\d+)?"


def printed(*codes):
    shown, names = StringIO(), {"__name__": "example"}
    with redirect_stdout(shown):
        for code in codes:
            exec(compile(code, PAGE.name, "exec"), names)
    return shown.getvalue()


def agree(found, expected):
    """The same words, and figures within a tenth: they may differ a little on another machine."""
    assert re.sub(NUMBER, "0", found) == re.sub(NUMBER, "0", expected)
    numbers = [[float(v) for v in re.findall(NUMBER, text)] for text in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.15)


def test_there_are_examples():
    assert len(EXAMPLES) == PAGE.read_text().count("```python") == 4


def test_regression():
    code, expected = EXAMPLES[0]
    agree(printed(code), expected)


def test_digits():
    codes, expected = zip(*EXAMPLES[1:], strict=True)
    agree(printed(*codes), "".join(expected))
