"""What a closed parenthesis means: formulas, relations and arithmetic of VNN-LIB."""

from itertools import pairwise

from certus.properties import terms
from certus.properties.atoms import NONE, AtomList
from certus.properties.formula import Node, Span
from certus.properties.terms import Term, TermError

IGNORED = {b"set-logic", b"set-info", b"set-option", b"check-sat", b"get-model", b"exit"}
COMMANDS = {b"declare-const", b"declare-fun", b"assert", b"vnnlib-version"} | IGNORED
JUNCTIONS = {b"and", b"or"}
_RELATIONS = {b"<=", b"<", b">=", b">", b"="}
_ARITHMETIC = {b"+", b"-", b"*", b"/"}
KNOWN = COMMANDS | JUNCTIONS | {b"not", b"=>"} | _RELATIONS | _ARITHMETIC
EXPECTED = "expected declare-const, assert, and, or, not, =>, <=, <, >=, >, =, +, -, *, /"

_TRUTH = {b"true": True, b"false": False}

Operand = bytes | Span | Node | Term | None  # None: an empty pair of parentheses


class Frame:
    """An open parenthesis: its position, the symbol after it, and what came since."""

    __slots__ = ("head", "operands", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        self.head: bytes | None = None
        self.operands: list[Operand] = []


def value(frame: Frame, atoms: AtomList, used: dict[int, int]) -> Operand:
    """The formula or term of a closed frame.

    Atoms are added to `atoms`; `used` notes where every variable occurs first. TermError says what
    was expected.
    """
    head = frame.head or b""
    if head in _RELATIONS:
        return _relation(frame, atoms, used)
    if head in _ARITHMETIC:
        return _arithmetic(frame, used)
    parts = [_formula(operand) for operand in frame.operands]
    if head in JUNCTIONS:
        if not parts:
            raise TermError(f"expected a formula after '({head.decode()}'")
        return Node(head == b"and", parts)
    if head == b"not":
        return Node(True, [only_formula(frame)], negated=True)
    if len(parts) < 2:
        raise TermError("expected two formulas after '(=>'")
    return Node(False, [*(Node(True, [part], negated=True) for part in parts[:-1]), parts[-1]])


def only_formula(frame: Frame) -> Node | Span:
    """The one formula that assert and not take."""
    if len(frame.operands) != 1:
        name = (frame.head or b"").decode()
        raise TermError(f"expected one formula after '({name}', found {len(frame.operands)}")
    return _formula(frame.operands[0])


def _formula(operand: Operand) -> Node | Span:
    if isinstance(operand, Node | tuple):
        return operand
    if isinstance(operand, bytes) and operand in _TRUTH:
        return Node(_TRUTH[operand], [])
    raise TermError(f"expected a formula, found {_shown(operand)}")


def _term(operand: Operand, used: dict[int, int], position: int) -> Term:
    if isinstance(operand, Term):
        return operand
    if not isinstance(operand, bytes):
        raise TermError(f"expected a number or a variable X_i or Y_j, found {_shown(operand)}")
    found = terms.leaf(operand)
    for code in found.coefficients:
        used.setdefault(code, position)
    return found


def _shown(operand: Operand) -> str:
    if isinstance(operand, bytes):
        return repr(operand[:24].decode("ascii", "backslashreplace"))
    if operand is None:
        return "'()'"
    return "a term" if isinstance(operand, Term) else "a formula"


def _arithmetic(frame: Frame, used: dict[int, int]) -> Term:
    parts = [_term(operand, used, frame.position) for operand in frame.operands]
    if not parts:
        raise TermError("expected a term after an arithmetic symbol")
    if frame.head == b"*":
        return terms.product(parts)
    if frame.head == b"/":
        return terms.quotient(parts)
    if frame.head == b"-" and len(parts) == 1:
        return parts[0].scale(-1)
    result = parts[0]
    for part in parts[1:]:
        result = result.add(part, 1 if frame.head == b"+" else -1)
    return result


def _relation(frame: Frame, atoms: AtomList, used: dict[int, int]) -> Node | Span:
    """A chain a <= b <= c is every neighbouring pair; an equation is two inequalities."""
    operands, head = frame.operands, frame.head or b""
    if len(operands) < 2:
        raise TermError(f"expected two terms after '({head.decode()}', found {len(operands)}")
    quick = _quick(operands, head, atoms, used, frame.position)
    if quick is not None:
        return quick
    parts: list[Node | Span] = []
    values = [_term(operand, used, frame.position) for operand in operands]
    for left, right in pairwise(values):
        low = Term(dict(left.coefficients), left.constant).add(right, -1)
        high = Term({code: -value for code, value in low.coefficients.items()}, -low.constant)
        if head in (b"=", b"<=", b"<"):
            parts.append(_part(terms.atom(atoms, low, head == b"<")))
        if head in (b"=", b">=", b">"):
            parts.append(_part(terms.atom(atoms, high, head == b">")))
    return parts[0] if len(parts) == 1 else Node(True, parts)


def _part(found: int | bool) -> Node | Span:
    return Node(found, []) if isinstance(found, bool) else (found, found + 1)


def _quick(
    operands: list[Operand], head: bytes, atoms: AtomList, used: dict[int, int], position: int
) -> Span | None:
    """The usual atoms: a variable against a number or another variable, without fractions."""
    if len(operands) != 2 or head == b"=":
        return None
    left, right = operands
    if not isinstance(left, bytes) or not isinstance(right, bytes):
        return None
    first, second = terms.variable(left), terms.variable(right)
    if first is None or first == second:
        return None
    used.setdefault(first, position)
    constant = 0.0
    if second is None:
        constant = terms.number(right)
    else:
        used.setdefault(second, position)
    sign = 1 if head[:1] == b"<" else -1
    strict = len(head) == 1
    found = atoms.simple(sign, strict, first, NONE if second is None else second, constant)
    return found, found + 1
