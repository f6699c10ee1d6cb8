"""One look per method, the same in every chart: colour, dashes and marker all differ.

Colours are names of CSS variables (the page defines them for light, dark and paper, after Okabe and
Ito's palette), so they are safe for colour-blind readers and never carry meaning alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

COLOURS = 7
DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (6, 2),
    (2, 1.5),
    (7, 2, 1.5, 2),
    (4, 1.5, 1, 1.5, 1, 1.5),
)
MARKERS = ("o", "s", "D", "P", "X", "v", "*")
HOLLOW = ("^", "<", ">", "d")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one method is drawn; colour is the name of a CSS variable."""

    colour: str
    dashes: tuple[float, ...]
    marker: str
    hollow: bool = False


def looks(certified: Sequence[str], attacks: Sequence[str]) -> Mapping[str, Look]:
    """A look for every method, in order: attacks are hollow and grey, certificates filled."""
    table = {
        name: Look(
            colour=f"--c{i % COLOURS + 1}",
            dashes=DASHES[i % len(DASHES)],
            marker=MARKERS[i % len(MARKERS)],
        )
        for i, name in enumerate(certified)
    }
    for i, name in enumerate(attacks):
        table[f"attack {name}"] = Look(
            colour="--attack", dashes=(1.5, 2.0), marker=HOLLOW[i % len(HOLLOW)], hollow=True
        )
    return table
