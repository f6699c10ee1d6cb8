"""What rows may say: the smaller confidence counts, rows that contradict themselves are named."""

import json
import math
from pathlib import Path

import pytest
from tests.evaluation.fakes import fallen, retold, row
from tests.evaluation.test_transcript import claim

from certus.core import CertusError, FileError
from certus.core.claim import smoothed_by
from certus.core.kinds import text, to_json
from certus.core.results import statistical
from certus.evaluation import (
    COLUMNS,
    alpha_of,
    at_alpha,
    check,
    confidence_of,
    evidence_of,
    figures,
    read,
    settled,
    summary,
)
from certus.evaluation.table import _text
from certus.report import render, report_data
from certus.smoothing import Gaussian
from certus.smoothing.derandomized import Columns
from certus.smoothing.noise import ElasticGaussian


def told(**evidence: object) -> dict:
    """A statistical row of confidence 0.9 that says this in its transcript, without counts."""
    return claim(confidence=0.9, radius=0.3) | {"evidence": json.dumps(evidence)}


def written(path: Path, *rows: dict) -> Path:
    """A table by somebody else, whatever the rows say."""
    lines = [",".join(COLUMNS)]
    for own in rows:
        cells = [
            own[n] if isinstance(own[n], str) else _text(own[n], k) for n, k in COLUMNS.items()
        ]
        lines.append(",".join('"' + cell.replace('"', '""') + '"' for cell in cells))
    path.write_text("\n".join(lines) + "\n")
    return path


PROOF = {"method": "smoothing", "confidence": 1.0, "eps": None, "verdict": "", "norm": "l2"}
COPIES = {"noise": repr(Columns(1, 0.0)), "n": 4, "class": 1}

REFUSED = [
    *[(told(alpha=alpha), "alpha") for alpha in (0, 0.0, -0.1, 1, 1.5, "0.1", None, True, [0.1])],
    *[(told(alpha=alpha), "alpha") for alpha in (math.nan, math.inf, 10**400, {})],
    (told(alpha=0.1, from_alpha=0), "from_alpha"),
    (told(alpha=0.1, n="many"), "n many"),
    (told(alpha=0.1, n=10**400), "no count"),
    (told(alpha=0.1, n0=-1), "no count"),
    (told(alpha=0.1, n=10, fits=0.1), "fit"),
    (told(alpha=0.1, n=10, fits=["a"]), "fits"),
    (told(alpha=0.1, fits=[0.1]), "fit"),
    (told(alpha=0.1) | {"evidence": "{"}, "damaged"),
    (told(alpha=0.1) | {"evidence": "[0.1]"}, "damaged"),
    (row(3, **PROOF), "samples prove nothing for sure"),
    (row(3, **(PROOF | {"method": "ibp"}), evidence=json.dumps({"alpha": 0.1})), "below 1"),
    (claim(3) | {"confidence": 1.0, "evidence": "{}"}, "samples prove nothing for sure"),
    (row(3, **PROOF, evidence=json.dumps(COPIES)), "counts of its copies are missing"),
    (row(3, **(PROOF | {"eps": 0.1, "verdict": "verified"})), "samples prove nothing for sure"),
    (retold(claim(3) | {"eps": 0.1, "verdict": "verified"}), "about a radius"),
    (row(3, **(PROOF | {"method": "SMOOTHING"})), "samples prove nothing for sure"),
    (row(3, **(PROOF | {"method": " Smooth sigma=1"})), "samples prove nothing for sure"),
    *[(row(3, confidence=c), "confidence") for c in (0.0, -1.0, 1.5, "sure", "")],
    *[(row(3, confidence=c), "confidence") for c in ("nan", "inf")],
    *[(row(3, method=name, confidence=0.9), "below 1") for name in ("ibp", "crown", "milp", "IBP")],
    *[(row(3, eps=eps), "eps") for eps in (-0.1, "nan", math.inf, "wide")],
    *[(claim(3, radius=r), "radius") for r in (-0.1, math.inf, -math.inf)],
    (row(3, radius=0.05), "its radius is smaller"),
    (row(3, verdict=""), "no verdict"),
    (row(3, verdict="proven"), "verdict"),
    (row(-1), "index"),
    (row(3, prediction=-2), "prediction"),
    (row(3, seconds=-1.0), "time"),
]


@pytest.mark.parametrize(("bad", "named"), REFUSED, ids=lambda v: v if isinstance(v, str) else "")
def test_a_row_that_cannot_be_is_refused_in_one_line(tmp_path: Path, bad: dict, named: str) -> None:
    path = written(tmp_path / "forged.csv", row(7), bad)
    with pytest.raises(FileError, match=named) as caught:
        read(path)
    said = str(caught.value)
    assert f"{path}, line 3: " in said and "\n" not in said and len(said) < 400
    if all(isinstance(bad[n], kind | None) for n, kind in COLUMNS.items()):
        with pytest.raises(CertusError, match=named):
            report_data([row(7), bad])


