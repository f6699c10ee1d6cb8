"""The report of a comparison, with a gallery of inputs and their counterexamples."""

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import certus
from certus.attacks import PGD
from certus.cli.models import Loaded
from certus.cli.progress import say
from certus.report import GalleryItem, report_data, write_report
from certus.threats import NORMS
from certus.zoo import Dataset

Rows = Sequence[dict[str, Any]]
_SHOWN = {"verified": 2, "falsified": 2, "unknown": 1}  # inputs per model in the gallery


def report(
    path: Path,
    rows: Rows,
    runs: Rows,
    gallery: Sequence[GalleryItem] = (),
    headline: Mapping[str, float] | None = None,
    title: str = "Certified robustness",
) -> Path:
    """Write report.html from rows and runs; what its reader must see is also said here."""
    facts = {
        "certus": certus.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "command": shlex.join(["certus", *sys.argv[1:]]),
    }
    data = report_data(
        rows, runs, title=title, headline=headline, gallery=gallery, reproducibility=facts
    )
    for note in data.notes:
        say(f"warning: {note}")
    return write_report(path, data)


def gallery(model: Loaded, data: Dataset, rows: Rows, norm: str, eps: float) -> list[GalleryItem]:
    """A few inputs of each verdict at one eps, attacked again for the picture of the counterexample."""
    own = [r for r in rows if r["model"] == model.name and r["norm"] == norm and r["eps"] == eps]
    proofs = [r for r in own if r["method"] not in ("pgd", "smoothed-pgd")]
    chosen: dict[int, dict[str, Any]] = {}
    for verdict, count in _SHOWN.items():
        ranked = [r for r in proofs if r["verdict"] == verdict and r["prediction"] == r["label"]]
        for row in ranked[:count]:
            chosen.setdefault(row["index"], row)
    for (
        row
    ) in own:  # methods that only say "unknown" leave it to the attack to find counterexamples
        if row["method"] == "pgd" and row["reason"] == "attacked" and len(chosen) < 5:
            chosen.setdefault(row["index"], row)
    return [_item(model, data, row, norm, eps) for row in chosen.values()]


def _item(model: Loaded, data: Dataset, row: dict[str, Any], norm: str, eps: float) -> GalleryItem:
    index = row["index"]
    x, y = data.x_test[index : index + 1], data.y_test[index : index + 1]
    found = PGD(steps=20, restarts=2)(model.graph, x, y, NORMS[norm](eps, data.clip), [index])
    return GalleryItem(
        index=index,
        input=x[0].numpy(),
        label=row["label"],
        prediction=row["prediction"],
        verdict=row["verdict"],
        method=row["method"],
        model=model.name,
        norm=norm,
        eps=eps,
        radius=row["radius"],
        confidence=row["confidence"],
        counterexample=found.inputs[0].numpy() if bool(found.success[0]) else None,
        clip=data.clip,
    )
