"""Parcels: what processes of one run send to each other; never anything that a user hands over."""

import io
from copyreg import dispatch_table
from multiprocessing.reduction import ForkingPickler
from typing import Any


class _ByValue(ForkingPickler):
    """As `multiprocessing` packs, but tensors by value: shared memory is scarce, and ends with its maker."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.dispatch_table = dispatch_table.copy()


def pack(content: Any) -> bytes:
    """The content as bytes for another process of this run; raises what its parts raise."""
    buffer = io.BytesIO()
    _ByValue(buffer).dump(content)
    return buffer.getvalue()


def unpack(parcel: bytes) -> Any:
    """What was packed by another process of this run."""
    return ForkingPickler.loads(parcel)
