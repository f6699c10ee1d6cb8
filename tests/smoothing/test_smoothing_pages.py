"""docs/smoothing.md and docs/statistics.md: examples run and print what they say, names are importable."""

import re

import pytest
from tests.pages import DOCS, agree, examples, printed

import certus.smoothing
from certus.smoothing import Derandomized, Noise, Rule


@pytest.mark.parametrize(("name", "blocks"), [("smoothing.md", 9), ("statistics.md", 2)])
def test_examples_run_and_print_what_is_said(name, blocks):
    codes, expected = zip(*examples(name), strict=True)
    assert len(codes) == blocks
    agree(printed(*codes), "".join(expected), absolute=4)  # a few inputs of 40


@pytest.mark.parametrize("name", ["smoothing.md", "statistics.md"])
def test_every_class_of_the_tables_is_imported_by_one_line(name):
    text = (DOCS / name).read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    called = {word for row in rows for word in re.findall(r"`([A-Z]\w+)[(.`]", row)}
    imported = set(re.findall(r"\w+", " ".join(re.findall(r"import (.*)", text))))
    known = {word for word in called if hasattr(certus.smoothing, word)}
    assert known == called - {"GAUSSIAN", "LAPLACE"}
    assert known <= imported
    assert len(known) >= 6


def leaves(base: type) -> set[type]:
    below = base.__subclasses__()
    return {base}.union(*map(leaves, below)) if below else {base}


@pytest.mark.parametrize("base", [Noise, Derandomized, Rule])
def test_one_package_has_every_noise_set_of_copies_and_rule(base):
    ours = [
        k for k in leaves(base) if k.__module__.startswith("certus.") and not k.__subclasses__()
    ]
    assert len(ours) > 1
    for leaf in ours:
        assert getattr(certus.smoothing, leaf.__name__) is leaf


def test_rules_are_written_with_keywords_as_they_must_be():
    for rule in ("Fixed", "AtRadius"):
        with pytest.raises(TypeError):
            getattr(certus.smoothing, rule)(1000)
    text = (DOCS / "statistics.md").read_text()
    for arguments in re.findall(
        r"`(?:Fixed|FixedRandomized|TwoSided|Largest|AtRadius|Precision)\(([^)]*)\)", text
    ):
        assert all("=" in part for part in arguments.split(","))
