"""Names that tell apart what rows alone would mix: equal models, methods, different settings."""

from collections.abc import Mapping, Sequence
from typing import Any

from certus.core.kinds import KIND, parsed
from certus.evaluation.metrics import clip_of

Runs = Mapping[Any, Mapping[str, Any]]

VARIANTS = ("data", "model_hash", "data_hash", "clip")


def name_models(rows: Sequence[Mapping[str, Any]], runs: Runs) -> list[dict[str, Any]]:
    """Copies of rows in which a model's name stands for one classifier on one data set.

    It is extended by the data set, hash or clip where those differ, else left as it is.
    """
    names = _models(rows, runs)
    return [{**row, "model": names[_classifier(row, runs)]} for row in rows]


def name_methods(rows: Sequence[Mapping[str, Any]], runs: Runs) -> list[dict[str, Any]]:
    """Copies of rows in which a method's name stands for one configuration.

    It is extended by the settings in which configurations differ. Runs of a statistical method are
    numbered, never merged: each has its own alpha.
    """
    names = _methods(rows, runs)
    return [{**row, "method": names[_method(row, runs)]} for row in rows]


def differing(settings: Sequence[str]) -> list[str]:
    """For each text of settings the `name=value` that not all share; may be empty."""
    parts = [_listed(parsed(text)) if text else [] for text in settings]
    common = set(parts[0]).intersection(*parts[1:]) if parts else set()
    return [", ".join(p for p in part if p not in common) for part in parts]


def _listed(settings: Any, name: str = "") -> list[str]:
    """Settings and those of their parts, each as `name=value`; a part itself by its kind."""
    if not isinstance(settings, Mapping):
        return [f"{name}={settings}"]
    found = [f"{name}={settings[KIND]}"] if name and KIND in settings else []
    for key, value in settings.items():
        if key != KIND:
            found += _listed(value, key)
    return found


def _run(row: Mapping[str, Any], runs: Runs) -> Mapping[str, Any]:
    return runs.get(row.get("run"), {})


def _classifier(row: Mapping[str, Any], runs: Runs) -> tuple[str, ...]:
    run = _run(row, runs)
    hashes = (str(run.get(key, "")) for key in ("model_hash", "data_hash"))
    return (str(row["model"]), str(row.get("data", "")), *hashes, str(clip_of(row)))


def _method(row: Mapping[str, Any], runs: Runs) -> tuple[str, ...]:
    alone = str(row["run"]) if row["confidence"] < 1 and row.get("eps") is None else ""
    settings = str(_run(row, runs).get("settings", ""))
    return (str(row["model"]), str(row["norm"]), str(row["method"]), settings, alone)


def _models(rows: Sequence[Mapping[str, Any]], runs: Runs) -> dict[tuple[str, ...], str]:
    keys = list(dict.fromkeys(_classifier(row, runs) for row in rows))
    names = {}
    for key in keys:
        same = [other for other in keys if other[0] == key[0]]
        varied = [i for i in range(1, len(key)) if len({other[i] for other in same}) > 1]
        if 1 in varied:  # the data's hash says nothing that its name does not
            varied = [i for i in varied if i != VARIANTS.index("data_hash") + 1]
        extra = [f"{VARIANTS[i - 1]} {key[i] or 'unknown'}" for i in varied]
        names[key] = f"{key[0]} ({', '.join(extra)})" if extra else key[0]
    return names


def _methods(rows: Sequence[Mapping[str, Any]], runs: Runs) -> dict[tuple[str, ...], str]:
    keys = list(dict.fromkeys(_method(row, runs) for row in rows))
    found: dict[str, list[str]] = {}
    for key in keys:
        known = found.setdefault(key[2], [])
        if key[3] not in known:
            known.append(key[3])
    names: dict[tuple[str, ...], str] = {}
    for key in keys:
        several = found[key[2]]
        extra = differing(several)[several.index(key[3])] if len(several) > 1 else ""
        name = f"{key[2]} {extra}".strip() if extra else key[2]
        taken = [n for other, n in names.items() if other[:2] == key[:2] and n.startswith(name)]
        names[key] = f"{name} #{len(taken) + 1}" if name in taken else name
    return names
