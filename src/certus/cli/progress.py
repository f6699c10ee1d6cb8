"""A rich progress bar with time left, as the library's progress callback."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from certus.core import Progress
from certus.core.errors import one_line

_WIDEST = 10_000  # characters: longer than any path

console = Console(stderr=True, highlight=False)


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """A bar on standard error from the first report on; one line for each task where no terminal."""
    columns = (
        TextColumn("{task.description:<34}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    shown = Bar(*columns, console=console)
    task = shown.add_task(title, total=None, note="")

    def update(done: int, total: int, note: str = "") -> None:
        shown.start()
        shown.update(task, completed=done, total=total, note=note)

    try:
        yield update
    finally:
        if shown.live.is_started:
            shown.stop()


def say(text: str) -> None:
    """One printable line on standard error."""
    console.print(one_line(text, _WIDEST), soft_wrap=True, markup=False)


class _Output(Console):
    """Leaves it to the caller that nobody reads any more: rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Rich calls this while it handles the error."""
        raise BrokenPipeError


def output() -> Console:
    """A console on standard output, for results."""
    return _Output(highlight=False, markup=False)
