"""The report page: self-contained, escaped, honest about what is missing, equal to the figures."""

import dataclasses
import math
import re

import numpy as np
import pytest
from tests.evaluation.fakes import retold
from tests.report.synthetic import gallery, ledger

from certus.core import ArgumentError, ContradictionError, FileError
from certus.evaluation import curve
from certus.report import (
    GalleryItem,
    Line,
    ReportData,
    Sandwich,
    markdown,
    render,
    report_data,
    write_report,
)
from certus.report.gallery import difference, picture
from certus.report.html import _looks
from certus.report.plot import overview
from certus.report.words import DASH, best, percent, seconds

HOSTILE = '<script>alert("$x_1$")</script>&\'|'


@pytest.fixture(scope="module")
def data() -> ReportData:
    rows, runs = ledger()
    return report_data(
        rows, runs, gallery=gallery(), reproducibility={"command": "certus compare a"}
    )


@pytest.fixture(scope="module")
def page(data) -> str:
    return render(data)


def test_nothing_is_loaded_and_nothing_runs(page):
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!["'#]|data:image/png)""", page)
    assert not re.findall(r"<script|<link|<iframe|@import|url\((?!#)|https?:", page)
    assert "default-src 'none'" in page


def test_every_section_is_there_and_ids_are_unique(page):
    for name in (
        "headline",
        "curves",
        "table",
        "gallery",
        "sandwich",
        "reproducibility",
        "methods",
    ):
        assert f'<section id="{name}">' in page
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 20
    assert set(re.findall(r'(?:url\(|href=")#([^)"]+)', page)) <= set(ids)


def test_the_text_of_charts_is_text_and_follows_the_page(page):
    assert re.search(r"<text[^>]*>accuracy</text>", page)
    assert "var(--c1)" in page and "var(--ink)" in page
    assert not re.search(r"#0e\w\wf\d", page), "a stand-in colour is left"


def test_hostile_names_are_escaped_everywhere():
    rows, runs = ledger(names=(HOSTILE,), n=6)
    for row in rows + runs:
        row["data"] = HOSTILE
        row["method"] = "ibp" + HOSTILE if row["method"] == "ibp" else row["method"]
    item = dataclasses.replace(gallery()[2], features=[HOSTILE] * 9, model=HOSTILE, verdict=HOSTILE)
    built = report_data(
        rows, runs, title=HOSTILE, gallery=[item], reproducibility={HOSTILE: HOSTILE}
    )
    text = render(dataclasses.replace(built, notes=[HOSTILE]))
    assert "<script" not in text and "alert" in text
    assert "<" not in markdown(built) and r"\|" in markdown(built)


def test_nan_and_none_become_dashes_not_numbers(data):
    bare = [dict(row) | {"attack": None, "acr": math.nan, "low": None} for row in data.summary]
    bare = [{k: v for k, v in row.items() if k != "train_seconds"} for row in bare]
    text = render(dataclasses.replace(data, summary=bare, curves=data.curves[:1], gallery=()))
    visible = re.sub(r"<[^>]+>", " ", text[text.index("<main>") :])
    assert not re.search(r"\b(nan|NaN|None|inf)\b", visible)
    assert percent(math.nan) == percent(None) == seconds(math.nan) == DASH


def test_missing_pieces_are_left_out():
    rows, _ = ledger(n=5)
    rows = [row for row in rows if row["method"] == "lipschitz"]
    text = render(report_data(rows))
    for name in ("gallery", "sandwich", "reproducibility"):
        assert f'<section id="{name}">' not in text
    assert "statistical" not in text.lower() and "under attack)" not in text


def test_empty_rows_are_refused():
    with pytest.raises(ArgumentError, match="no evaluation rows"):
        report_data([])
    with pytest.raises(ArgumentError, match="no evaluation rows"):
        ReportData(title="", rows=[], runs=[], curves=[], summary=[])


def test_a_contradiction_stops_the_report():
    rows, runs = ledger(n=10)
    broken = next(r for r in rows if r["method"] == "pgd" and r["verdict"] == "falsified")
    same = ("model", "index", "eps")
    for row in rows:
        if row["method"] == "crown" and all(row[k] == broken[k] for k in same):
            row |= {"verdict": "verified", "reason": "", "radius": row["eps"]}
    with pytest.raises(ContradictionError, match="crown"):
        report_data(rows, runs)


def test_figures_are_those_of_evaluation(data):
    rows, _ = ledger()
    mine = [r for r in rows if (r["model"], r["method"]) == ("ibp-trained", "crown")]
    line = next(c for c in data.curves if (c.model, c.method) == ("ibp-trained", "crown"))
    assert (line.eps, line.accuracy) == ((0.05, 0.1, 0.15), curve(mine, line.eps).accuracy)
    shown = next(r for r in data.summary if (r["model"], r["method"]) == ("ibp-trained", "crown"))
    assert data.headline["linf"] == shown["eps"] == 0.1
    assert shown["certified"] == line.accuracy[1]
    assert percent(shown["certified"]) in markdown(data)


