"""Opening the SQLite file of a ledger: a regular file, also on a medium that can only be read."""

import os
import sqlite3
from pathlib import Path

from certus.core import FileError
from certus.core.files import opened, replaceable

_ANY = 1 << 62  # bytes: SQLite reads what it needs
_LONGEST = 1 << 26  # bytes of one value


def connected(path: Path, *, create: bool, wait: float) -> sqlite3.Connection:
    """A connection in autocommit mode; with `create` one that can write, to a new file where there is none.

    Where neither file nor folder can be written, what lies there is read as it is: SQLite would need files
    beside it. Raises FileError where `path` is no regular file, cannot be written although that is asked
    for, or was left by a writer whose last rows only SQLite can fetch; and sqlite3.Error.
    """
    if create and not os.path.lexists(path):
        replaceable(path)
    else:
        with opened(path, _ANY):
            pass
    fixed = path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    if fixed and create:
        raise FileError(f"{path} cannot be written: it, or its folder, is read-only")
    if fixed and _left(path):
        raise FileError(
            f"{path} was not closed by who wrote it; copy it, with {path.name}-wal, to read it"
        )
    where = f"{path.absolute().as_uri()}?mode=ro&immutable=1" if fixed else str(path)
    found = sqlite3.connect(where, timeout=wait, isolation_level=None, uri=fixed)
    found.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    found.execute("PRAGMA trusted_schema = OFF")
    return found


def _left(path: Path) -> bool:
    """Whether rows are still in the file of a writer that did not end, or does not have to."""
    logs = (path.with_name(f"{path.name}-{end}") for end in ("wal", "journal"))
    return any(log.exists() and log.stat().st_size > 0 for log in logs)


def foreign(database: sqlite3.Connection) -> bool:
    """Whether it holds what computes: views, triggers, generated columns. No ledger does."""
    kinds = "SELECT 1 FROM sqlite_master WHERE type NOT IN ('table', 'index')"
    hidden = "SELECT 1 FROM sqlite_master, pragma_table_xinfo(sqlite_master.name) WHERE hidden > 0"
    return any(database.execute(query).fetchone() for query in (kinds, hidden))
