"""The commands, except demo: train, certify, attack, compare, report, methods, data."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from certus.certifiers import ATTACKS, CERTIFIERS, about, certifier
from certus.certifiers.bound_methods import BOUNDS
from certus.cli.comparison import Comparison, compare, job_for, ledger_at, runs_of, say_outdated
from certus.cli.fitting import Fit, Goal, fit
from certus.cli.logs import Logs
from certus.cli.models import (
    Rows,
    Settings,
    Source,
    asked_threat,
    data_for,
    known_methods,
    load_model,
)
from certus.cli.progress import bar, output, say
from certus.cli.summary import summarise
from certus.core import ArgumentError
from certus.core.files import replaceable
from certus.core.validate import count
from certus.evaluation import evaluate, export
from certus.smoothing.names import NOISES, RULES
from certus.threats import NORMS, parse
from certus.training import RECIPES, find_recipe
from certus.zoo import DATA, NETS, SOURCES, download_data, load_data

Where = Annotated[Path, tyro.conf.Positional]
Many = Annotated[tuple[Path, ...], tyro.conf.Positional]
Which = Annotated[Rows, tyro.conf.arg(name="")]
How = Annotated[Settings, tyro.conf.arg(name="")]
From = Annotated[Source, tyro.conf.arg(name="")]
About = Annotated[Logs, tyro.conf.arg(name="")]
For = Annotated[Goal, tyro.conf.arg(name="")]
_ROWS, _SETTINGS, _SOURCE, _LOGS, _GOAL = Rows(), Settings(), Source(), Logs(), Goal()
Records = list[dict[str, Any]]


def train_command(
    source: From = _SOURCE,
    net: str = "cnn-small",
    recipe: str = "ibp",
    out: Path = Path("runs/model"),
    goal: For = _GOAL,
    epochs: int | None = None,
    seed: int = 0,
) -> None:
    """Train a net in a certifiable way and keep it as a checkpoint (safetensors and a JSON card).

    An interrupted training goes on when the same command is given again.
    Example: certus train --data mnist --net cnn-small --recipe ibp --eps 0.1 --out runs/a

    Args:
        net: network; `certus methods` lists them.
        recipe: way of training; `certus methods` lists them.
        out: directory of the checkpoint, which must not hold one yet.
        epochs: passes over the data (default: what suits its size).
        seed: seed of the weights, the order of the data and all noise.
    """
    strength = goal.strength(find_recipe(recipe))
    loaded = load_data(source.data, source.data_dir)
    what = Fit(
        net=net, recipe=recipe, strength=strength, noise=goal.noise, epochs=epochs, seed=seed
    )
    fit(what, loaded, out)


def certify_command(
    model: Where,
    threat: str | None = None,
    method: str = "auto",
    out: Path | None = None,
    which: Which = _ROWS,
    how: How = _SETTINGS,
) -> None:
    """Certify the test inputs of a data set under one threat. Resumes where it stopped.

    Example: certus certify runs/a --threat linf:0.1 --method crown --limit 1000 --out rows.csv

    Args:
        model: directory of a checkpoint, or the name of one that comes with Certus.
        threat: norm and size in input units: linf:0.1, l2:0.5, l1:1, linf:8/255; l0:3 changes 3 values,
            l0-pixels:3 pixels, patch:2 a square of 2 x 2 pixels. Default: linf:0.1; of methods that
            find radii (smoothing, lipschitz) the radii themselves, in their own norm.
        method: `certus methods` lists them.
        out: table to write, .csv or .parquet.
    """
    names = known_methods(method)
    if len(names) > 1:
        raise ArgumentError("certify runs one method; `certus compare` takes several")
    _writable(out)
    _evaluate(model, threat, names[0], which, how, out)


def attack_command(
    model: Where,
    threat: str = "linf:0.1",
    method: str = "pgd",
    out: Path | None = None,
    which: Which = _ROWS,
) -> None:
    """Search counterexamples for the test inputs of a data set; every one is replayed.

    Example: certus attack runs/a --threat linf:0.1 --limit 1000

    Args:
        model: directory of a checkpoint, or the name of one that comes with Certus.
        threat: norm and size in input units: linf:0.1, l2:0.5, l1:1, linf:8/255, l0:3, patch:2.
        method: pgd or fgsm.
        out: table to write, .csv or .parquet.
    """
    if method not in ATTACKS:
        raise ArgumentError(f"unknown attack {method!r}; choose from: {', '.join(ATTACKS)}")
    _writable(out)
    _evaluate(model, threat, method, which, _SETTINGS, out)


def compare_command(
    models: Many,
    threat: str = "linf",
    eps: str = "0:0.2:0.05",
    methods: str = "ibp,crown",
    exact_limit: int = 20,
    out: Path = Path("report.html"),
    which: Which = _ROWS,
    how: How = _SETTINGS,
) -> None:
    """Compare models and methods over a range of eps, with attacks as the upper bound; a report.

    Example: certus compare runs/a runs/b --threat linf --eps 0:0.2:0.05 --methods ibp,crown,milp

    Args:
        models: directories of checkpoints, or names of those that come with Certus.
        threat: norm: linf, l2, l1, l0, l0-pixels or patch.
        eps: sizes in input units, as start:stop:step or as a list 0.05,0.1.
        methods: comma-separated; `certus methods` lists them.
        exact_limit: how many of them milp and auto get.
        out: the report.
    """
    if not models:
        raise ArgumentError("name at least one checkpoint: certus compare runs/a runs/b")
    if threat not in NORMS:
        raise ArgumentError(f"unknown threat {threat!r}; choose from: {', '.join(NORMS)}")
    count(exact_limit, "exact-limit")
    count(which.seed, "seed", least=0)
    pool = which.pool()
    names = [path.resolve().name for path in models]
    if len(set(names)) < len(names):
        raise ArgumentError(f"models are told apart by their folder's name; rename one of {names}")
    from certus.cli.reporting import gallery, report

    loaded = data_for(models, which.data, which.data_dir)
    plan = Comparison(
        norm=threat,
        eps=_grid(eps),
        methods=known_methods(methods),
        limit=which.limit,
        every=which.every,
        exact_limit=exact_limit,
        settings=how,
        seed=which.seed,
        pool=pool,
    )
    rows: Records = []
    pictures = []
    with pool, ledger_at(which.ledger, out.parent) as kept:
        replaceable(out)
        for path in models:
            model = load_model(path, loaded)
            own = compare(model, loaded, plan, kept)
            sizes = [e for e in plan.eps if e > 0]
            pictures += gallery(model, loaded, own, threat, sizes[len(sizes) // 2])
            rows += own
        runs = runs_of(rows, kept)
    say(f"report: {report(out, rows, runs, pictures).resolve()}")


def report_command(tables: Many, out: Path = Path("report.html"), how: About = _LOGS) -> None:
    """Draw the report of rows that were computed before, or of certification logs of smoothing.

    Example: certus report runs/a/ledger.sqlite rows.csv --out report.html

    Args:
        tables: ledgers (.sqlite), .csv or .parquet files, or logs (.tsv).
        out: the report.
    """
    if not tables:
        raise ArgumentError("name at least one table: certus report runs/a/ledger.sqlite")
    from certus.cli.reporting import report

    replaceable(out)
    rows, runs = how.load(tables)
    for path in how.export(rows, runs):
        say(f"log: {path.resolve()}")
    say(f"report: {report(out, rows, runs).resolve()}")


def methods_command() -> None:
    """List certifiers, bound methods, attacks, recipes and nets, with what each gives."""
    table = Table(title="certifiers (certify, compare)", title_justify="left")
    for heading in ("name", "decides", "answer"):
        table.add_column(heading)
    for name in CERTIFIERS:
        radius = certifier(name).gives_radius
        gives = "a radius per input" if radius else "one threat at a time"
        table.add_row(name, gives, about(name))
    shown = output()
    shown.print(table)
    shown.print("bounds (certus.bounds): " + ", ".join(BOUNDS), soft_wrap=True)
    shown.print("attacks: " + ", ".join(ATTACKS), soft_wrap=True)
    _list_smoothing(shown)
    for title, entries in (("recipes", RECIPES), ("nets", NETS)):
        listing = Table(title=f"{title} (train)", title_justify="left")
        listing.add_column("name")
        listing.add_column("what it is")
        for name, entry in entries.items():
            listing.add_row(name, entry.about)
        shown.print(listing)


def _list_smoothing(shown: Console) -> None:
    """What --noise and --rule take."""
    listing = Table(title="noises of smoothing (--noise name:number)", title_justify="left")
    for heading in ("name", "certifies", "number"):
        listing.add_column(heading)
    for name, noise in NOISES.items():
        after = f"; {noise.after}" if noise.after else ""
        listing.add_row(name, noise.norm, noise.number + after)
    shown.print(listing)
    listing = Table(title="rules of smoothing (--rule name or name:number)", title_justify="left")
    for heading in ("name", "number", "what it does"):
        listing.add_column(heading)
    for name, rule in RULES.items():
        listing.add_row(name, rule.number, rule.about)
    shown.print(listing)


def data_command(
    name: Annotated[str | None, tyro.conf.Positional] = None,
    download: bool = False,
    data_dir: Path = Path("data"),
) -> None:
    """List the data sets, describe one, or download it.

    Example: certus data mnist --download --data-dir data

    Args:
        name: data set.
        download: fetch it into data_dir (needs a network).
        data_dir: where idx files lie or shall lie.
    """
    shown = output()
    if name is None:
        bundled = [known for known in DATA if known not in SOURCES]
        shown.print("always there: " + ", ".join(bundled))
        shown.print("from idx files (--data-dir, --download): " + ", ".join(SOURCES))
        return
    if download:
        with bar(f"download {name}") as progress:
            download_data(name, data_dir, progress=progress)
    shown.print(load_data(name, data_dir if data_dir.exists() else None).describe(), soft_wrap=True)


def _evaluate(
    path: Path, threat: str | None, method: str, which: Rows, how: Settings, out: Path | None
) -> None:
    """Compute the rows, write the table, then say what they hold, which perhaps nobody reads."""
    count(which.seed, "seed", least=0)
    pool = which.pool()
    loaded = data_for((path,), which.data, which.data_dir)
    if threat is not None:
        parse(threat, loaded.clip)
    model = load_model(path, loaded)
    if method in ATTACKS:
        options = {"seed": which.seed} if method == "pgd" else {}
        job_method: Any = certifier(method, **options)
    else:
        job_method = how.build(method, model, which.seed)
    ball = asked_threat(threat, job_method, model, loaded.clip)
    job = job_for(model, loaded, job_method, ball, which.seed)
    job = replace(job, limit=which.limit, every=which.every)
    title = f"{method} {ball.norm if threat is None else threat}"
    with pool, ledger_at(which.ledger, path) as kept, bar(title) as progress:
        say_outdated([job], kept)
        rows = evaluate(job, kept, progress, pool)
    if out is not None:
        say(f"rows: {export(rows, out).resolve()}")
    summarise(rows, job_method, ball, threat is not None)


def _writable(out: Path | None) -> None:
    """Refuse a table that could not be written, before any work."""
    if out is not None and out.suffix.lower() not in (".csv", ".parquet"):
        raise ArgumentError(f"--out {out} must end in .csv or .parquet")
    if out is not None:
        replaceable(out)


def _grid(text: str) -> list[float]:
    """Ascending numbers from `start:stop:step` (stop included) or `a,b,c`."""
    try:
        if ":" in text:
            start, stop, step = (float(part) for part in text.split(":"))
            count = round((stop - start) / step)
            values = [round(start + i * step, 10) for i in range(min(count, 1000) + 1)]
        else:
            values = [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ArgumentError(
            f"eps {text!r} must be start:stop:step or a list such as 0.05,0.1"
        ) from None
    usable = bool(values) and all(0 <= v < float("inf") for v in values) and max(values) > 0
    if not usable or len(values) > 1000:
        raise ArgumentError(f"eps {text!r} must give 1 to 1000 sizes >= 0, one of them above 0")
    return sorted(set(values))
