"""certus demo: the whole story on real handwritten digits, ending in a report."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from certus.cli.comparison import Comparison, compare, ledger_at, runs_of
from certus.cli.fitting import Fit, fit
from certus.cli.models import Settings, load_model
from certus.cli.progress import output, say
from certus.core import ArgumentError
from certus.evaluation import export
from certus.evaluation.metrics import canonical
from certus.zoo import load_data


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """One network of the demo, and what is asked of it under L-inf and L2."""

    what: Fit
    linf: tuple[str, ...]
    l2: tuple[str, ...]


STORY = {
    "standard": Chapter(
        what=Fit(net="mlp-small", recipe="standard", epochs=60),
        linf=("ibp", "crown", "milp"),
        l2=("crown", "lipschitz"),
    ),
    "adversarial": Chapter(
        what=Fit(net="mlp-small", recipe="adversarial", strength=0.1, epochs=60),
        linf=("ibp", "crown", "milp"),
        l2=("crown", "lipschitz"),
    ),
    "ibp": Chapter(
        what=Fit(net="cnn-small", recipe="ibp", strength=0.12, epochs=120),
        linf=("ibp", "crown", "milp"),
        l2=("lipschitz",),
    ),
    "lipschitz": Chapter(
        what=Fit(net="lipschitz-mlp", recipe="lipschitz", epochs=40),
        linf=("ibp", "crown", "lipschitz"),
        l2=("crown", "lipschitz"),
    ),
    "gaussian": Chapter(
        what=Fit(net="mlp", recipe="gaussian", strength=0.25, epochs=80),
        linf=("crown",),
        l2=("crown", "lipschitz", "smoothing"),
    ),
}
LINF, L2 = (0.02, 0.05, 0.1, 0.15), (0.25, 0.5, 0.75, 1.0)


def demo_command(out: Path = Path("certus-demo"), seed: int = 0) -> None:
    """Train five networks on handwritten digits, certify them every way, attack them, draw a report.

    Takes two to four minutes on two cores; what is already done in `out` is not done again.
    Example: certus demo --out certus-demo

    Args:
        out: directory for checkpoints, rows and report.html.
        seed: seed of everything.
    """
    from certus.cli.reporting import gallery, report

    start = time.perf_counter()
    data = load_data("digits")
    say(f"handwritten digits: {len(data.x_train)} to train on, {len(data.x_test)} held out")
    settings = Settings(n=2000, timeout=2.0)
    rows: list[dict[str, Any]] = []
    pictures = []
    with ledger_at(None, out) as ledger:
        for name, chapter in STORY.items():
            if not (out / name / "card.json").exists():
                fit(replace(chapter.what, seed=seed), data, out / name)
            model = load_model(out / name, data)
            if model.card.seed != seed:
                raise ArgumentError(
                    f"{out / name} was trained with seed {model.card.seed}; choose another --out"
                )
            for norm, eps, methods in (("linf", LINF, chapter.linf), ("l2", L2, chapter.l2)):
                plan = Comparison(
                    norm=norm,
                    eps=eps,
                    methods=methods,
                    exact_limit=10,
                    settings=settings,
                    seed=seed,
                )
                own = compare(model, data, plan, ledger)
                rows += own
                if norm == "linf":
                    pictures += gallery(model, data, own, norm, 0.1)
        runs = runs_of(rows, ledger)
    export(rows, out / "rows.csv")
    page = report(
        out / "report.html",
        rows,
        runs,
        pictures,
        headline={"linf": 0.1, "l2": 0.5},
        title="Certified robustness on handwritten digits",
    )
    _story(rows)
    output().print(
        f"done in {time.perf_counter() - start:.0f} s; report: {page.resolve()}", soft_wrap=True
    )


def _story(rows: list[dict[str, Any]]) -> None:
    """A few lines that say what was found."""
    from rich.table import Table

    from certus.evaluation import summary

    table = Table(
        title="certified accuracy (and accuracy under attack, of how many inputs)",
        title_justify="left",
    )
    for heading in ("model", "threat", "method", "clean", "certified", "attacked", "inputs"):
        table.add_column(heading)
    for line in summary(rows, grid=[0.1, 0.5]):
        at = {"linf": 0.1, "l2": 0.5}[line["norm"]]
        if line["kind"] == "certificate" and canonical(line["eps"]) == at:
            attacked = (
                "" if line["attack"] is None else f"{line['attack']:.1%} of {line['attack_n']}"
            )
            table.add_row(
                *(line["model"], f"{line['norm']}:{at:g}", line["method"]),
                *(f"{line['clean']:.1%}", f"{line['certified']:.1%}", attacked, str(line["n"])),
            )
    output().print(table)
