"""The report as one HTML file: no script, no network, readable on screen, phone and paper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from certus.core.files import replacing
from certus.evaluation.metrics import smoothed
from certus.report import words
from certus.report.citations import cited, used
from certus.report.data import Line, ReportData, Row, number
from certus.report.gallery import cards
from certus.report.plot import key, overview, panel
from certus.report.style import Look, looks


def render(data: ReportData) -> str:
    """The whole page as text; every value of the data is escaped."""
    environment = Environment(
        loader=PackageLoader("certus.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=words.percent,
        figure=words.figure,
        seconds=words.seconds,
        interval=words.interval,
        confidence=words.confidence,
        norm=words.norm,
        gap=words.gap,
        attacked=words.attacked,
        whole=words.whole,
    )
    environment.tests["smoothed"] = smoothed
    table = _looks(data)
    return environment.get_template("report.html.j2").render(
        data=data,
        headlines=words.headlines(data),
        counts=words.counts(data),
        statistical=_statistical(data),
        table=_by_model(data),
        attacked=any(line.kind == "attack" for line in data.curves),
        charts=_charts(data, table),
        legend=_legend(data, table),
        groups=_smoothed(data),
        audit=data.audited,
        cards=cards(data.gallery),
        runs=[_run(run) for run in data.runs],
        models=_models(data.runs),
        papers=cited(used(data.rows, _cards(data.runs))),
    )


def write_report(path: Path | str, data: ReportData) -> Path:
    """Write the page to `path`, all of it or nothing; returns the path.

    The text is complete before a file is made, and replaces an older file in one step. Raises
    FileError where the folder does not exist or cannot be written.
    """
    target, text = Path(path), render(data)
    with replacing(target) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
    return target


def _statistical(data: ReportData) -> list[str]:
    """Each statistical method with its confidence, once."""
    rows = filter(words.statistical, data.summary)
    return list(dict.fromkeys(f"{r['method']}: {words.confidence(r['confidence'])}" for r in rows))


def _by_model(data: ReportData) -> dict[str, list[Row]]:
    """Summary rows by model, in order of first appearance."""
    found: dict[str, list[Row]] = {}
    for row in data.summary:
        found.setdefault(str(row["model"]), []).append(row)
    return found


def _looks(data: ReportData) -> Mapping[str, Look]:
    attacks = list(dict.fromkeys(c.method for c in data.curves if c.kind == "attack"))
    certified = [c.method for c in data.curves if c.kind == "certified"]
    certified += [str(row["method"]) for row in data.summary]
    return looks(list(dict.fromkeys(certified)), attacks)


def _legend(data: ReportData, table: Mapping[str, Look]) -> list[dict[str, Any]]:
    doubtful = {str(row["method"]) for row in data.summary if words.statistical(row)}
    derived = {str(row["method"]) for row in data.summary if smoothed(row)}
    doubtful |= {c.method for c in data.curves if c.kind == "certified" and c.confidence != 1}
    return [
        {
            "sample": key(look, f"key{i}"),
            "name": name.removeprefix("attack ") if look.hollow else name,
            "kind": "attack" if look.hollow else "statistical" if name in doubtful else "proof",
            "smoothed": name in derived,
        }
        for i, (name, look) in enumerate(table.items())
    ]


def _charts(data: ReportData, table: Mapping[str, Look]) -> list[dict[str, Any]]:
    """For each norm its overview and one panel per model, all panels with one eps axis."""
    charts = []
    for i, norm in enumerate(data.norms):
        lines = [line for line in data.curves if line.norm == norm]
        eps = data.headline.get(norm)
        rows = [r for r in data.summary if r["norm"] == norm and (eps is None or r["eps"] == eps)]
        limit = max((line.eps[-1] for line in lines), default=1.0)
        panels = [
            _panel([line for line in lines if line.model == model], table, f"p{i}m{j}")
            | {"model": model, "clean": data.clean(model, norm)}
            for j, model in enumerate(data.models(norm))
        ]
        for item in panels:
            item["svg"] = panel(item["lines"], table, item["id"], item["clean"][0], limit)
        chart = overview(rows, table, f"o{i}") if rows else ""
        charts.append({"norm": norm, "eps": eps, "overview": chart, "panels": panels})
    return charts


def _smoothed(data: ReportData) -> list[dict[str, Any]]:
    """For each data set and norm of smoothing certificates its chart, legend and remarks."""
    found = []
    for i, group in enumerate(data.smoothed):
        table = looks([entry.name for entry in group.entries], [])
        lines = [entry.line for entry in group.entries]
        limit = max(line.eps[-1] for line in lines)
        entries = [
            {"name": e.name, "figures": e.figures, "sample": key(table[e.name], f"s{i}k{j}")}
            for j, e in enumerate(group.entries)
        ]
        found.append(
            {
                "data": group.data,
                "norm": group.norm,
                "radii": group.radii,
                "entries": entries,
                "remarks": [(e.name, e.notes) for e in group.entries if e.notes],
                "svg": panel(lines, table, f"s{i}", limit=limit, axis="radius"),
                "best": group.best,
                "middle": group.middle,
            }
        )
    return found


def _panel(lines: Sequence[Line], table: Mapping[str, Look], name: str) -> dict[str, Any]:
    order = sorted(lines, key=lambda line: line.kind != "attack")  # certificates drawn on top
    return {"lines": order, "id": name, "inputs": words.inputs(lines)}


def _json(value: Any) -> dict[str, Any]:
    """A JSON object from text or as it is; empty where it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return dict(value) if isinstance(value, Mapping) else {}


def _cards(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_json(run.get("card")) for run in runs]


def _plain(value: Any) -> str:
    """A value as short text; nothing for None and NaN."""
    if value is None or value == "":
        return ""
    if isinstance(value, float):
        return words.figure(value, 6) if number(value) == value else ""
    return str(value)


def _run(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run states about itself, in a fixed order; missing pieces are left out."""
    names = (
        "method",
        "kind",
        "settings",
        "subject",
        "threat",
        "model",
        "data",
        "split_size",
        "seed",
    )
    facts = [(name, _plain(run.get(name))) for name in (*names, "model_hash", "data_hash", "run")]
    versions = ", ".join(f"{k} {v}" for k, v in _json(run.get("versions")).items())
    facts += [("versions", versions), ("started", _plain(run.get("started")))]
    return [(name.replace("_", " "), text) for name, text in facts if text]


def _models(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Each model with the plain entries of its checkpoint's card."""
    found: dict[str, list[tuple[str, str]]] = {}
    for run, card in zip(runs, _cards(runs), strict=True):
        facts = [
            (str(name).replace("_", " "), _plain(value))
            for name, value in card.items()
            if not isinstance(value, list | dict) and _plain(value)
        ]
        if facts:
            found.setdefault(str(run.get("model")), facts)
    return list(found.items())
