"""Entry point: parse, call, and turn errors into one line and an exit status.

0: the job was done, whatever the verdict. 2: bad arguments or input that cannot be read or used.
1: an internal failure, such as a certificate that an attack contradicts. 130 and 141: interrupted, and nobody
reads standard output any more.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import tyro

from certus.cli.commands import (
    attack_command,
    certify_command,
    compare_command,
    data_command,
    methods_command,
    report_command,
    train_command,
)
from certus.cli.demo import demo_command
from certus.cli.progress import output, say
from certus.core import CertusError, ContradictionError
from certus.core.errors import LONGEST, one_line

_UNREAD = 141  # 128 + SIGPIPE, as shells have it

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo_command,
    "train": train_command,
    "certify": certify_command,
    "attack": attack_command,
    "compare": compare_command,
    "report": report_command,
    "methods": methods_command,
    "data": data_command,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (sys.argv by default) and return the exit status."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="certus",
            description="Certified adversarial robustness: train, certify, attack, compare, report. "
            "Start with `certus demo`.",
            args=arguments,
        )
        output().file.flush()  # a full device shows here, and not while the interpreter ends
    except BrokenPipeError:  # whoever read standard output has gone, as in `certus methods | head`
        _drop_output()
        return _UNREAD
    except (CertusError, OSError, MemoryError) as error:
        return _failed(error)
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where this one stopped")
        return 130
    return 0


def _failed(error: Exception) -> int:
    """Say what went wrong in one line; the exit status."""
    if isinstance(error, ContradictionError):
        say(f"contradiction: {error}")
        return 1
    text = str(error)
    if isinstance(error, OSError):
        _drop_output()
        text = one_line(f"{error.filename or ''} {error.strerror or error}".strip(), LONGEST)
    elif isinstance(error, MemoryError):
        text = "there is not enough memory; take fewer or smaller inputs"
    say(f"error: {text}")
    return 2


def _drop_output() -> None:
    """What standard output still holds cannot be written; the interpreter would try again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
