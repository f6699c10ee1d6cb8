"""Certifiers that take their time, fail or kill their process, for pools of workers; rows as bytes."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.evaluation.fakes import Exact

from certus.core import ArgumentError, Certificates


def as_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """Rows in their order, every column but the time they took and, of which the code is part, the run."""
    kept = [
        {name: repr(row[name]) for name in row if name not in ("run", "seconds")} for row in rows
    ]
    return json.dumps(kept, sort_keys=True).encode()


@dataclass(frozen=True)
class Slow(Exact):
    """Takes a while for each block, so that there is a middle; the rows are those of Exact."""

    pause: float = 0.05
    stuck_from: int | None = None  # from this input on it takes minutes

    def __call__(self, *args: Any, **named: Any) -> Certificates:
        """Wait, then answer."""
        stuck = self.stuck_from is not None and max(named["ids"]) >= self.stuck_from
        time.sleep(200.0 if stuck else self.pause)
        return super().__call__(*args, **named)


@dataclass(frozen=True)
class Refusing(Slow):
    """Raises at one input."""

    at: int = 9

    def __call__(self, *args: Any, **named: Any) -> Certificates:
        """Raise or answer."""
        if self.at in named["ids"]:
            raise ArgumentError(f"input {self.at} cannot be used")
        return super().__call__(*args, **named)


class TwoPartError(Exception):
    """Packs, but cannot be made anew."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


@dataclass(frozen=True)
class Odd(Exact):
    """Raises what does not survive a journey."""

    def __call__(self, *args: Any, **named: Any) -> Certificates:
        """Raise."""
        raise TwoPartError("both", "parts")


@dataclass(frozen=True)
class Deadly(Slow):
    """Kills its process at one input: always, or only while a file does not exist, which it then makes."""

    at: int = 9
    mark: Path | None = None

    def __call__(self, *args: Any, **named: Any) -> Certificates:
        """Die or answer."""
        if self.at in named["ids"] and not (self.mark and self.mark.exists()):
            if self.mark is not None:
                self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(*args, **named)
