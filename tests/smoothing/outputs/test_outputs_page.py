"""The examples of docs/smoothing-outputs.md run as they are written, and print what it says."""

from tests.pages import agree, examples, printed

EXAMPLES = examples("smoothing-outputs.md")


def test_there_are_examples():
    assert len(EXAMPLES) == 4
    assert all(expected for _, expected in EXAMPLES)


def test_regression():
    code, expected = EXAMPLES[0]
    agree(printed(code), expected)


def test_digits():
    codes, expected = zip(*EXAMPLES[1:], strict=True)
    agree(printed(*codes), "".join(expected))
