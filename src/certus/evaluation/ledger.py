"""Ledger: the SQLite file that evaluation rows are kept in, one transaction for each block."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from certus.core import ArgumentError, FileError
from certus.evaluation.claim import settled
from certus.evaluation.columns import COLUMNS, RUN_COLUMNS
from certus.evaluation.connection import connected, foreign
from certus.evaluation.legacy import CLAIMED, OLD_RUN_COLUMNS, claimed, completed
from certus.evaluation.witness import WITNESS, unpacked

APPLICATION = 0x43455254  # "CERT", the mark by which SQLite files of Certus are known
SCHEMA = 4
READS = (1, 2, 3, SCHEMA)
"""Schema 1 lacks the column `evidence`, 1 and 2 hold the verdict at eps 0 in rows without eps, and
1 to 3 a configuration as text instead of a claim, and no witnesses.

Such files are read as what they mean, and become schema 4 with the first thing that is written to them.
"""

VERDICTS = ("verified", "falsified", "unknown")

_STORED = {name: kind for name, kind in COLUMNS.items() if name not in CLAIMED}
"""Columns of the table of rows; the others are their run's."""

_SQL = {str: "TEXT NOT NULL", int: "INTEGER NOT NULL", float: "REAL"}


class Ledger:
    """Evaluation rows in one SQLite file (WAL), which several processes may use at once.

    A block of rows is written in one transaction: a process that is killed loses at most the block
    in progress and never leaves half of one. With create=False the file must exist, and may lie where
    nothing can be written. `wait` is how many seconds to wait for another process that is writing.
    Everything that SQLite cannot do (not a ledger, damaged, locked, disk full) is a FileError of one line.
    """

    def __init__(self, path: str | Path, *, create: bool = True, wait: float = 10.0) -> None:
        self.path = Path(path)
        with self._speaking():
            self._db = connected(self.path, create=create, wait=wait)
        try:
            with self._speaking():
                self._open()
        except FileError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the file; the ledger cannot be used afterwards."""
        self._db.close()

    def __enter__(self) -> "Ledger":
        """Use as a context manager, which closes the file at its end."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_run(self, run: Mapping[str, Any]) -> None:
        """Store what was run (the columns of RUN_COLUMNS); a known key keeps its first entry."""
        values = _values(_complete(run, RUN_COLUMNS), RUN_COLUMNS)
        marks = ", ".join("?" * len(values))
        with self._transaction():
            self._upgrade()
            self._db.execute(
                f"INSERT INTO runs VALUES ({marks}) ON CONFLICT (run) DO NOTHING", values
            )

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a block of rows (the columns of COLUMNS) in one transaction: all of them or none.

        A row of the same run and index is replaced. The run must have been added before, and its claim be
        that of the rows. A row may bring its witness (`evaluation.witness`). Rows are `claim.settled`:
        FileError for one that contradicts itself.
        """
        plain = [{name: v for name, v in row.items() if name != WITNESS} for row in rows]
        settled_rows = [self._settled(_complete(row, COLUMNS)) for row in plain]
        with self._transaction():
            self._upgrade()
            self._same_claim(settled_rows)
            self._insert("rows", _STORED, settled_rows)
            self._db.executemany(
                "INSERT OR REPLACE INTO witnesses VALUES (?, ?, ?)",
                [(r["run"], r["index"], r[WITNESS]) for r in rows if r.get(WITNESS) is not None],
            )

    def witness(self, run: str, index: int) -> Tensor | None:
        """The replayed counterexample [*shape] of an input, None where there is none."""
        if self._pragma("user_version") < SCHEMA:
            return None
        with self._speaking():
            found = self._db.execute(
                "SELECT value FROM witnesses WHERE run = ? AND idx = ?", (run, index)
            ).fetchone()
        return None if found is None else unpacked(found[0])

    def done(self, run: str) -> set[int]:
        """The indices of the inputs that this run has rows for."""
        with self._speaking():
            found = self._db.execute("SELECT idx FROM rows WHERE run = ?", (run,)).fetchall()
        return {int(index) for (index,) in found}

    def rows(self, run: str | None = None, **equal: str | float) -> list[dict[str, Any]]:
        """Rows in order of run (first added first) and index; method="crown" and such filter."""
        wanted = dict(equal) if run is None else {"run": run, **equal}
        unknown = sorted(set(wanted) - set(COLUMNS))
        if unknown:
            raise ArgumentError(
                f"rows have no column {unknown[0]!r} (they have: {', '.join(COLUMNS)})"
            )
        with self._speaking():
            if self._pragma("user_version") < SCHEMA:
                return [r for r in self._older_rows() if all(r[n] == v for n, v in wanted.items())]
            where = " AND ".join(f"{_place(name)} = ?" for name in wanted) or "1"
            query = (
                f"SELECT {', '.join(map(_place, COLUMNS))} FROM rows JOIN runs USING (run) "
                f"WHERE {where} ORDER BY runs.rowid, rows.idx"
            )
            found = self._db.execute(query, tuple(wanted.values())).fetchall()
        return [self._settled(self._typed(values, COLUMNS)) for values in found]

    def runs(self) -> list[dict[str, Any]]:
        """Every run, first added first."""
        with self._speaking():
            if self._pragma("user_version") < SCHEMA:
                return self._older_runs()
            found = self._db.execute("SELECT * FROM runs ORDER BY rowid").fetchall()
        return [self._typed(values, RUN_COLUMNS) for values in found]

    def _older_runs(self) -> list[dict[str, Any]]:
        """Runs of schemas 1 to 3, as they are written now."""
        names = ", ".join(OLD_RUN_COLUMNS)
        found = self._db.execute(f"SELECT {names} FROM runs ORDER BY rowid").fetchall()
        runs = [self._typed(values, OLD_RUN_COLUMNS) for values in found]
        first: dict[str, Any] = {}
        for row in self._older_rows():
            first.setdefault(row["run"], row)
        return [claimed(run, first.get(run["run"])) for run in runs]

    def _older_rows(self) -> list[dict[str, Any]]:
        """Rows of schemas 1 to 3, as they are written now."""
        absent = {"evidence"} if self._pragma("user_version") == 1 else set()
        old = {name: kind for name, kind in COLUMNS.items() if name not in CLAIMED}
        names = ", ".join("''" if n in absent else f"rows.{_sql_name(n)}" for n in old)
        found = self._db.execute(
            f"SELECT {names} FROM rows JOIN runs USING (run) ORDER BY runs.rowid, rows.idx"
        ).fetchall()
        told = ", ".join(OLD_RUN_COLUMNS)
        runs = self._db.execute(f"SELECT {told} FROM runs").fetchall()
        known = {run[0]: dict(zip(OLD_RUN_COLUMNS, run, strict=True)) for run in runs}
        rows = [self._typed(values, old) for values in found]
        return [self._settled(row) for row in completed(rows, known)]

    def _open(self) -> None:
        """Create the tables in an empty file; otherwise check that this is a sound ledger."""
        # In this order: another process may create the tables, and with them the mark, in between.
        empty = not self._db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        mark = self._pragma("application_id")
        if empty and mark == 0:
            self._create()
        elif mark != APPLICATION or foreign(self._db):
            raise FileError(f"{self.path}: this is a database, but not a Certus ledger")
        version = self._pragma("user_version")
        if version not in READS:
            raise FileError(
                f"{self.path}: the ledger has schema {version}, this Certus reads schemas 1 to {SCHEMA}; "
                "use the Certus that wrote it, or start a new file"
            )
        if self._pragma("quick_check(1)") != "ok":
            raise FileError(
                f"{self.path}: the ledger is damaged; restore a copy or start a new file"
            )
        self._db.execute("PRAGMA foreign_keys = ON")

    def _create(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        with self._transaction():
            self._create_tables()
            self._db.execute(f"PRAGMA application_id = {APPLICATION}")

    def _create_tables(self) -> None:
        verdicts = ", ".join(f"'{verdict}'" for verdict in VERDICTS)
        make = "CREATE TABLE IF NOT EXISTS"
        self._db.execute(f"{make} runs ({_declare(RUN_COLUMNS)}, PRIMARY KEY (run))")
        self._db.execute(
            f"{make} rows ({_declare(_STORED)}, PRIMARY KEY (run, idx), "
            "FOREIGN KEY (run) REFERENCES runs (run), "
            f"CHECK (CASE WHEN eps IS NULL THEN verdict = '' ELSE verdict IN ({verdicts}) END))"
        )
        self._db.execute(
            f"{make} witnesses (run TEXT NOT NULL, idx INTEGER NOT NULL, value BLOB NOT NULL, "
            "PRIMARY KEY (run, idx))"
        )
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def _upgrade(self) -> None:
        """Write an older file anew, within the transaction that writes to it."""
        if self._pragma("user_version") < SCHEMA:
            runs, rows = self._older_runs(), self._older_rows()
            self._db.execute("DROP TABLE rows")
            self._db.execute("DROP TABLE runs")
            self._create_tables()
            self._insert("runs", RUN_COLUMNS, runs)
            self._insert("rows", _STORED, rows)

    def _insert(self, table: str, columns: dict[str, type], records: Sequence[Any]) -> None:
        marks = ", ".join("?" * len(columns))
        self._db.executemany(
            f"INSERT OR REPLACE INTO {table} VALUES ({marks})",
            [_values(record, columns) for record in records],
        )

    def _same_claim(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """FileError where a row claims something else than its run."""
        for run in {row["run"] for row in rows}:
            found = self._db.execute(
                f"SELECT {', '.join(CLAIMED)} FROM runs WHERE run = ?", (run,)
            ).fetchone()
            others = {tuple(r[n] for n in CLAIMED) for r in rows if r["run"] == run} - {found}
            if found is not None and others:  # SQLite itself refuses rows without a run
                raise FileError(f"{self.path}: rows of run {run} claim something else than it does")

    def _pragma(self, name: str) -> Any:
        found = self._db.execute(f"PRAGMA {name}").fetchone()
        return found[0] if found else None

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._speaking():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself (disk full)
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn every error of SQLite into one line that names the file."""
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise FileError(f"{self.path}: {_advice(error)}") from error

    def _settled(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return settled(row)
        except (ArgumentError, FileError) as error:
            raise FileError(f"{self.path}: {error}") from None

    def _typed(self, values: Sequence[Any], columns: dict[str, type]) -> dict[str, Any]:
        try:
            return {
                name: _restore(name, kind, value)
                for (name, kind), value in zip(columns.items(), values, strict=True)
            }
        except (TypeError, ValueError) as error:
            raise FileError(f"{self.path}: the ledger holds a damaged row ({error})") from error


def _restore(name: str, kind: type, value: Any) -> Any:
    """SQLite keeps NaN as NULL; only eps may be None."""
    if value is None and kind is float:
        return None if name == "eps" else float("nan")
    if kind is str and not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    return kind(value)


def _complete(record: Mapping[str, Any], columns: dict[str, type]) -> dict[str, Any]:
    if set(record) != set(columns):
        odd = sorted(set(record) ^ set(columns))
        raise ArgumentError(f"a ledger entry has the columns {', '.join(columns)}; wrong: {odd}")
    return dict(record)


def _values(record: Mapping[str, Any], columns: dict[str, type]) -> tuple[Any, ...]:
    return tuple(record[name] for name in columns)


def _declare(columns: dict[str, type]) -> str:
    return ", ".join(f"{_sql_name(name)} {_SQL[kind]}" for name, kind in columns.items())


def _sql_name(name: str) -> str:
    """`index` is a word of SQL."""
    return "idx" if name == "index" else name


def _place(name: str) -> str:
    return f"{'rows' if name in _STORED else 'runs'}.{_sql_name(name)}"


def _advice(error: Exception) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return "another process is writing to the ledger; wait for it or choose another file"
    if "full" in text:
        return (
            "the disk is full; what was finished is kept, free some space and run again to resume"
        )
    if "not a database" in text:
        return "this is not a Certus ledger (not an SQLite file)"
    if "malformed" in text:
        return "the ledger is damaged; restore a copy or start a new file"
    return f"the ledger cannot be used ({text})"
