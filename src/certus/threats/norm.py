"""Norm: what is known of a way to measure a change, in one record each."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A measure of changes, by the name that threats, rows and commands give it.

    symbol: as people write it. clause: what an adversary may do within `{size}`. order: p of an Lp norm,
    None for a measure that counts what may change to anything: its sizes are whole numbers, and a radius
    of 3 includes three changes. within: measures that are never larger than this one.
    """

    name: str
    symbol: str
    clause: str
    order: float | None = None
    within: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether sizes are whole numbers."""
        return self.name in _NORMS and self.order is None and self.name != "box"

    @property
    def dual(self) -> float | None:
        """q with 1/p + 1/q = 1, the norm that limits a linear function on a ball; None for counts."""
        if self.order is None:
            return None
        return (
            math.inf
            if self.order == 1
            else 1.0
            if math.isinf(self.order)
            else self.order / (self.order - 1)
        )

    def exponent(self, target: "Norm") -> float | None:
        """The least e with |d| <= size ** e * |d|_target for all changes d of `size` values.

        max(0, 1/p - 1/q) between Lp norms (Hoelder's inequality, with equality for the worst d). None where
        no such e exists.
        """
        if self.name == target.name or target.name in self.within:
            return 0.0
        if self.order is None or target.order is None:
            return None
        return max(0.0, 1 / self.order - 1 / target.order)


_NORMS = {
    norm.name: norm
    for norm in (
        Norm(
            name="linf",
            symbol="l\u221e",
            clause="every input value may change by up to {size}",
            order=math.inf,
        ),
        Norm(
            name="l2",
            symbol="l2",
            clause="the Euclidean length of the change is at most {size}",
            order=2.0,
        ),
        Norm(
            name="l1",
            symbol="l1",
            clause="the absolute changes add up to at most {size}",
            order=1.0,
        ),
        Norm(
            name="l0",
            symbol="l0",
            clause="at most {size} input values may change, by any amount",
        ),
        Norm(
            name="l0-pixels",
            symbol="l0 pixels",
            clause="at most {size} pixels may change, by any amount",
            within=("l0",),  # so many values lie in at most so many pixels
        ),
        Norm(
            name="patch",
            symbol="patch",
            clause="one square of {size} x {size} pixels may change, by any amount",
        ),
        Norm(
            name="box", symbol="box", clause="every input value may move within its given interval"
        ),
    )
}


def norm_of(name: str) -> Norm:
    """The record of a name, also of one followed by a hash (`box:1a2b3c4d`); a plain one if unknown."""
    kind = name.partition(":")[0]
    plain = Norm(name=kind, symbol=kind, clause=f"the threat {kind!r} of size {{size}}")
    return _NORMS.get(kind, plain)
