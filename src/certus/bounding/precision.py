"""What torch's settings make of products of float32."""

from typing import Any

import torch

from certus.core import UnsupportedError


def precisions(device: torch.device) -> set[str]:
    """How torch's settings allow products of float32 on a device: ieee (or none), tf32, bf16."""
    backends: Any = torch.backends
    places = [backends, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn]
    if device.type != "cpu":
        places += [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    found = {str(getattr(place, "fp32_precision", "none")) for place in places}
    try:
        chosen = torch.get_float32_matmul_precision()
    except (
        RuntimeError
    ):  # settings of the older interface are not kept beside those of the newer one
        return found
    return found | {{"highest": "ieee", "high": "tf32", "medium": "bf16"}[chosen]}


def refuse_autocast(device: torch.device) -> None:
    """UnsupportedError under autocast, where model and bounds would compute in another type."""
    if torch.is_autocast_enabled(device.type):
        raise UnsupportedError(
            "bounds do not run under autocast; leave the block, or cast the model itself"
        )
