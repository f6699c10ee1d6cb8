"""A child process of the benchmark: prepares one case, then runs it whenever it is asked to.

Started by `measure.Child`. Reads one JSON object a line from standard input, answers with one a line:
{"do": "setup", ...} -> {"baseline": MiB}; {"do": "run"} -> {"seconds", "peak"}; {"do": "lower"} ->
{"lower": [[...]]}; {"do": "facts"} -> {"multiply_adds": count}. Errors come back as {"error": text}.
"""

import ctypes
import json
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

_HEAP = 1 << 30  # bytes: blocks below this come from the heap, which is never given back


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the engines print must not mix with the answers
    warnings.simplefilter("ignore")
    serve = _Server()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = getattr(serve, asked.pop("do"))(**asked)
        except MemoryError as error:
            answer = {"error": f"out of memory: {error}"[:120]}
        except Exception as error:  # the parent reports it in the table
            text = str(error).splitlines() or [""]
            kind = "out of memory" if "alloc" in str(error) else type(error).__name__
            answer = {"error": f"{kind}: {text[0]}"[:120]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class _Server:
    run_once: Any

    def setup(self, **asked: Any) -> dict[str, Any]:
        """Import, build, prepare; {"baseline": resident MiB}."""
        if asked["keep_heap"]:
            keep_heap()
        limit = int(asked["memory"] * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        import torch

        torch.set_num_threads(asked["threads"])
        from engines import ENGINES, timed
        from nets import load_case
        from train_step import make_step

        self.timed = timed
        data = Path(asked["data"]) if asked["data"] else None
        self.case = load_case(asked["net"], asked["batch"], data)
        step, _, engine = asked["engine"].rpartition(":")
        if step:
            self.run_once = make_step(engine, self.case, asked["method"])
        else:
            self.run_once = ENGINES[engine](self.case, asked["method"])
        return {"baseline": resident(), "eps": self.case.eps}

    def run(self) -> dict[str, Any]:
        """One call; seconds, and MiB of peak memory above what was resident before."""
        before = resident()
        reset_peak()
        seconds, self.found = self.timed(self.run_once)
        return {"seconds": seconds, "peak": peak() - before}

    def lower(self) -> dict[str, Any]:
        """What the last call returned."""
        return {"lower": self.found.tolist()}

    def facts(self) -> dict[str, Any]:
        """Multiply-adds that the last call needed at least."""
        return {"multiply_adds": self.run_once.multiply_adds()}


def keep_heap() -> None:
    """Tell glibc to keep freed memory, so that a large temporary is not faulted in anew each time."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, _HEAP)  # M_MMAP_THRESHOLD
    libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _status(field: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def resident() -> float:
    """MiB of this process in memory."""
    return _status("VmRSS")


def peak() -> float:
    """The most MiB of this process in memory since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Start a new peak (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
