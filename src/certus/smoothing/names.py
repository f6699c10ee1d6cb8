"""Noises and rules by name, such as `uniform:0.5` and `at-radius:1`: the tables behind the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from certus.core import ArgumentError
from certus.smoothing.derandomized import Blocks, Columns, Derandomized, Rows, Splitting
from certus.smoothing.noise import (
    Ablation,
    Flips,
    Gaussian,
    IntegerGaussian,
    Laplace,
    Noise,
    PixelAblation,
    Uniform,
)
from certus.smoothing.rules import (
    AtRadius,
    Fixed,
    FixedRandomized,
    Largest,
    Precision,
    Rule,
    TwoSided,
)

Shape = tuple[int, ...]
HIDDEN = 0.0
"""What stands for the values that a copy hides, where a name does not say."""


@dataclass(frozen=True)
class NoiseKind:
    """A noise that a name stands for: what its number means, and how to make it for inputs of a shape.

    levels: inputs must have values k / levels; the usual number of them, 0 for a noise without a grid.
    hides: copies show a part of the input, and another number says what the hidden values are.
    """

    norm: str
    number: str
    make: Callable[..., Noise | Derandomized]  # (number, shape), and levels or what is hidden
    whole: bool = False
    levels: int = 0
    hides: bool = False

    @property
    def after(self) -> str:
        """What may follow the number and a slash, in words; "" where nothing may."""
        if self.levels:
            return f"/levels of the inputs' grid ({self.levels})"
        return f"/value of what is hidden ({HIDDEN:g})" if self.hides else ""


@dataclass(frozen=True)
class RuleKind:
    """A rule that a name stands for; number is what its number means, "" where it takes none."""

    about: str
    number: str
    make: Callable[[float, int, int], Rule]


NOISES: dict[str, NoiseKind] = {
    "gaussian": NoiseKind("l2", "standard deviation", lambda v, shape: Gaussian(v)),
    "integer-gaussian": NoiseKind(
        "l2", "standard deviation", lambda v, shape, k: IntegerGaussian(v, k), levels=255
    ),
    "laplace": NoiseKind("l1", "scale", lambda v, shape: Laplace(v)),
    "uniform": NoiseKind("l1", "half width", lambda v, shape: Uniform(v)),
    "splitting": NoiseKind(
        "l1", "width in levels", lambda v, shape, k: Splitting(int(v), k), True, 255
    ),
    "ablation": NoiseKind(
        "l0",
        "values shown",
        lambda v, shape, null: Ablation(int(v), prod(shape), null),
        True,
        hides=True,
    ),
    "pixel-ablation": NoiseKind(
        "l0-pixels",
        "pixels shown",
        lambda v, shape, null: PixelAblation(int(v), prod(shape[1:]), null),
        True,
        hides=True,
    ),
    "flips": NoiseKind(
        "l0", "chance to keep a value", lambda v, shape, k: Flips(v, prod(shape), k), levels=1
    ),
    "columns": NoiseKind(
        "patch", "columns shown", lambda v, shape, null: Columns(int(v), null), True, hides=True
    ),
    "rows": NoiseKind(
        "patch", "rows shown", lambda v, shape, null: Rows(int(v), null), True, hides=True
    ),
    "blocks": NoiseKind(
        "patch",
        "rows and columns shown",
        lambda v, shape, null: Blocks(int(v), null),
        True,
        hides=True,
    ),
}

RULES: dict[str, RuleKind] = {
    "fixed": RuleKind(
        "n samples, Clopper-Pearson (Cohen et al. 2019)", "", lambda v, n0, n: Fixed(n0=n0, n=n)
    ),
    "randomized": RuleKind(
        "n samples, randomized Clopper-Pearson: a little larger radii",
        "",
        lambda v, n0, n: FixedRandomized(n0=n0, n=n),
    ),
    "two-sided": RuleKind(
        "n samples, the runner-up bounded as well", "", lambda v, n0, n: TwoSided(n0=n0, n=n)
    ),
    "largest": RuleKind(
        "two-sided, without samples that can no longer matter",
        "",
        lambda v, n0, n: Largest(n0=n0, n=n),
    ),
    "at-radius": RuleKind(
        "stops as soon as it is settled whether the radius is reached",
        "radius",
        lambda v, n0, n: AtRadius(radius=v, n0=n0, n=n),
    ),
    "precision": RuleKind(
        "stops as soon as the radius is known to this precision",
        "width",
        lambda v, n0, n: Precision(width=v, n0=n0, n=n),
    ),
}


def noise_named(text: str, shape: Shape) -> Noise | Derandomized:
    """The noise of `name:number` for inputs of this shape.

    `name:number/levels` where it has a grid; `name:number/value` where copies hide a part, which then is
    this value (HIDDEN by default) in as many channels as the input has. Raises ArgumentError that lists
    the names.
    """
    text, slash, after = text.partition("/")
    name, number = _parts(text, NOISES, "noise")
    kind = NOISES[name]
    if number is None:
        raise ArgumentError(f"noise {name} needs a number ({kind.number}), e.g. {name}:4")
    if kind.whole and not number.is_integer():
        raise ArgumentError(f"noise {name} takes a whole number ({kind.number}), got {number:g}")
    if kind.hides:
        return kind.make(number, shape, _hidden(text, after) if slash else HIDDEN)
    if not kind.levels:
        if slash:
            raise ArgumentError(f"noise {name} has no grid; write {text}")
        return kind.make(number, shape)
    if slash and not after.isdecimal():
        raise ArgumentError(f"levels must be a whole number, as in {text}/{kind.levels}")
    return kind.make(number, shape, int(after) if slash else kind.levels)


def _hidden(text: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ArgumentError(f"what is hidden becomes a number, as in {text}/0.5") from None


def rule_named(text: str, n0: int, n: int) -> Rule:
    """The rule of `name` or `name:number`. Raises ArgumentError that lists the names."""
    name, number = _parts(text, RULES, "rule")
    kind = RULES[name]
    if (number is None) == bool(kind.number):
        takes = f"a {kind.number}, e.g. {name}:0.5" if kind.number else "no number"
        raise ArgumentError(f"rule {name} takes {takes}")
    return kind.make(number or 0.0, n0, n)


def _parts(
    text: str, table: "dict[str, NoiseKind] | dict[str, RuleKind]", what: str
) -> tuple[str, float | None]:
    name, colon, number = text.partition(":")
    if name not in table:
        raise ArgumentError(f"unknown {what} {text!r}; there are: {', '.join(table)}")
    try:
        return name, float(number) if colon else None
    except ValueError:
        raise ArgumentError(f"{text!r} needs a number after the colon, e.g. {name}:0.5") from None
