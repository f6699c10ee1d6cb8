"""The section on smoothed classifiers: one curve and one line for each run, claims checked."""

import json
import re

import pytest
from tests.evaluation.test_transcript import claim
from tests.report.synthetic import ledger

from certus.evaluation import curve
from certus.report import render, report_data
from certus.report.smoothed import groups


def run(key: str, radii: list[float], **changes: object) -> list[dict]:
    """Rows of one run with transcripts of 1,000 samples (none for a radius of 0)."""
    rows = []
    for index, radius in enumerate(radii):
        own = claim(index, radius=radius, **changes) | {"run": key, "model": "net"}
        rows.append(own if radius else own | {"prediction": -1})
    return rows


A = run("a", [1.0, 0.6, 0.2, 0.0])
B = run("b", [0.9, 0.5, 0.1], rule="TwoSided(n0=100, n=1000)")
C = run("c", [0.5] * 3, noise="Gaussian(sigma=0.25)")


def text_of(page: str) -> str:
    """What a reader sees of the section."""
    section = page[page.index('<section id="smoothed">') :]
    section = section[: section.index("</section>")]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))


def test_one_curve_a_run_with_the_figures_of_evaluation() -> None:
    found = groups(A + B + C)[0]
    assert [e.name for e in found.entries] == [
        "net, sigma=0.5, Fixed",
        "net, sigma=0.5, TwoSided",
        "net, sigma=0.25, Fixed",
    ]
    assert found.radii == (0.0, 0.25, 0.5, 0.75, 1.0)
    entry = found.entries[0]
    assert [f.value for f in entry.figures.certified] == [0.75, 0.5, 0.5, 0.25, 0.25]
    line = entry.line
    assert line.eps[-2] == 1.0 and line.accuracy[-2:] == (0.25, 0.0)
    assert line.accuracy == curve(A, line.eps).accuracy and line.confidence == 0.999


def test_runs_that_differ_in_little_are_told_apart() -> None:
    same = groups(run("a", [0.5]) + run("b", [0.4]))[0]
    assert [e.name for e in same.entries] == ["net", "net #2"]
    seeds = groups(run("a", [0.5]) + run("b", [0.4], seed=3))[0]
    assert [e.name for e in seeds.entries] == ["net, seed=0", "net, seed=3"]


@pytest.mark.parametrize(
    ("end", "norm", "radii"),
    [
        (0.0, "l2", (0.0,)),
        (0.954, "l2", (0, 0.25, 0.5, 0.75)),
        (2.3, "l2", tuple(i / 4 for i in range(10))),
        (4.3, "l2", tuple(i / 2 for i in range(9))),
        (0.05, "linf", (0, 0.01, 0.02, 0.03, 0.04, 0.05)),
        (300.0, "l1", tuple(50.0 * i for i in range(7))),
        (3, "l0", (0, 1, 2, 3)),
        (40, "l0", tuple(5.0 * i for i in range(9))),
    ],
)
def test_the_radii_of_a_table(end: float, norm: str, radii: tuple) -> None:
    row = claim(radius=end) | {"norm": norm}
    assert groups([row])[0].radii == pytest.approx(radii)


def test_the_page_of_smoothing_alone() -> None:
    data = report_data(A + B + C)
    assert data.only_smoothed and data.notes == ()
    page = render(data)
    for name in ("curves", "table"):
        assert f'<section id="{name}">' not in page
    shown = text_of(page)
    assert "net, sigma=0.5, Fixed" in shown and "alpha 0.001 per input" in shown
    assert "75.0% &ge; 24.8%" in shown and "1 100 4 400" in shown
    assert "Radii found anew from the counts in their transcripts: 9." in shown
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    tile = page[page.index('class="tile"') :]
    tile = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", tile[: tile.index("</div>")]))
    assert "100.0% of 3 inputs certified" in tile and "with 95% confidence" in tile


def test_a_mixture_keeps_the_other_sections() -> None:
    rows, runs = ledger(("standard",), n=6)
    data = report_data(rows, runs)
    assert not data.only_smoothed
    page = render(data)
    for name in ("curves", "table", "smoothed"):
        assert f'<section id="{name}">' in page
    assert "its counts were not kept" in text_of(page)
    without = [row for row in rows if row["method"] != "smoothing"]
    assert '<section id="smoothed">' not in render(report_data(without, runs))


def test_a_row_that_claims_more_than_its_counts_is_withdrawn_and_named() -> None:
    lie = claim(7, radius=3.0) | {"run": "a", "model": "net"}
    data = report_data([*A, lie])
    assert "claim more than the counts in their transcripts prove: 1." in data.notes[0]
    assert "input 7 of net: it claims 3, its counts prove 1.0" in data.notes[0]
    page = render(data)
    assert data.notes[0] in page and "found anew from the counts in their transcripts: 3." in page
    entry = data.smoothed[0].entries[0]
    assert entry.figures.n == 5 and entry.figures.certified[-1].value == 0.2
    assert max(entry.line.eps) < 1.1


def test_what_a_log_says_of_itself_is_shown() -> None:
    def log(**changes: object) -> list[dict]:
        record = {
            "noise": "Gaussian(sigma=0.5)",
            "rule": "Fixed(n0=100, n=1000)",
            "n": 1000,
            "alpha": 0.01,
            "shared": False,
            "class": 1,
            "radius": 0.5,
            "log": "flowers__net__noise_0.50__test__sigma_0.50",
            "fits": [0.01],
        }
        own = {"evidence": json.dumps(record | changes), "confidence": 0.99, "run": "log"}
        return [claim(radius=0.5) | own | {"index": i} for i in (0, 10, 20)]

    def notes(rows: list[dict]) -> tuple[str, ...]:
        return groups(rows)[0].entries[0].notes

    shown = text_of(render(report_data(log(log="mnist__net__noise_0.50__test__sigma_0.50"))))
    assert "The log ends at input 20 of 10000: 3 rows" in shown
    assert "Radii in this log fit alpha = 0.01 (n = 1000) and no other usual one." in shown
    assert notes(log(fits=[0.05, 0.01])) == (
        "Radii in this log fit alpha = 0.05, 0.01 alike (n = 1000).",
    )
    assert "Converted from alpha 0.01 to 0.001." in notes(log(alpha=0.001, from_alpha=0.01))
    assert "is weaker" in notes(log(shared=True))[-1]
    stated = report_data(log(alpha=0.001)).notes
    assert "alpha is stated as 0.001, but its radii do not fit it" in stated[0]
    assert "(they fit 0.01)" in stated[0]
    assert report_data(log(alpha=0.001, from_alpha=0.01)).notes == ()


def test_the_best_run_is_found_on_the_inputs_that_all_share() -> None:
    """Over its own 3 inputs the second run certifies more, over the 2 that both have the first does."""
    first = run("a", [0.9, 0.9, 0.0, 0.0])
    second = [*run("b", [0.9, 0.0]), claim(8, radius=0.9) | {"run": "b", "model": "net"}]
    found = groups(first + second)[0]
    shares = [e.figures.certified[found.middle].value for e in found.entries]
    assert shares[0] < shares[1] and found.best is found.entries[0]
    apart = [claim(i, radius=0.9) | {"run": "c", "model": "net"} for i in (20, 21, 22)]
    found = groups(first + apart)[0]
    assert found.best is found.entries[0], "runs that share no input do not compete"


def test_a_tiny_alpha_is_no_proof_on_the_page() -> None:
    tiny = run("a", [1e-3], alpha=1e-20, confidence=1 - 2**-53)
    page = render(report_data(tiny))
    assert "holds with confidence 1 - 1.1e-16" in page and ">proof" not in page
