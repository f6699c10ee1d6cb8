"""Entry point: parse, call, and turn errors into one line and an exit status.

0: the job was done, whatever the verdict. 2: bad arguments or input that cannot be read or used.
1: an internal failure, such as a certificate that an attack contradicts.
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
from certus.cli.progress import say
from certus.core import CertusError, ContradictionError

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
        sys.stdout.flush()  # a full device shows here, and not while the interpreter ends
    except ContradictionError as error:
        say(f"contradiction: {error}")
        return 1
    except CertusError as error:
        say(f"error: {error}")
        return 2
    except OSError as error:
        _drop_output()
        say(f"error: {error.filename or ''} {error.strerror or error}".replace("  ", " "))
        return 2
    except KeyboardInterrupt:
        say("interrupted; the same command goes on where this one stopped")
        return 130
    return 0


def _drop_output() -> None:
    """What standard output still holds cannot be written; the interpreter would try again at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
