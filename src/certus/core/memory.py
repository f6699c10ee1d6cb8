"""Memory: what the C library does with blocks that are freed, where that costs more than the computation."""

import torch

_BLOCK = 31 * 2**20  # bytes; glibc takes no larger block as a measure (DEFAULT_MMAP_THRESHOLD_MAX)


def keep_freed() -> None:
    """Have glibc keep up to 62 MiB of freed memory in each arena instead of returning it to the system.

    It keeps twice the largest block that was ever mapped and freed (mallopt(3), M_MMAP_THRESHOLD), so
    mapping a large one once and never touching it is enough. Without it the values of a network fault in
    page by page in every call: CNN-A takes twice as long. Elsewhere this does nothing.
    """
    torch.empty(_BLOCK, dtype=torch.uint8)