@pytest.mark.parametrize(
    ("own", "stated", "least"),
    [
        (0.9, 1e-9, 0.9),
        (0.9, 0.1, 0.9),
        (0.9, 0.5, 0.5),
        (1 - 1e-9, 0.1, 0.9),
        (statistical(1e-20), 1e-3, 0.999),
        (0.999, 1e-3, 0.999),
        (statistical(1e-20), 1e-20, statistical(1e-20)),
        (0.9, None, 0.9),
    ],
)
def test_the_smaller_confidence_is_the_one_that_is_shown(
    own: float, stated: float | None, least: float
) -> None:
    evidence = {"n": 100, "shared": False} | ({} if stated is None else {"alpha": stated})
    rows = [
        claim(i, confidence=own, radius=0.3) | {"evidence": json.dumps(evidence)} for i in (0, 1)
    ]
    assert confidence_of(rows[0]) == least
    assert alpha_of(rows[0]) == pytest.approx(1 - least, rel=1e-9, abs=2e-16)
    assert summary(rows)[0]["confidence"] == least
    assert figures(rows, [0.1]).confidence == pytest.approx(least, abs=1e-15)
    data = report_data(rows)
    assert {line.confidence for line in data.curves} == {least}
    assert {row["confidence"] for row in data.summary} == {least}
    page = render(data)
    assert (
        'class="kind">proof' not in page and "Not auditable: 2 (its counts were not kept)" in page
    )
    if least < 0.9999:
        assert f"holds with {100 * least:g}% confidence" in page
        assert f"alpha {1 - least:.3g} per input" in page


def test_a_contradicted_claim_is_judged_by_the_smaller_confidence() -> None:
    """10 of 10 broken is improbable at alpha 1e-9, but not where the transcripts say 0.9."""
    broken = [fallen(i, run="s", method="smoothed-pgd", norm="l2") for i in range(10)]
    for alpha, sound in ((0.9, True), (1e-3, False)):
        evidence = json.dumps({"alpha": alpha})
        sure = [claim(i, confidence=1 - 1e-9) | {"evidence": evidence} for i in range(10)]
        if sound:
            assert check(sure + broken).statistical[0].confidence == pytest.approx(0.1)
        else:
            with pytest.raises(CertusError, match="10 of 10"):
                check(sure + broken)


def test_another_alpha_starts_from_the_larger_one() -> None:
    """A log without counts: what its radii imply depends on the alpha that they were made with."""
    record = {k: v for k, v in evidence_of(claim()).items() if k != "counts"}
    for stated, own in ((0.1, 0.9), (1e-9, 0.9), (0.1, 1 - 1e-9)):
        said = json.dumps(record | {"alpha": stated, "radius": 1.05})
        (found,) = at_alpha([claim(confidence=own) | {"evidence": said}], 0.05)
        said = json.dumps(record | {"alpha": 0.1, "radius": 1.05})
        (honest,) = at_alpha([claim(confidence=0.9) | {"evidence": said}], 0.05)
        assert 0 < found["radius"] == honest["radius"] < 1.05
        assert evidence_of(found)["from_alpha"] == 0.1


def test_verdicts_of_older_tables_are_read_as_what_they_mean() -> None:
    old = claim() | {"verdict": "verified"}
    assert retold(old) == claim()
    for verdict in ("unknown", "falsified"):  # at eps 0: then no radius was certified either
        assert retold(claim() | {"verdict": verdict}) == claim(radius=0.0)
    assert settled(row(0)) == row(0)
    box = row(0, norm="box", eps=None, radius=math.nan)  # a threat without a size has a verdict
    assert (box["eps"], box["verdict"]) == (1.0, "verified") and repr(settled(box)) == repr(box)
    with pytest.raises(CertusError, match="a verdict, but no eps"):
        settled(old)


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        ({"kind": "theorem"}, "its kind"),
        ({"kind": "attack"}, "an attack certifies nothing"),
        ({"subject": "the network"}, "its subject"),
        ({"subject": "[]"}, "its subject"),
        ({"threat": '{"kind":"linf","eps":0.2}'}, "not that of its norm and eps"),
        ({"threat": '{"kind":"l2","eps":0.1}'}, "not that of its norm and eps"),
        ({"threat": '{"kind":"box"}'}, "not that of its norm and eps"),
        ({"threat": "{" * 100_000}, "not that of its norm and eps"),
    ],
)
def test_a_row_fits_its_claim(lie: dict, named: str) -> None:
    with pytest.raises(CertusError, match=named):
        settled(row(0) | lie)


def test_a_transcript_is_about_the_function_of_the_claim() -> None:
    assert settled(claim(0)) == claim(0)
    for subject in (smoothed_by(Gaussian(0.6)), text({"kind": "InputDependent"})):
        with pytest.raises(CertusError, match="another function"):
            settled(claim(0) | {"subject": subject})


def test_a_row_is_answered_once(tmp_path: Path) -> None:
    once = [claim(0), claim(1)]
    assert read(written(tmp_path / "a.csv", *once, *once)) == once
    assert len(report_data([*once, claim(1) | {"seconds": 9.0}]).rows) == 2
    for other in (claim(1, confidence=0.99), claim(1, radius=0.5), claim(1) | {"label": 0}):
        with pytest.raises(
            FileError, match="input 1 of small by smoothing: run r answers it twice"
        ):
            read(written(tmp_path / "b.csv", *once, other))
        with pytest.raises(CertusError, match="twice"):
            report_data([*once, other])


def test_samples_of_another_input_prove_nothing() -> None:
    lie = claim(0) | {"index": 4}
    data = report_data([claim(0), lie])
    assert "its samples are those of input 0" in data.notes[0]
    assert data.smoothed[0].entries[0].figures.certified[1].value == 0.5


@pytest.mark.parametrize("changes", [{"noise": {"kind": "Gaussian", "sigma": 0.6}}, {"seed": 5}])
def test_a_run_has_one_setting(changes: dict) -> None:
    with pytest.raises(CertusError, match=r"one (subject|seed)"):
        report_data([claim(0), claim(1, radius=0.5, **changes)])


def test_each_input_of_a_run_may_have_an_elastic_noise_of_its_own() -> None:
    noises = [to_json(ElasticGaussian(sigma, 0.01, 16)) for sigma in (0.5, 0.6)]
    rows = [claim(i, radius=0.1, noise=noise) for i, noise in enumerate(noises)]
    assert figures(rows, [0.05]).certified[0].value == 1.0
