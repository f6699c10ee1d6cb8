"""Which papers the methods of a report rest on, by the exact names of what was used."""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from certus.core.kinds import KIND, parsed


@dataclass(frozen=True, kw_only=True)
class Paper:
    """One reference: a BibTeX key, authors, title, venue and year; `of` names what cites it."""

    key: str
    authors: str
    title: str
    venue: str
    year: int
    of: tuple[str, ...]

    @property
    def text(self) -> str:
        """One line for a reader."""
        return f"{self.authors.replace(' and ', ', ')}: {self.title}. {self.venue}, {self.year}."

    @property
    def bibtex(self) -> str:
        """The entry as BibTeX."""
        return (
            f"@misc{{{self.key},\n  author = {{{self.authors}}},\n  title = {{{{{self.title}}}}},\n"
            f"  howpublished = {{{self.venue}}},\n  year = {{{self.year}}}\n}}"
        )


@cache
def papers() -> tuple[Paper, ...]:
    """The bibliography, papers.toml."""
    told = tomllib.loads(files("certus.report").joinpath("papers.toml").read_text("utf-8"))
    return tuple(
        Paper(key=key, **{**entry, "of": tuple(entry["of"])}) for key, entry in told.items()
    )


def cited(names: Iterable[str]) -> list[Paper]:
    """Papers for names of methods, attacks, recipes and noises, each once, in the order of first use."""
    found: dict[str, Paper] = {}
    for name in names:
        found.update({paper.key: paper for paper in papers() if name in paper.of})
    return list(found.values())


def used(rows: Iterable[Mapping[str, Any]], cards: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the methods of rows, of the kinds of what these speak of, and of the cards' recipes."""
    names: dict[str, None] = {}
    for method, subject in dict.fromkeys((str(row["method"]), row["subject"]) for row in rows):
        names[method.partition(" ")[0]] = None  # a report adds the settings that tell methods apart
        names.update(dict.fromkeys(_kinds(parsed(subject))))
    for card in cards:
        recipe = card.get("recipe")
        named = recipe.get("name") if isinstance(recipe, Mapping) else recipe
        names[str(named)] = None
    return list(names)


def _kinds(told: Any) -> Iterator[str]:
    """All kinds in data."""
    if isinstance(told, Mapping):
        if isinstance(told.get(KIND), str):
            yield told[KIND]
        for part in told.values():
            yield from _kinds(part)
