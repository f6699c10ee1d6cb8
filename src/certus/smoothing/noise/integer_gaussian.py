"""Rounded Gaussian noise for quantised inputs, sound in floating point (Voracek and Hein 2023)."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from scipy.special import ndtr, ndtri
from torch import Tensor

from certus.core import ArgumentError, validate
from certus.smoothing.noise.base import Noise
from certus.smoothing.noise.normal import normal_bracket
from certus.smoothing.noise.rounding import below, normal_gap
from certus.smoothing.quantised import grid_positions, refuse_off_grid

_EXACT = 2**24  # whole numbers below it are exact in float32, which draws are held in
_SPAN = 9.0  # deviations that the table covers; draws beyond are found digit by digit
_SLACK = 1e-12  # relative error granted to distribution functions in float64 (they have 1e-15)
_FIRST, _MORE = 16, 46  # fair coins of a draw: these first, and more where they do not settle it


@dataclass(frozen=True)
class IntegerGaussian(Noise):
    """Gaussian noise of deviation sigma, rounded to the grid of the input: for values k / levels.

    sigma > 0 in input units. A noisy value is (k + J) / levels with J the whole number nearest to
    a normal draw of deviation sigma * levels. Inputs must have values k / levels, k = 0..levels (8-bit
    images: levels 255, up to the rounding of k / levels); others are refused.

    Certifies L2 with sigma / 2 (Phi^-1(pA) - Phi^-1(pB)), as Gaussian noise does, about inputs on the
    grid: for every x' whose values are k' / levels for any whole k', at a distance (between the
    true k / levels) below the radius. Proof (the argument of Voracek and Hein 2023): let f give a
    class to every whole point, and F(z) = f(z rounded) to every real one. As k is whole, rounding
    k + e is k + (e rounded): f under J at a whole point has the very law of F under real Gaussian
    noise there, to which Cohen et al. 2019, theorem 1, applies.

    Nothing stands for anything else here. The module is asked at (k + J) / levels, computed from the
    whole number k + J alone, whatever rounding that takes, so it *is* such an f; rounding cannot tell
    it where the input was. J is drawn with fair coins (the generator's bits): a draw is the cell of the
    exact distribution function in which a uniform number lies, of which 16 bits are drawn first, 46
    more where these do not settle it, and after that more, against the function in as many digits.
    """

    sigma: float
    levels: int = 255
    norm: ClassVar[str] = "l2"
    additive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a sigma that is no finite number above zero, and draws too large for float32."""
        validate.positive(self.sigma, "sigma")
        validate.count(self.levels, "levels")
        if 40 * self.sigma * self.levels + self.levels > _EXACT:
            raise ArgumentError(f"sigma * levels must stay below {_EXACT // 40}, got {self}")

    def check(self, x: Tensor) -> None:
        """Refuse inputs off the grid."""
        refuse_off_grid(x, self.levels)

    def fill(self, out: Tensor, generator: torch.Generator) -> None:
        """Whole numbers: normal draws of deviation sigma * levels, rounded."""
        cells = _cells(self.deviation)
        bits = torch.empty((out.numel() + 3) // 4, dtype=torch.int64)
        bits.random_(torch.iinfo(torch.int64).min, None, generator=generator)
        words = bits.view(torch.int16)[: out.numel()].to(torch.int32).add_(2 ** (_FIRST - 1))
        drawn = torch.index_select(cells.table, 0, words)
        open_ = torch.isnan(drawn).nonzero()[:, 0]
        if len(open_):
            more = torch.empty(len(open_), dtype=torch.int64)
            more.random_(0, 2**_MORE, generator=generator)
            longer = words[open_].long() * 2**_MORE + more
            found = cells.locate(longer.numpy(), generator)
            drawn[open_] = torch.from_numpy(found).to(drawn.dtype)
        out.copy_(drawn.view(out.shape))

    def apply(self, x: Tensor, draws: Tensor, out: Tensor) -> Tensor:
        """(k + J) / levels."""
        torch.add(draws, grid_positions(x, self.levels), out=out)
        return out.div_(self.levels)

    def proven(self, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
        """That of Gaussian noise, rounded down."""
        return below(self.sigma * normal_gap(lower, upper))

    @property
    def deviation(self) -> Fraction:
        """Deviation before rounding, in steps of the grid, exactly."""
        return Fraction(self.sigma) * self.levels


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells [F(j - 1/2), F(j + 1/2)) of the uniform numbers that give j, for |j| <= reach.

    edges [2 reach + 2] are the F in float64, those of the cell of j at j + reach and the next place.
    table [2^16]: the j of all numbers with these first bits, NaN where there are several.
    """

    deviation: Fraction
    reach: int
    edges: np.ndarray
    table: Tensor

    def locate(self, words: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """The j in whose cell the uniform number lies that starts with each 62-bit word, float64."""
        bits = _FIRST + _MORE
        place, sure = self._search(words * 2.0**-bits, (words + 1) * 2.0**-bits)
        found = (place - self.reach).astype(np.float64)
        for i in np.flatnonzero(~sure):
            found[i] = exact_cell(self.deviation, int(words[i]), bits, generator)
        return found

    def _search(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cell of each interval [low, high], and whether it surely lies in there."""
        place = np.searchsorted(self.edges, (low + high) / 2) - 1
        inside = (place >= 0) & (place < len(self.edges) - 1)
        place = np.clip(place, 0, len(self.edges) - 2)
        # Edges move towards the interval by more than all rounding; 1e-300 is for those that are 0.
        start = self.edges[place] * (1 + _SLACK) + 1e-300
        end = self.edges[place + 1] * (1 - _SLACK)
        return place, inside & (start <= low * (1 - _SLACK)) & (high * (1 + _SLACK) <= end)


@lru_cache(maxsize=8)
def _cells(deviation: Fraction) -> Cells:
    scale = float(deviation)
    reach = int(_SPAN * scale) + 1
    edges = ndtr((np.arange(-reach, reach + 2) - 0.5) / scale)
    cells = Cells(deviation, reach, edges, torch.empty(0))
    first = np.arange(2**_FIRST)
    place, sure = cells._search(first * 2.0**-_FIRST, (first + 1) * 2.0**-_FIRST)
    table = np.where(sure, place - reach, np.nan).astype(np.float32)
    return Cells(deviation, reach, edges, torch.from_numpy(table))


def exact_cell(deviation: Fraction, word: int, bits: int, generator: torch.Generator) -> int:
    """The j with F(j - 1/2) <= u < F(j + 1/2) for a uniform u that starts with these bits.

    F is the distribution function of normal noise of this deviation. Draws as many further bits as
    it takes to tell (no edge is a number that takes for ever), 62 at a time.
    """

    def edge(j: int) -> tuple[int, int]:  # brackets F(j + 1/2) 2^bits
        return normal_bracket(Fraction(2 * j + 1, 2) / deviation, bits)

    while True:
        upper = 2 * word + 1 > 1 << bits  # the half in which float64 has more digits
        rest = ((1 << bits) - word if upper else word + 1) / (1 << bits)
        z = float(ndtri(max(rest, 1e-300)))
        j = round(float(deviation) * (-z if upper else z))
        while edge(j)[1] <= word:
            j += 1
        while edge(j - 1)[0] > word:
            j -= 1
        if edge(j - 1)[1] <= word and word + 1 <= edge(j)[0]:
            return j
        further = torch.empty(1, dtype=torch.int64).random_(0, 2**62, generator=generator)
        word, bits = (word << 62) + int(further), bits + 62
