"""Children that are timed in turn, and what comes out of it."""

import json
import os
import select
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """What every child is told.

    data and peer: folders or None. limit: seconds that one case of one engine may take. seconds and
    repeats: a case is repeated until either is used up. memory: GiB of address space.
    """

    data: str | None
    peer: str | None
    limit: float
    seconds: float
    repeats: int
    threads: int
    memory: float
    keep_heap: bool


@dataclass
class Measured:
    """Seconds and MiB of one engine on one case; `error` says why there are none.

    multiply_adds: what Certus needed at least (`limits.py`), NaN for others.
    """

    seconds: list[float] = field(default_factory=list)
    peak: float = float("nan")
    multiply_adds: float = float("nan")
    lower: list[list[float]] | None = None
    error: str = ""

    @property
    def milliseconds(self) -> float:
        """The median."""
        return 1000 * statistics.median(self.seconds) if self.seconds else float("nan")


class Child:
    """One engine on one case in a process of its own."""

    def __init__(self, engine: str, net: str, method: str, batch: int, setting: Setting) -> None:
        paths = [str(HERE)] + ([setting.peer] if setting.peer else [])
        inherited = os.environ.get("PYTHONPATH")
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(paths + ([inherited] if inherited else [])),
            "OMP_NUM_THREADS": str(setting.threads),
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        self.engine, self.setting, self.left = engine, setting, setting.limit
        self.result = Measured()
        asked = {"engine": engine, "net": net, "method": method, "batch": batch}
        told = {name: getattr(setting, name) for name in ("data", "threads", "memory", "keep_heap")}
        self.eps = self._ask("setup", **asked, **told).get("eps", float("nan"))

    def step(self) -> bool:
        """One measured call; the first is the warm-up and gives the memory. False when it is enough."""
        if self.result.error:
            return False
        first = self.result.peak != self.result.peak
        answer = self._ask("run")
        if self.result.error:
            return False
        if first:
            self.result.peak = answer["peak"]
            # a call so long that no second one fits stands for itself
            if answer["seconds"] > min(self.setting.seconds, self.left):
                self.result.seconds.append(answer["seconds"])
                return False
            return True
        self.result.seconds.append(answer["seconds"])
        spent = sum(self.result.seconds)
        return len(self.result.seconds) < self.setting.repeats and spent < self.setting.seconds

    def finish(self, want_lower: bool = True) -> Measured:
        """What was measured; the process ends."""
        if self.result.seconds and want_lower:
            self.result.lower = self._ask("lower").get("lower")
        if self.result.seconds and self.engine == "certus":
            self.result.multiply_adds = self._ask("facts").get("multiply_adds", float("nan"))
        self.close()
        return self.result

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()

    def _ask(self, do: str, **asked: Any) -> dict[str, Any]:
        start = time.perf_counter()
        assert self.process.stdin is not None and self.process.stdout is not None
        answer: dict[str, Any] = {}
        try:
            self.process.stdin.write(json.dumps({"do": do} | asked) + "\n")
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], max(1.0, self.left))
            line = self.process.stdout.readline() if ready else ""
            if not ready:
                self.result.error = f"> {self.setting.limit:g} s"
                self.process.kill()
            elif not line:
                self.result.error = "died (memory?)"
        except BrokenPipeError:
            self.result.error, line = "died (memory?)", ""
        if line:
            answer = json.loads(line)
            self.result.error = answer.pop("error", "")
        self.left -= time.perf_counter() - start if do != "setup" else 0.0
        return answer


def pair(children: list[Child]) -> None:
    """Run the children in turn until each has enough."""
    running = list(children)
    while running:
        running = [child for child in running if child.step()]
