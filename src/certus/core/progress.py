"""How long work reports that it advances; the library never prints."""

from typing import Protocol


class Progress(Protocol):
    """Called with the amount done, the total, and a short note such as `certified 41/64`."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report progress."""


def silent(done: int, total: int, note: str = "") -> None:
    """The default: report nothing."""
