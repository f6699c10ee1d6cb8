"""Independent walks side by side: a thread for each core, each with single-threaded operations.

The operations of one walk are too short to be shared out among cores one by one: waking another
thread costs as much as half of the work. Whole walks are long enough.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(tasks: Sequence[Callable[[], Result]], device: torch.device) -> list[Result]:
    """The results of all tasks, in order.

    One after the other on a GPU, with a single thread, for a single task, and where gradients are
    recorded. torch's number of threads is what it was before when this returns.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(tasks) < 2 or torch.is_grad_enabled():
        return [task() for task in tasks]
    inference = torch.is_inference_mode_enabled()

    def alone(task: Callable[[], Result]) -> Result:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to a thread
            return task()

    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(alone, tasks))
    finally:
        torch.set_num_threads(threads)
