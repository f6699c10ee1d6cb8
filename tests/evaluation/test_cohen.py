"""Certification logs: published ones give the published figures, our own come back as they were."""

import json
import math
from pathlib import Path

import pytest
from scipy.stats import beta, norm
from tests.evaluation.fakes import row
from tests.evaluation.test_transcript import RULES, claim
from tests.evaluation.test_transcript import rows as drawn

from certus.core import ArgumentError, FileError
from certus.core.kinds import text
from certus.evaluation import (
    LogSettings,
    at_alpha,
    audit,
    average_certified_radius,
    curve,
    ends_early,
    evidence_of,
    export,
    read,
)
from certus.smoothing import Gaussian
from certus.smoothing.rules import Fixed

NAME = "mnist__net__noise_0.50__test__sigma_0.25.tsv"
HEAD = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def radius(hits: int, n: int = 1000, alpha: float = 0.001, sigma: float = 0.25) -> float:
    """Cohen's radius, from other functions than the library's."""
    return float(sigma * norm.ppf(beta.ppf(alpha, hits, n - hits + 1)))


BODY = [
    f"0\t7\t7\t{radius(1000):.3}\t1\t0:02:31.238689",
    f"10\t2\t2\t{radius(998):.3}\t1\t0:00:01",
    f"20\t1\t8\t{radius(997):.3}\t0\t1 day, 0:00:00.500000",
    "30\t0\t-1\t0.0\t0\t15.4",
]
SETTINGS = LogSettings(n=1000)


def log(folder: Path, *lines: str, name: str = NAME) -> Path:
    """A log of these lines."""
    path = folder / name
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_a_log_becomes_rows(tmp_path: Path) -> None:
    rows = read(log(tmp_path, *BODY), SETTINGS)
    assert [r["index"] for r in rows] == [0, 10, 20, 30]
    assert [r["prediction"] for r in rows] == [7, 2, 8, -1]
    assert {(r["eps"], r["verdict"]) for r in rows} == {(None, "")}
    assert [r["reason"] for r in rows] == ["", "", "wrong_class", "abstained"]
    assert [r["radius"] for r in rows] == [0.616, float(f"{radius(998):.3}"), 0.0, 0.0]
    assert [r["seconds"] for r in rows] == [151.238689, 1.0, 86400.5, 15.4]
    assert {(r["model"], r["data"], r["norm"], r["eps"]) for r in rows} == {
        ("net noise 0.50", "mnist", "l2", None)
    }
    assert {r["confidence"] for r in rows} == {0.999}
    assert all(list(r) == list(row(0)) for r in rows)
    record = evidence_of(rows[2])
    assert (record["noise"], record["alpha"], record["fits"]) == (
        {"kind": "Gaussian", "sigma": 0.25},
        0.001,
        [0.001],
    )
    assert record["class"] == 8 and record["radius"] == float(f"{radius(997):.3}")
    assert audit(rows[0]).state == "unchecked"


def test_an_abstention_is_never_correct(tmp_path: Path) -> None:
    rows = read(log(tmp_path, *BODY), SETTINGS)
    assert curve(rows, [0.0, 0.6]).accuracy == (0.5, 0.25)
    with pytest.raises(FileError, match="contradicts"):
        read(log(tmp_path, "0\t-1\t-1\t0.0\t1\t1.0"), LogSettings(alpha=0.01))


def test_what_the_name_does_not_say_is_asked_for(tmp_path: Path) -> None:
    path = log(tmp_path, *BODY, name="mine.tsv")
    with pytest.raises(FileError, match=r"does not say sigma .* state it with --sigma"):
        read(path, SETTINGS)
    rows = read(path, LogSettings(n=1000, sigma=0.25))
    assert {(r["model"], r["data"]) for r in rows} == {("mine", "log")}
    with pytest.raises(FileError, match=r"the name says sigma 0\.25, stated is 0\.5"):
        read(log(tmp_path, *BODY), LogSettings(n=1000, sigma=0.5))


