import gzip
import random

import pytest
from tests.properties.texts import declared, text

from certus.core import CertusError, FileError, UnsupportedError
from certus.properties import load_property

# body after three lines of declarations (X_0, X_1, Y_0) and four of bounds -> line and message
MISTAKES = [
    ("(assert (<= Y_0 0)", 8, "'\\(assert' is never closed: expected '\\)'"),
    ("(assert (<= Y_0 0)\n(assert (<= Y_0 1))", 9, "expected '\\)' for the '\\(' of line 8 first"),
    ("(assert (<= Y_0 0)\n(assert (= Y_0 1))", 9, "expected '\\)' for the '\\(' of line 8 first"),
    ("(assert (<= Y_0 0)))", 8, "unexpected '\\)'"),
    ("(assert (<= Y_0 0))\n\n)", 10, "unexpected '\\)'"),
    ("(assert (<= Y_1 0))", 8, "Y_1 is not declared"),
    ("(assert (<= X_0 0))\n(assert (<= X_2 0))", 9, "X_2 is not declared"),
    ("(assert (<= (+ Y_0 Y_7) 0))", 8, "Y_7 is not declared"),
    ("(assert (<= Y_0 zero))", 8, "expected a number or a variable X_i or Y_j, found 'zero'"),
    ("(assert (<= Y_0 NaN))", 8, "found 'NaN'"),
    ("(assert (<= Y_0 inf))", 8, "found 'inf'"),
    ("(assert (<= Y_0 -Infinity))", 8, "found '-Infinity'"),
    ("(assert (<= Y_0 1e999))", 8, "1e999 is outside float64"),
    ("(assert (<= Y_0 -1e999))", 8, "-1e999 is outside float64"),
    ("(assert (<= Y_0 (* 1e300 1e300)))", 8, "outside float64"),
    ("(assert (<= Y_0 1.2.3))", 8, "found '1.2.3'"),
    ("(assert (<= Y_0 1_0))", 8, "found '1_0'"),
    ("(assert (<= Y_0 0x10))", 8, "found '0x10'"),
    ("(assert (<= Y_0 --1))", 8, "found '--1'"),
    ("(assert (<= Y_0 " + "1" * 5000 + "))", 8, "expected a number"),
    ("(assert (<= Y_00 0))", 8, "found 'Y_00'"),
    ("(assert (<= y_0 0))", 8, "found 'y_0'"),
    ("(assert (<= Y_0))", 8, "expected two terms after '\\(<=', found 1"),
    ("(assert (<=))", 8, "expected two terms after '\\(<=', found 0"),
    ("(assert (<= Y_0 (<= Y_0 1)))", 8, "found a formula"),
    ("(assert (and))", 8, "expected a formula after '\\(and'"),
    ("(assert (and (<= Y_0 0) Y_0))", 8, "expected a formula, found 'Y_0'"),
    ("(assert (or (+ Y_0 1)))", 8, "expected a formula, found a term"),
    ("(assert (not (<= Y_0 0) (<= Y_0 1)))", 8, "expected one formula after '\\(not', found 2"),
    ("(assert (=> (<= Y_0 0)))", 8, "expected two formulas"),
    ("(assert)", 8, "expected one formula after '\\(assert', found 0"),
    ("(assert (<= Y_0 0) (<= Y_0 1))", 8, "found 2"),
    ("(assert (<= (* Y_0 X_0) 1))", 8, "product of variables"),
    ("(assert (<= (/ 1 Y_0) 1))", 8, "constant divisor"),
    ("(assert (<= (/ Y_0 0) 1))", 8, "divisor that is not zero"),
    ("(assert (xor (<= Y_0 0) (<= Y_0 1)))", 8, "unknown symbol 'xor'; expected"),
    ("(assert (let ((a 1)) (<= Y_0 a)))", 8, "unknown symbol 'let'"),
    ("(asert (<= Y_0 0))", 8, "unknown symbol 'asert'"),
    ("(<= Y_0 0)", 8, "expected a command"),
    ("(and (<= Y_0 0))", 8, "expected a command"),
    ("((<= Y_0 0))", 8, "expected a symbol after '\\('"),
    ("()", 8, "expected a command"),
    ("(assert ((<= Y_0 0)))", 8, "expected a symbol after '\\('"),
    ("Y_0", 8, "expected '\\(', found 'Y_0'"),
    ("(declare-const X_0 Real)", 8, "X_0 is declared twice"),
    ("(declare-const X_3 Real)", 8, "X_3 is declared, but not every variable before it"),
    ("(declare-const H_0 Real)", 8, "expected the name X_i or Y_j of a variable, found 'H_0'"),
    ("(declare-const X_2 Int)", 8, "expected the sort Real"),
    ("(declare-fun X_2 (Real) Real)", 8, "expected"),
    ("(declare-const X_2)", 8, "expected the sort Real"),
    ("(assert " + "(not " * 200_000 + "(<= Y_0 0)" + ")" * 200_001, 8, "nested deeper than 10,000"),
    ("(assert (<= Y_0 \x07))", 8, "expected a number"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "line", "message"), MISTAKES)