def test_statistical_certificates_say_so(data, page):
    smooth = [c for c in data.curves if c.method == "smoothing"]
    assert smooth and all(c.dense and c.confidence == 0.999 for c in smooth)
    assert "99.9% confidence" in page and "smoothed</em> classifier" in page
    tile = page[page.index("Best statistical certificate") :]
    assert "smoothing" in tile[: tile.index("</div>")]


def test_runs_with_other_settings_or_weights_are_never_merged():
    rows, runs = ledger(names=("net",), n=8)
    again = [dict(r, run=f"{r['run']}-b") for r in rows if r["method"] == "smoothing"]
    other = [dict(r, run=f"{r['run']}-c") for r in rows if r["method"] == "ibp"]
    extra = []
    for row in {r["run"]: r for r in again + other}.values():
        run = dict(next(r for r in runs if r["run"] == row["run"][:-2]), run=row["run"])
        extra.append(run | ({"model_hash": "new"} if row["method"] == "ibp" else {}))
    built = report_data(rows + again + other, runs + extra)
    assert {c.method for c in built.curves} >= {"smoothing", "smoothing #2"}
    assert {c.model for c in built.curves} == {
        "net (model_hash hashnet)",
        "net (model_hash new)",
    }


def test_a_threat_without_a_single_size_is_shown_like_a_ball():
    rows, runs = ledger(("one",), n=5)
    threat = {"norm": "box:1a2b3c4d", "eps": 1.0, "threat": '{"kind":"box","lower":0,"upper":1}'}
    box = [r | threat | {"radius": math.nan, "run": "b"} for r in rows[:5]]
    box[0] |= {"verdict": "verified", "reason": ""}
    box[1:] = [r | {"verdict": "unknown", "reason": "loose"} for r in box[1:]]
    won = [r | threat | {"run": "p"} for r in rows if r["method"] == "pgd"][:5]
    built = report_data([r for r in rows if r["method"] == "lipschitz"] + box + won, runs)
    line = next(r for r in built.summary if r["norm"] == "box:1a2b3c4d")
    assert (line["certified"], line["n"], line["attack_n"]) == (0.2, 5, 5)
    page = render(built)
    assert "box 1a2b3c4d" in page and "within its given interval" in page


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "guess"},
        {"eps": (0.1, 0.1)},
        {"accuracy": (0.5,)},
        {"accuracy": (50.0, 40.0)},
        {"eps": (), "accuracy": (), "low": (), "high": ()},
    ],
)
def test_curves_that_cannot_be_true_are_refused(wrong):
    good = {"eps": (0.1, 0.2), "accuracy": (0.5, 0.4), "low": (0.4, 0.3), "high": (0.6, math.nan)}
    names = {"model": "a", "method": "b", "norm": "l2"}
    Line(**names, **good)
    with pytest.raises(ArgumentError):
        Line(**names, **(good | wrong))


@pytest.mark.parametrize("counts", [(3, 2, 4, 5), (1, 5, 4, 5), (1, 2, 6, 5), (5, None, 4, 6)])
def test_a_sandwich_out_of_order_is_refused(counts):
    names = ("certified", "exact", "attacked", "n")
    shared = {"model": "a", "norm": "l2", "eps": 0.1, "decided": 0}
    Sandwich(**shared, certified=1, exact=2, attacked=3, n=4)
    with pytest.raises(ArgumentError, match="fails"):
        Sandwich(**shared, **dict(zip(names, counts, strict=True)))


def test_the_faster_method_wins_a_tie_and_nan_never_wins():
    rows = [
        {"certified": math.nan, "median_seconds": 0.1, "n": 9},
        {"certified": 0.5, "median_seconds": 2.0, "n": 9},
        {"certified": 0.5, "median_seconds": 1.0, "n": 9},
        {"certified": 1.0, "median_seconds": 1.0, "n": 3},  # a few inputs are no headline
    ]
    assert best(rows) is rows[2]
    assert best(rows[:1]) is None


def test_pictures_show_values_and_signed_changes():
    image = np.array([[[0.0, 0.5], [1.0, 1.0]]])
    assert picture(image, (0, 1))[..., 0].tolist() == [[0, 128], [255, 255]]
    pixels, size = difference(image, image + np.array([[[0.2, 0.0], [-0.1, 0.0]]]))
    assert size == pytest.approx(0.2)
    up, none, down = pixels[0, 0], pixels[0, 1], pixels[1, 0]
    assert up[0] > up[2] and down[2] > down[0] and len(set(none.tolist())) == 1
    with pytest.raises(ArgumentError, match="NaN"):
        picture(np.full((1, 2, 2), np.nan), (0, 1))


