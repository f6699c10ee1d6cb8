"""Linear terms in exact rational arithmetic, and the atoms that relations between them become.

Every number of a property is read exactly; each coefficient and bound is rounded once, to the nearest
float64, when its atom is finished.
"""

import re
from fractions import Fraction

from certus.properties.atoms import NONE, AtomList, Row

_VARIABLE = re.compile(rb"([XY])_(0|[1-9][0-9]{0,6})")
_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_LONGEST = 1000  # characters of a number
_EXTREME = 400  # decimal exponents beyond this are zero in float64

_DIGITS = (
    20_000  # bits of a numerator or denominator: products of thousands of numbers take minutes
)

Number = int | Fraction  # both exact; whole numbers are ten times as fast


class TermError(ValueError):
    """What is wrong with a term; the parser adds the line."""


class Term:
    """sum of coefficients * variables + constant; variables by their code."""

    __slots__ = ("coefficients", "constant")

    def __init__(self, coefficients: dict[int, Number], constant: Number) -> None:
        self.coefficients, self.constant = coefficients, constant

    def add(self, other: "Term", factor: int = 1) -> "Term":
        """self + factor * other; both are used up (the larger one is changed in place)."""
        if len(other.coefficients) > len(self.coefficients) and factor == 1:
            return other.add(self)
        for code, value in other.coefficients.items():
            self.coefficients[code] = self.coefficients.get(code, 0) + factor * value
        self.constant += factor * other.constant
        return self

    def scale(self, factor: Number) -> "Term":
        """Factor * self, in place; TermError where that gets too many digits."""
        for code in self.coefficients:
            self.coefficients[code] *= factor
        self.constant *= factor
        for value in (*self.coefficients.values(), self.constant):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > _DIGITS:
                raise TermError("a product or quotient has thousands of digits")
        return self


def variable(token: bytes) -> int | None:
    """The code of X_i or Y_j; None for anything else."""
    found = _VARIABLE.fullmatch(token)
    if found is None:
        return None
    return 2 * int(found[2]) + (found[1] == b"Y")


def spelling(code: int) -> str:
    """The name of a variable."""
    return f"{'Y' if code % 2 else 'X'}_{code // 2}"


def number(token: bytes) -> float:
    """The nearest float64; TermError for what is no finite number."""
    if _NUMBER.fullmatch(token) is None or len(token) > _LONGEST:
        shown = token[:24].decode("ascii", "backslashreplace")
        raise TermError(f"expected a number or a variable X_i or Y_j, found {shown!r}")
    value = float(token)
    if value in (float("inf"), float("-inf")):
        raise TermError(f"the number {token[:24].decode()} is outside float64")
    return value


def leaf(token: bytes) -> Term:
    """A variable or a number."""
    code = variable(token)
    if code is not None:
        return Term({code: 1}, 0)
    value = number(token)
    found = _NUMBER.fullmatch(token)
    exponent = (found[1] if found else None) or b"0"
    if len(exponent) > 6 or abs(int(exponent)) > _EXTREME:
        return Term({}, Fraction(value))
    exact = Fraction(token.decode())
    return Term({}, exact.numerator if exact.denominator == 1 else exact)


def product(factors: list[Term]) -> Term:
    """Factors of which at most one has variables."""
    result = factors[0]
    for other in factors[1:]:
        if result.coefficients and other.coefficients:
            raise TermError("expected a linear term, found a product of variables")
        linear, factor = (other, result) if other.coefficients else (result, other)
        result = linear.scale(factor.constant)
    return result


def quotient(parts: list[Term]) -> Term:
    """The first divided by constants."""
    result = parts[0]
    for other in parts[1:]:
        if other.coefficients or not other.constant:
            raise TermError("expected a constant divisor that is not zero")
        result = result.scale(Fraction(1, other.constant))
    return result


def atom(atoms: AtomList, difference: Term, strict: bool) -> int | bool:
    """The number of the atom difference <= 0 (or < 0), or its truth where no variable is left."""
    terms = {code: value for code, value in difference.coefficients.items() if value}
    bound = -difference.constant
    if not terms:
        return bound > 0 or (not strict and bound == 0)
    if len(terms) == 1:
        ((code, factor),) = terms.items()
        return atoms.simple(
            1 if factor > 0 else -1, strict, code, NONE, nearest(Fraction(bound, factor))
        )
    if len(terms) == 2 and not bound and not sum(terms.values()):
        positive, negative = sorted(terms, key=lambda code: terms[code], reverse=True)
        return atoms.simple(1, strict, positive, negative, 0.0)
    codes = tuple(sorted(terms))
    values = tuple(nearest(terms[code]) for code in codes)
    return atoms.general(strict, Row(codes, values, nearest(bound)))


def nearest(value: Number) -> float:
    """The nearest float64; TermError where it is outside the range."""
    try:
        return float(value)
    except OverflowError as error:
        raise TermError("a coefficient or bound is outside float64") from error
