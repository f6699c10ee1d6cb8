"""Names that tell apart what rows alone would mix: equal models, methods, different settings."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

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


def differing(configs: Sequence[str]) -> list[str]:
    """For each configuration text the `name=value` settings that not all share; may be empty."""
    parts = [re.findall(r"\w+=[^,()=]+(?=[,)]|$)", text) for text in configs]
    common = set(parts[0]).intersection(*parts[1:]) if parts else set()
    return [", ".join(p.strip() for p in part if p not in common) for part in parts]


def _run(row: Mapping[str, Any], runs: Runs) -> Mapping[str, Any]:
    return runs.get(row.get("run"), {})


def _classifier(row: Mapping[str, Any], runs: Runs) -> tuple[str, ...]:
    run = _run(row, runs)
    data = str(row.get("data", ""))
    return (str(row["model"]), data, *(str(run.get(key, "")) for key in VARIANTS[1:]))


def _method(row: Mapping[str, Any], runs: Runs) -> tuple[str, ...]:
    alone = str(row["run"]) if row["confidence"] < 1 and row.get("eps") is None else ""
    config = str(_run(row, runs).get("config", ""))
    return (str(row["model"]), str(row["norm"]), str(row["method"]), config, alone)


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
    configs: dict[str, list[str]] = {}
    for key in keys:
        known = configs.setdefault(key[2], [])
        if key[3] not in known:
            known.append(key[3])
    names: dict[tuple[str, ...], str] = {}
    for key in keys:
        several = configs[key[2]]
        extra = differing(several)[several.index(key[3])] if len(several) > 1 else ""
        name = f"{key[2]} {extra}".strip() if extra else key[2]
        taken = [n for other, n in names.items() if other[:2] == key[:2] and n.startswith(name)]
        names[key] = f"{name} #{len(taken) + 1}" if name in taken else name
    return names