def test_mistakes_name_line_and_what_was_expected(body, line, message):
    with pytest.raises(FileError, match=f"^the property, line {line}: .*{message}"):
        load_property(text(body, 2, 1))


WHOLE = [
    ("", "is empty"),
    ("\n \n", "is empty"),
    ("; only a comment\n", "declares no input X_0"),
    (declared(0, 1) + "(assert (<= Y_0 0))", "declares no input X_0"),
    (declared(1, 0) + "(assert (<= 0 X_0 1))", "declares no output Y_0"),
    (declared(2, 1), "has no assertion"),
    ("(\x00", "zero bytes"),
]


@pytest.mark.parametrize(("source", "message"), WHOLE)
def test_texts_that_say_too_little(source, message):
    with pytest.raises(FileError, match=message):
        load_property(source)


FILES = {
    "empty": (b"", "is empty"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(range(1, 256)) * 9, "line 1: expected '\\(', found"),
    "zeros": (bytes(1000), "zero bytes"),
    "utf16": (text("(assert (<= Y_0 0))").encode("utf-16"), "zero bytes"),
    "truncated gzip": (
        gzip.compress(text("(assert (<= Y_0 0))").encode(), mtime=0)[:-20],
        "archive is damaged",
    ),
    "broken gzip": (b"\x1f\x8b" + b"abc" * 50, "archive is damaged"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_none(name, tmp_path):
    content, message = FILES[name]
    (tmp_path / "p.vnnlib").write_bytes(content)
    with pytest.raises(FileError, match=message):
        load_property(tmp_path / "p.vnnlib")


def test_missing_files(tmp_path):
    for path in (tmp_path / "absent.vnnlib", str(tmp_path / "absent.vnnlib"), tmp_path):
        with pytest.raises(FileError, match=r"cannot be read|is a folder"):
            load_property(path)


@pytest.mark.parametrize(
    "source",
    [
        "(vnnlib-version <2.0>)\n(declare-network f)",
        "; c\n(declare-network f\n (declare-input X Real [1]))",
    ],
)
def test_version_2_is_refused_by_name(source):
    with pytest.raises(UnsupportedError, match=r"VNN-LIB 2.0, which is not read"):
        load_property(source)


def test_damaged_text_never_crashes():
    """One character deleted, doubled or replaced anywhere: a property or a clear error, nothing else."""
    rng = random.Random(0)
    whole = text(
        "(assert (or (and (<= Y_0 1.5) (>= X_0 (* 2 -0.25))) (not (= Y_0 (/ 1 3)))))", 1, 1
    )
    outcomes = set()
    for _ in range(700):
        at = rng.randrange(len(whole))
        piece = rng.choice(["", whole[at] * 2, rng.choice('()<=X_0Y19.e- ;|"\n\x01é')])
        try:
            load_property(whole[:at] + piece + whole[at + 1 :])
            outcomes.add("read")
        except CertusError as error:
            assert "\n" not in str(error)
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "FileError", "UnsupportedError"}