@pytest.mark.parametrize("shape", [(2, 4, 4), (4, 4), (1, 0, 4)])
def test_inputs_that_cannot_be_shown_are_refused(shape):
    facts = {"index": 0, "label": 0, "prediction": 0, "verdict": "unknown", "method": "ibp"}
    with pytest.raises(ArgumentError):
        GalleryItem(input=np.zeros(shape), **facts)


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    rows, _ = ledger(("one",), n=4)
    data = report_data([row for row in rows if row["method"] == "lipschitz"])
    path = write_report(tmp_path / "report.html", data)
    first = path.read_text(encoding="utf-8")
    assert first == render(data), "the same data gives the same bytes"
    monkeypatch.setattr("certus.report.html.Path.replace", _fail)
    with pytest.raises(FileError, match="cannot be written"):
        write_report(path, dataclasses.replace(data, title="other"))
    assert path.read_text(encoding="utf-8") == first
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(FileError, match="does not exist"):
        write_report(tmp_path / "none" / "report.html", data)


def _fail(*_):
    raise OSError(28, "no space left")


def test_figures_side_by_side_say_what_they_are_about():
    """milp on 10 of 40 inputs, attacks on the weaker half and on 8 inputs of the smoothed classifier."""
    rows, runs = ledger(("standard",), n=40)
    rows = [r for r in rows if r["method"] != "milp" or r["index"] < 10]
    rows = [r for r in rows if r["method"] != "pgd" or r["index"] >= 20]
    smooth = {r["index"]: r for r in rows if r["method"] == "smoothing"}
    for i in range(8):
        won = smooth[i]["radius"] < 0.3
        found = {"verdict": "falsified", "reason": "attacked"} if won else {"reason": "survived"}
        own = smooth[i] | {"run": "s", "method": "smoothed-pgd", "eps": 0.25, "verdict": "unknown"}
        rows.append(retold(own | {"radius": 0.0} | found))
    runs.append(
        next(r for r in runs if r["method"] == "smoothing") | {"run": "s", "settings": "{}"}
    )
    data = report_data(rows, runs, headline={"l2": 0.25, "linf": 0.05})
    lines = {(row["method"], row["norm"]): row for row in data.summary}
    for name, n, shared in (("smoothing", 40, 8), ("crown", 40, 20), ("milp", 10, 0)):
        line = next(row for (method, _), row in lines.items() if method == name)
        assert (line["n"], line["attack_n"], line["gap_n"]) == (n, shared, shared)
        mine = {
            r["index"]
            for r in rows
            if r["method"] == name
            and (r["radius"] >= 0.25 if name == "smoothing" else r["eps"] == line["eps"])
            and (r["verdict"] in ("", "verified"))
        }
        attack = [
            r
            for r in rows
            if r["method"].endswith("pgd")
            and r["eps"] == line["eps"]
            and r["method"].startswith("smooth") == (name == "smoothing")
        ]
        left = {r["index"] for r in attack if r["verdict"] == "unknown" and r["prediction"] >= 0}
        both = {r["index"] for r in attack}
        if shared:
            assert line["gap"] == pytest.approx(len(left) / shared - len(mine & both) / shared)
            assert f"{percent(line['gap'])} of {shared}" in render(data)
            assert f"{percent(line['attack'])} of {shared} |" in markdown(data)
        else:
            assert line["gap"] is None and line["attack"] is None
    page = render(data)
    assert "Inputs: ibp 40, crown 40, milp 10, pgd 20. Compare curves of the same" in page
    assert [item.n for item in data.sandwich] == [20] * 3, "milp shares no input with the attacks"
    curve_of = next(c for c in data.curves if c.method == "smoothed-pgd")
    right = [r["prediction"] == r["label"] for r in rows if r["method"] == "smoothed-pgd"]
    assert curve_of.start == sum(right) / 8 and curve_of.n == (8,)


def test_marks_of_the_overview_are_about_one_set_of_inputs(data):
    row = next(r for r in data.summary if r["method"] == "crown")
    looks = _looks(data)
    drawn = [
        overview([row | changes], looks, "o")
        for changes in ({}, {"attack": None}, {"attack_n": 3}, {"n": 41, "attack_n": 41})
    ]
    assert drawn[0] != drawn[1] == drawn[2], "an attack on 3 of 40 inputs is no mark beside all"
    assert ">40<" in drawn[0] and ">41<" in drawn[3]


def test_the_clean_accuracy_is_that_of_the_most_inputs(data):
    few = [dict(r, method="milp", n=3, clean=0.1) for r in data.summary[:1]]
    assert dataclasses.replace(data, summary=few + list(data.summary)).clean(
        "standard", "linf"
    ) == (1.0, 40)


def test_only_methods_on_the_same_inputs_compete():
    line = {"median_seconds": 1.0, "n": 2, "data": "digits"}
    rows = [
        line | {"certified": 1.0, "inputs": (8, 9)},  # easy inputs that the others never saw
        line | {"certified": 0.5, "inputs": (0, 1)},
        line | {"certified": 0.6, "inputs": (0, 1)},
        line | {"certified": 0.9, "inputs": (0, 1), "data": "letters"},
    ]
    assert best(rows) is rows[2]
