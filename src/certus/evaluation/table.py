"""Tables of evaluation rows as files: CSV, Parquet, certification logs, or the ledger itself."""

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from certus.core import ArgumentError, FileError
from certus.core.errors import require
from certus.core.files import lines, opened, replacing
from certus.evaluation.claim import distinct, settled
from certus.evaluation.cohen import LARGEST, LogSettings, read_log, write_log
from certus.evaluation.columns import COLUMNS
from certus.evaluation.ledger import VERDICTS, Ledger
from certus.evaluation.legacy import CLAIMED, completed

Row = dict[str, Any]

LEDGERS = (".sqlite", ".db")
"""How the name of a ledger ends that `read` takes."""

_BATCH = 1_000  # rows of a Parquet file that are unpacked at once
_ROWS = 1_000_000  # of a Parquet file
_LATER = ("evidence", *CLAIMED)  # columns that older tables lack


def export(rows: Sequence[Row], path: str | Path) -> Path:
    """Write rows to a .csv, .parquet or .tsv file, which appears whole or not at all; return its path.

    In CSV, floats are written so that they read back exactly; NaN and a missing eps are empty. A .tsv
    is a certification log of one smoothing run (`cohen.write_log`).
    Raises ArgumentError for another suffix or other columns, FileError where the file cannot be
    written, DependencyError where Parquet needs a package.
    """
    path = Path(path)
    writer = _of(path, {".csv": _write_csv, ".parquet": _write_parquet, ".tsv": write_log})
    for row in rows:
        if set(row) != set(COLUMNS):
            raise ArgumentError(f"a row has the columns {', '.join(COLUMNS)}, got {', '.join(row)}")
    with replacing(path) as draft:
        writer(rows, draft)
    return path


def read(path: str | Path, log: LogSettings | None = None) -> list[Row]:
    """Rows from a .csv, .parquet, .tsv or ledger (.sqlite, .db) file; FileError names the bad line.

    A .tsv is a certification log (`cohen.read_log`); `log` is what such a file does not say of itself.
    Rows are `claim.settled`: one that contradicts itself, its transcript or another answer of the same run
    to the same input is a FileError, too; repetitions are left out.
    """
    path = Path(path)
    reader = _of(
        path,
        {
            ".csv": _read_csv,
            ".parquet": _read_parquet,
            ".tsv": lambda file: read_log(file, log or LogSettings()),
            **dict.fromkeys(LEDGERS, _read_ledger),
        },
    )
    found: list[Row] = reader(path)
    try:
        return distinct(found)
    except ArgumentError as error:
        raise FileError(f"{path}: {error}") from None


def _of(path: Path, table: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    if path.suffix.lower() not in table:
        raise ArgumentError(f"{path}: the name must end in one of {', '.join(table)}")
    return table[path.suffix.lower()]


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([_text(row[name], kind) for name, kind in COLUMNS.items()])


def _text(value: Any, kind: type) -> str:
    if kind is float:
        return "" if value is None or math.isnan(value) else repr(float(value))
    return str(value)


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    arrow: Any = require("pyarrow", "report")
    parquet: Any = require("pyarrow.parquet", "report")
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    parquet.write_table(arrow.table(columns, schema=schema), path)


def _read_csv(path: Path) -> list[Row]:
    found, places = [], []
    try:
        with lines(path, LARGEST) as file:
            reader = csv.DictReader(file, strict=True)
            _need(path, reader.fieldnames or ())
            for record in reader:
                places.append(f"{path}, line {reader.line_num}")
                found.append(_row(record, places[-1]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: is not a readable CSV file ({error})") from error
    return _claimed(found, places)


def _read_parquet(path: Path) -> list[Row]:
    arrow: Any = require("pyarrow", "report")
    parquet: Any = require("pyarrow.parquet", "report")
    records: list[dict[str, Any]] = []
    size = 0
    try:
        with opened(path, LARGEST) as file:
            table = parquet.ParquetFile(file)
            _need(path, table.schema_arrow.names)
            names = [name for name in COLUMNS if name in table.schema_arrow.names]
            for batch in table.iter_batches(_BATCH, columns=names):
                size += batch.nbytes
                # few bytes may stand for many equal rows
                if size > LARGEST or len(records) > _ROWS:
                    raise FileError(f"{path}: holds more than {_ROWS:,} rows or {LARGEST:,} bytes")
                records += batch.to_pylist()
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise FileError(f"{path}: is not a readable Parquet file ({error})") from error
    places = [f"{path}, row {number}" for number in range(len(records))]
    return _claimed(list(map(_row, records, places)), places)


def _read_ledger(path: Path) -> list[Row]:
    with Ledger(path, create=False) as ledger:
        return ledger.rows()


def _need(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names and name not in _LATER]
    if missing:
        raise FileError(f"{path}: is not a table of Certus, it lacks the column {missing[0]}")


def _row(record: dict[str, Any], where: str) -> Row:
    """A typed row, without columns that its table lacks; FileError names the place and the column."""
    if None in record:
        raise FileError(f"{where}: more values than columns")
    row: Row = {"evidence": ""}
    for name, kind in COLUMNS.items():
        if name in record or name not in _LATER:
            try:
                row[name] = _value(name, kind, record.get(name))
            except (TypeError, ValueError):
                raise FileError(
                    f"{where}: {record.get(name)!r:.80} is not a value for {name}"
                ) from None
    return row


def _claimed(rows: Sequence[Row], places: Sequence[str]) -> list[Row]:
    """The rows with their claims, settled; FileError names the place."""
    found = []
    for row, where in zip(completed(rows), places, strict=True):
        try:
            found.append(settled({name: row[name] for name in COLUMNS}))
        except (ArgumentError, FileError) as error:
            raise FileError(f"{where}: {error}") from None
    return found


def _value(name: str, kind: type, value: Any) -> Any:
    if kind is float:
        if value is None or value == "":
            return None if name == "eps" else _optional(name)
        return float(value)
    if value is None or (name == "verdict" and value not in (*VERDICTS, "")):
        raise ValueError
    return kind(value)


def _optional(name: str) -> float:
    """NaN for a number that may be unknown; a row without a confidence cannot be used."""
    if name == "confidence":
        raise ValueError
    return math.nan
