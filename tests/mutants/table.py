"""The table: one-line changes that make a verdict wrong, and the tests that must notice each of them."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
TABLES = sorted(Path(__file__).parent.glob("*.toml"))


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`old` stands once in `file` (below src/certus); with `new` in its place `tests` must fail.

    only: of the tests, those that this expression chooses (pytest's -k), to be fast.
    why: what would be unsound. equivalent: why no test can fail, for a change that harms nothing; it is
    kept so that nobody tries it again, and never run.
    """

    file: str
    old: str
    new: str
    why: str
    tests: tuple[str, ...] = ()
    only: str = ""
    equivalent: str = ""

    @property
    def selection(self) -> tuple[str, ...]:
        """What pytest is asked to run."""
        return (*self.tests, "-k", self.only) if self.only else self.tests

    @property
    def name(self) -> str:
        """File and line, for people."""
        return f"{self.file}:{self.line}"

    @property
    def line(self) -> int:
        """Where the fragment stands; 0 where it does not."""
        before, found, _ = self.text.partition(self.old)
        return before.count("\n") + 1 if found else 0

    @property
    def path(self) -> Path:
        """The file in the working tree."""
        return SOURCE / "certus" / self.file

    @property
    def module(self) -> str:
        """The file's import name."""
        parts = ("certus", *Path(self.file).with_suffix("").parts)
        return ".".join(part for part in parts if part != "__init__")

    @property
    def text(self) -> str:
        """The file as it is."""
        return self.path.read_text(encoding="utf-8")

    @property
    def mutated(self) -> str:
        """The file with the change."""
        return self.text.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """All of them, in the order of the files."""
    found = []
    for table in TABLES:
        for entry in tomllib.loads(table.read_text(encoding="utf-8"))["mutant"]:
            found.append(Mutant(**entry | {"tests": tuple(entry.get("tests", ()))}))
    return found
