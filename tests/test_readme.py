"""The Python examples of the README run as they are written, and print what it says."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
# an example, and the block after it where the text between them says that it is printed
EXAMPLES = re.findall(
    r"```python\n(.*?)```\n(?:\nprints[^\n]*\n\n```\n(.*?)```)?", README.read_text(), re.DOTALL
)


def run(code):
    shown = StringIO()
    with redirect_stdout(shown):
        exec(compile(code, "README.md", "exec"), {"__name__": "example"})
    return shown.getvalue()


def test_there_are_examples():
    assert ["certus.load" in code for code, _ in EXAMPLES] == [False, False, True]
    assert all(printed for _, printed in EXAMPLES)


def test_onnx_and_vnnlib(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    code, printed = EXAMPLES[2]
    assert run(code) == printed


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("number", [0, 1])
def test_training_and_certification(number):
    """Figures may differ a little on another machine; the words may not."""
    code, printed = EXAMPLES[number]
    assert re.sub(r"\d+", "0", run(code)) == re.sub(r"\d+", "0", printed)
