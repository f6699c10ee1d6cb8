"""A worker process: its main loop, and the handle that the main process has on it."""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Thread

import torch

from certus.evaluation.block import Block, Work
from certus.evaluation.parcel import pack, unpack

READY = b"ready"


class Worker:
    """One worker process: `task` is the number of the block that it computes, None where it is free.

    `ready` turns True with its first message. The process cannot outlive the main one.
    """

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # forked copies of torch's threads hang
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(theirs, threads), daemon=True, name="certus-worker"
        )
        with _no_interrupts():
            self.process.start()
        theirs.close()
        self.ready = False
        self.task: int | None = None
        self._has: bytes | None = None

    def give(self, number: int, block: Block, work: bytes) -> None:
        """Send a block, and the packed work where the worker lacks it.

        That it died is heard from its pipe, as at any other time.
        """
        self.task = number
        parcel = pack((None if self._has is work else work, block))
        self._has = work
        with suppress(OSError):
            self.pipe.send_bytes(parcel)

    def stop(self) -> str:
        """End the process at once; in words, how it ended."""
        alive = self.process.is_alive()
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        self.pipe.close()
        self.process.close()
        if alive:
            return "it was stopped"
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def serve(pipe: "Connection[bytes, bytes]", threads: int) -> None:
    """What a worker process does: compute the blocks that it is sent until the main process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # multiprocessing may lift the block below
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    work: Work | None = None
    with suppress(EOFError, OSError):
        pipe.send_bytes(READY)
        while True:
            work, answer = _answer(work, pipe.recv_bytes())
            pipe.send_bytes(answer)


def _answer(work: Work | None, parcel: bytes) -> tuple[Work | None, bytes]:
    """The packed rows of the block in a parcel, or the packed exception; and the work from now on."""
    try:
        packed, block = unpack(parcel)
        if packed is not None:
            work = unpack(packed)
        assert work is not None
        return work, pack(work.rows(block))
    except Exception as error:
        return work, _packed_error(error)


def _packed_error(error: Exception) -> bytes:
    error.add_note("In a worker process:\n" + "".join(traceback.format_exception(error)))
    try:
        parcel = pack(error)
        unpack(parcel)  # some pack but cannot be made anew
    except Exception:
        return pack(RuntimeError(f"{type(error).__name__}: {error}"))
    return parcel


def _end_with_parent() -> None:
    """However the main process ends, also in the middle of a block."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _no_interrupts() -> Iterator[None]:
    """What starts here never sees Ctrl-C, which goes to all processes of a terminal: the main one decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