def test_radii_that_fit_no_alpha_need_one(tmp_path: Path) -> None:
    path = log(tmp_path, *BODY)
    with pytest.raises(FileError, match=r"alpha 0\.001 with n = 1000"):
        read(path, LogSettings(n=100))
    rows = read(path, LogSettings(n=100, alpha=0.02))
    assert rows[0]["confidence"] == 0.98 and evidence_of(rows[0])["fits"] == []


def test_where_several_alphas_fit_the_weakest_claim_counts(tmp_path: Path) -> None:
    rows = read(log(tmp_path, f"0\t7\t7\t{radius(600):.3}\t1\t1.0"), SETTINGS)
    record = evidence_of(rows[0])
    assert len(record["fits"]) > 1 and record["alpha"] == max(record["fits"])
    assert rows[0]["confidence"] == 1 - record["alpha"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0\t7\t7\t0.2\t0\t1.0", "line 2: `correct` contradicts"),
        ("0\t7\t8\t0.2\t1\t1.0", "line 2: `correct` contradicts"),
        ("0\t7\t-1\t0.2\t0\t1.0", "line 2: an abstention has no radius"),
        ("0\t7\t-2\t0.0\t0\t1.0", "line 2: is not a line"),
        ("0\t7\t7\t-0.2\t1\t1.0", "line 2: is not a line"),
        ("0\t7\t7\tnan\t1\t1.0", "line 2: is not a line"),
        ("0\t7\t7\tinf\t1\t1.0", "line 2: is not a line"),
        ("0\t7\t7\t0.2\tyes\t1.0", "line 2: is not a line"),
        ("0\t7\t7\t0.2\t1\tsoon", "line 2: is not a line"),
        ("0\t7\t7\t0.2\t1", "line 2: is not a line"),
        ("0\t7\t7\t0.2\t1\t1.0\t9", "line 2: is not a line"),
        ("zero\t7\t7\t0.2\t1\t1.0", "line 2: is not a line"),
        ("0\t7\t7\t0.2\t1\t1.0\n0\t7\t7\t0.2\t1\t1.0", "occurs twice"),
    ],
)
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        read(log(tmp_path, line), LogSettings(alpha=0.001))
    assert "\n" not in str(caught.value)


def test_other_files_are_no_logs(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("idx\tlabel\tpredict\tcorrect\ttime\n0\t1\t1\t1\t2.0\n")
    with pytest.raises(FileError, match="lacks the column radius"):
        read(path)
    path.write_text(HEAD.replace("\t", ",") + "0,1,1,0.5,1,2.0\n")
    with pytest.raises(FileError, match="separated by tabs, not commas"):
        read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="not a readable log"):
        read(path)
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none.tsv")
    path.write_text(HEAD)
    assert read(path) == []


@pytest.mark.parametrize(
    "wrong", [{"n0": 0}, {"n": 50}, {"sigma": 0.0}, {"sigma": math.nan}, {"alpha": 1.0}]
)
def test_settings_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(ArgumentError):
        LogSettings(**wrong)


def test_a_log_is_written_as_it_was_read(tmp_path: Path) -> None:
    path = log(tmp_path, *BODY[:2], "30\t0\t-1\t0.0\t0\t0:00:15.400000")
    rows = read(path, SETTINGS)
    again = export(rows, tmp_path / "again.tsv")
    assert again.read_bytes() == path.read_bytes()


def test_our_own_rows_come_back(tmp_path: Path) -> None:
    own = [
        claim(3, radius=1.05),
        claim(4, probability=0.9, runner_up=0.1, radius=0.0)
        | {"label": 0, "reason": "wrong_class"},
        claim(5, prediction=-1, radius=0.0) | {"reason": "abstained", "evidence": ""},
    ]
    path = export(own, tmp_path / NAME.replace("0.25", "0.5"))
    lines = path.read_text().splitlines()
    assert lines[0] + "\n" == HEAD.replace("\n", "\tevidence\n")
    assert lines[1].startswith("3\t1\t1\t1.05\t1\t0:00:00.500000\t")
    assert lines[2].startswith("4\t0\t1\t0.64077578") and "\t0\t0:00:00.500000\t" in lines[2]
    assert lines[3].startswith("5\t1\t-1\t0.0\t0\t0:00:00.500000\t")
    back = read(path)  # n and alpha are in the file
    assert {evidence_of(r)["alpha"] for r in back} == {0.001}
    assert [evidence_of(r).get("n") for r in back] == [1000, 1000, None]
    for name in ("index", "label", "prediction", "verdict", "reason", "radius", "seconds"):
        assert [r[name] for r in back] == [r[name] for r in own]


