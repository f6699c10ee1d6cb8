"""One tree of errors: each says what is wrong, where, and what to do next."""

LONGEST = 290
"""Characters of an error; with what a command puts before it a line stays below 300."""


class CertusError(Exception):
    """Base of every error that Certus raises on purpose; its text is one line for a user.

    What is quoted in it may be anything, so what `str` gives is `one_line` of what was said, which `args`
    keeps in full.
    """

    def __str__(self) -> str:
        """The line."""
        return one_line(super().__str__(), LONGEST)


def one_line(text: str, most: int) -> str:
    """Printable text of at most `most` characters: others are escaped, the middle of a long text left out."""
    ends = text if len(text) <= 2 * most else text[:most] + text[-most:]  # escapes only lengthen
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in ends)
    if len(plain) <= most:
        return plain
    tail = most // 3
    return f"{plain[: most - tail - 5]} ... {plain[-tail:]}"


class ArgumentError(CertusError, ValueError):
    """An argument is outside what the function accepts."""


class ModelError(CertusError):
    """A model cannot be used: training mode, NaN weights, wrong number of outputs, not capturable."""


class UnsupportedError(CertusError):
    """An operation, or a combination of method and network, has no sound rule here."""


class FileError(CertusError):
    """A file is missing, damaged, or not what it claims to be."""


class DependencyError(CertusError):
    """An optional package is not installed; the text says how to install it."""


class ContradictionError(CertusError):
    """A certificate and a replayed counterexample disagree: one of them is wrong, so nothing is reported."""


def require(name: str, extra: str) -> object:
    """Import the optional module `name`, or say which extra of Certus brings it.

    Raises DependencyError with the one line to run.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            f"{name} is not installed; run: pip install -c constraints.txt 'certus[{extra}]'"
        ) from error
