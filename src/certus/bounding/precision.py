"""What torch's settings make of products of float32."""

from typing import Any

import torch

from certus.core import UnsupportedError

_WAYS = {"highest": "ieee", "high": "tf32", "medium": "bf16"}


def precisions(device: torch.device) -> set[str]:
    """How torch's settings allow products of float32 on a device: ieee (or none), tf32, bf16."""
    backends: Any = torch.backends
    places = [backends, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    if device.type != "cpu":
        places += [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    found = {str(getattr(place, "fp32_precision", "none")) for place in places}
    try:  # the older interface cannot be read where settings of the newer one contradict it
        found.add(_WAYS[torch.get_float32_matmul_precision()])
        if device.type != "cpu" and (backends.cudnn.allow_tf32 or backends.cuda.matmul.allow_tf32):
            found.add("tf32")
    except RuntimeError:
        pass
    return found


def refuse_autocast(device: torch.device) -> None:
    """UnsupportedError under autocast, where model and bounds would compute in another type."""
    if torch.is_autocast_enabled(device.type):
        raise UnsupportedError(
            "bounds do not run under autocast; leave the block, or cast the model itself"
        )
