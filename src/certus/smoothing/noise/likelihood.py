"""Neyman and Pearson's lemma where the outcomes fall into finitely many regions of one likelihood ratio."""

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Regions:
    """All outcomes of a noise, grouped by how much likelier they are at x than at a changed input x'.

    clean and changed hold the probability of each region at x and at x' as whole numbers over
    `total`, in the order of falling clean / changed. All answers are exact.
    """

    clean: tuple[int, ...]
    changed: tuple[int, ...]
    total: int

    def most(self, probability: Fraction) -> Fraction:
        """The largest probability at x' of any event whose probability at x is at most this."""
        left, found = probability * self.total, Fraction(0)
        for here, there in zip(reversed(self.clean), reversed(self.changed), strict=True):
            if here > left:
                return (found + there * left / here) / self.total
            left, found = left - here, found + there
        return found / self.total

    def least(self, probability: Fraction) -> Fraction:
        """The smallest probability at x' of any event whose probability at x is at least this."""
        return 1 - self.most(1 - probability)

    def separate(self, lower: Fraction, upper: Fraction) -> bool:
        """Whether a class of probability >= lower at x stays above any of <= upper at x'."""
        return self.least(lower) > self.most(upper)

    @property
    def limit(self) -> Fraction:
        """The largest probability at x with which a class may lose its majority at x'."""
        return Regions(self.changed[::-1], self.clean[::-1], self.total).most(Fraction(1, 2))