def sampled(rule: object) -> list[dict]:
    """Rows of one run of a rule, as they stand in a ledger."""
    noise = Gaussian(0.5)
    return [r | {"seconds": 0.5} for r in drawn(noise, rule)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_log_of_ours_tells_its_rule(tmp_path: Path, rule: object) -> None:
    own = sampled(rule)
    path = export(own, tmp_path / "renamed.tsv")
    back = read(path)
    assert {text(evidence_of(r)["rule"]) for r in back} == {text(rule)}
    assert [audit(r) for r in back] == [audit(r) for r in own]
    assert any(r["radius"] > 0 for r in back)
    assert export(back, tmp_path / "again.tsv").read_text().count(type(rule).__name__) == len(own)
    for settings in (LogSettings(alpha=0.01), LogSettings(sigma=0.25)):
        with pytest.raises(FileError, match=r"renamed\.tsv: .* stated is"):
            read(path, settings)
    if type(rule) is not Fixed:
        with pytest.raises(ArgumentError, match=r"only rows .* rule Fixed .* not \w+\(n0="):
            at_alpha(back, 0.01)
        return
    radii = [r["radius"] for r in at_alpha(own, 0.01)]
    assert [r["radius"] for r in at_alpha(back, 0.01)] == radii


def test_readers_by_column_take_a_log_of_ours(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    own = sampled(Fixed(n0=8, n=300))
    table = pandas.read_csv(export(own, tmp_path / NAME), delimiter="\t")  # as Cohen's analysis
    assert tuple(table.columns[:6]) == tuple(HEAD.split())
    assert table["radius"].tolist() == [r["radius"] for r in own]
    assert table["correct"].tolist() == [int(r["prediction"] == r["label"] >= 0) for r in own]


def test_what_was_assumed_of_a_log_is_not_written_as_known(tmp_path: Path) -> None:
    rows = read(log(tmp_path, *BODY), SETTINGS)
    assert "evidence" not in export(at_alpha(rows, 0.01), tmp_path / "b.tsv").read_text()


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        ("", "says no alpha"),
        ("[1]", "is damaged"),
        ('{"alpha": 2.0}', "says no alpha"),
        ('{"alpha": 0.001, "class": 3}', "contradicts its prediction"),
        ('{"alpha": 0.001, "noise": "Laplace(scale=0.25)"}', "not about Gaussian"),
        (
            '{"alpha": 0.001, "noise": "Gaussian(sigma=0.5)"}',
            r"name says sigma 0\.25, .* says 0\.5",
        ),
    ],
)
def test_a_damaged_transcript_in_a_log_is_named(
    tmp_path: Path, evidence: str, message: str
) -> None:
    path = tmp_path / NAME
    quoted = evidence.replace('"', '""')
    line = f'7\t1\t1\t0.2\t1\t1.0\t"{quoted}"'
    path.write_text(HEAD.replace("\n", "\tevidence\n") + line + "\n", encoding="utf-8")
    with pytest.raises(FileError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_text(HEAD.replace("\n", "\tevidence\n") + "7\t1\t1\t0.2\t1\t1.0\n", encoding="utf-8")
    with pytest.raises(FileError, match="line 2: is not a line"):
        read(path)


def test_damaged_counts_are_not_converted(tmp_path: Path) -> None:
    own = claim(radius=1.05, rule="Fixed(n0=100, n=1000)")
    for counts in ([1], {}, 5):
        bad = own | {"evidence": json.dumps(evidence_of(own) | {"counts": counts})}
        with pytest.raises(ArgumentError, match="counts of some transcripts are damaged"):
            at_alpha(read(export([bad], tmp_path / "a.tsv")), 0.01)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(0)], "not crown in linf"),
        ([claim(), claim() | {"run": "other"}], "one run"),
        ([claim(noise="Laplace(scale=0.5)")], "L2 certificates under Gaussian"),
        ([claim() | {"norm": "linf"}], "not smoothing in linf"),
        ([claim(radius=math.inf)], "no finite radius"),
        ([claim() | {"eps": 0.1, "method": "smoothed-pgd"}], "not smoothed-pgd"),
    ],
)
def test_what_a_log_cannot_say_is_refused(tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        export(rows, tmp_path / NAME)
    assert not list(tmp_path.iterdir())


def test_a_log_that_ends_early_says_so(tmp_path: Path) -> None:
    lines = [f"{i}\t1\t-1\t0.0\t0\t1.0" for i in range(0, 10_000, 500)]
    stated = LogSettings(alpha=0.001)
    assert ends_early(read(log(tmp_path, *lines), stated)) == ""
    assert "ends at input 8500 of 10000: 18 rows, a whole log in steps of 500 has 20" in (
        ends_early(read(log(tmp_path, *lines[:-2]), stated))
    )
    unknown = log(tmp_path, *lines[:-2], name=NAME.replace("mnist", "flowers"))
    assert ends_early(read(unknown, stated)) == "" and ends_early([]) == ""
    assert ends_early([row(0), row(1)]) == ""


# Log, inputs, share of abstentions, average certified radius, accuracy by radius: published.
PUBLISHED = [
    ("imagenet__resnet50__noise_0.25__test__sigma_0.25", 427, 0.089, 0.477, {0: 0.667, 0.5: 0.494}),
    (
        "imagenet__resnet50__noise_0.50__test__sigma_0.50",
        *(500, 0.164, 0.733, {0: 0.572, 0.5: 0.458, 1: 0.372, 1.5: 0.286, 2: 0}),
    ),
    (
        "imagenet__resnet50__noise_1.00__test__sigma_1.00",
        *(500, 0.296, 0.875),
        {0: 0.436, 0.5: 0.378, 1: 0.326, 1.5: 0.26, 2: 0.194, 2.5: 0.148, 3: 0.122, 3.5: 0.09},
    ),
    (
        "cifar10__resnet110__noise_0.12__test__sigma_0.12",
        *(500, 0.038, 0.270, {0: 0.814, 0.25: 0.586, 0.5: 0}),
    ),
    (
        "cifar10__resnet110__noise_0.25__test__sigma_0.25",
        *(500, 0.086, 0.429, {0: 0.748, 0.25: 0.6, 0.5: 0.428, 0.75: 0.266, 1: 0}),
    ),
    (
        "cifar10__resnet110__noise_0.50__test__sigma_0.50",
        *(500, 0.166, 0.538, {0: 0.652, 0.5: 0.414, 1: 0.234, 1.5: 0.094, 1.75: 0.052}),
    ),
    (
        "cifar10__resnet110__noise_1.00__test__sigma_1.00",
        *(500, 0.29, 0.542, {0: 0.472, 0.5: 0.34, 1: 0.216, 1.5: 0.14, 2: 0.1, 2.25: 0.076}),
    ),
]


@pytest.mark.parametrize(("name", "n", "abstained", "acr", "accuracy"), PUBLISHED)
def test_published_logs_give_the_published_figures(
    shared_data: Path,
    tmp_path: Path,
    name: str,
    n: int,
    abstained: float,
    acr: float,
    accuracy: dict,
) -> None:
    path = shared_data / "cohen_logs" / f"{name}.tsv"
    rows = read(path)
    assert len(rows) == n
    assert sum(r["prediction"] < 0 for r in rows) / n == pytest.approx(abstained, abs=5e-4)
    assert average_certified_radius(rows).value == pytest.approx(acr, abs=5.1e-4)
    assert curve(rows, accuracy).accuracy == pytest.approx(tuple(accuracy.values()), abs=5e-4)
    assert evidence_of(rows[0])["fits"] == [0.001 if "0.12" in name else 0.01]
    early = ends_early(rows)
    assert bool(early) == (n == 427) and ("42600" in early) == (n == 427)
    again = read(export(rows, tmp_path / path.name))
    assert again == rows
