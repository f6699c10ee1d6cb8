"""Witnesses as bytes: the counterexamples that a ledger keeps."""

import io

import numpy as np
import torch
from torch import Tensor

from certus.core import FileError

WITNESS = "witness"
"""The key of a row, beside its columns, under which its witness goes to the ledger."""


def packed(witness: Tensor) -> bytes:
    """A counterexample [*shape] in numpy's own format; bfloat16, which numpy lacks, as float32."""
    value = witness.detach().cpu()
    kept = io.BytesIO()
    held = value.float() if value.dtype == torch.bfloat16 else value
    np.save(kept, held.numpy(), allow_pickle=False)
    return kept.getvalue()


def unpacked(kept: bytes) -> Tensor:
    """What `packed` packed; FileError for anything else."""
    try:
        return torch.from_numpy(np.load(io.BytesIO(kept), allow_pickle=False))
    except (ValueError, EOFError, OSError, TypeError) as error:
        raise FileError(f"a counterexample in the ledger is damaged ({error})") from None
