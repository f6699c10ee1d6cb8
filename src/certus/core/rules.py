"""Tables from operation type to rule: no duplicates, loud misses, variants by extension."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from certus.core.errors import UnsupportedError

Rule = Callable[..., Any]


class Rules:
    """A rule for each operation class; a lookup walks the class's bases, nearest first.

    Register a rule only for a class whose docstring states the property that makes the rule sound:
    every subclass inherits it.
    """

    def __init__(self, name: str, table: dict[type, Rule] | None = None) -> None:
        self.name = name
        self._table: dict[type, Rule] = dict(table or {})

    def register(self, *types: type) -> Callable[[Rule], Rule]:
        """Decorator: use the function for these classes and their subclasses."""

        def add(rule: Rule) -> Rule:
            for kind in types:
                if kind in self._table:
                    raise ValueError(f"{self.name} already has a rule for {kind.__name__}")
                self._table[kind] = rule
            return rule

        return add

    def extended(self, name: str, table: dict[type, Rule]) -> "Rules":
        """A new table with some rules replaced; this one is unchanged."""
        return Rules(name, self._table | table)

    def __repr__(self) -> str:
        """Its name: tables are told apart by what they are for."""
        return f"Rules({self.name!r})"

    def __contains__(self, kind: type) -> bool:
        """Whether objects of this class have a rule."""
        return any(base in self._table for base in kind.__mro__)

    def missing(self, kinds: Iterable[type]) -> str | None:
        """A line that names the classes without a rule; None where all have one."""
        names = sorted({kind.__name__ for kind in kinds if kind not in self})
        return f"{self.name} has no rule for {', '.join(names)}" if names else None

    def __iter__(self) -> Iterator[type]:
        """The classes with a rule of their own."""
        return iter(self._table)

    def __getitem__(self, kind: type) -> Rule:
        """The rule of the nearest base class; UnsupportedError names the class and the table."""
        for base in kind.__mro__:
            if base in self._table:
                return self._table[base]
        known = ", ".join(sorted(t.__name__ for t in self._table))
        raise UnsupportedError(f"{self.name} has no rule for {kind.__name__} (it has: {known})")
