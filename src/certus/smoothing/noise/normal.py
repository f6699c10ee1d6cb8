"""The normal distribution function to any number of digits, in whole numbers."""

import math
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache

_GUARD = 20  # decimal digits beyond those asked for


@lru_cache(maxsize=4096)
def normal_bracket(x: Fraction, bits: int) -> tuple[int, int]:
    """Whole numbers a <= 2^bits Phi(x) <= b, with b - a <= 2.

    From Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 5) + ...), whose terms have one sign.
    """
    unit = 1 << bits
    if x * x > 2 * bits + 4:  # Phi(-|x|) <= exp(-x^2 / 2) / 2 < 2^-bits
        return (0, 1) if x < 0 else (unit - 1, unit)
    growth = int(x * x / 2)  # the series reaches exp of this
    digits = bits // 3 + growth // 2 + _GUARD
    with localcontext(Context(prec=digits)):
        value = Decimal(x.numerator) / Decimal(x.denominator)
        square = value * value
        term = total = value
        odd, least = 1, Decimal(10) ** -digits
        while abs(term) > least:
            odd += 2
            term = term * square / odd
            total += term
        density = (-square / 2).exp() / (2 * _pi(digits)).sqrt()
        found = (Decimal("0.5") + density * total) * unit
        low = math.floor(found - Decimal("0.01"))
        high = math.ceil(found + Decimal("0.01"))
    return max(low, 0), min(high, unit)


@lru_cache(maxsize=16)
def _pi(digits: int) -> Decimal:
    """Pi to this many digits, by the arithmetic-geometric mean."""
    with localcontext(Context(prec=digits + _GUARD)):
        a, b, t, p = Decimal(1), 1 / Decimal(2).sqrt(), Decimal("0.25"), Decimal(1)
        while abs(a - b) > Decimal(10) ** -(digits + 2):
            mean = (a + b) / 2
            b = (a * b).sqrt()
            t -= p * (a - mean) ** 2
            a, p = mean, 2 * p
        return (a + b) ** 2 / (4 * t)
