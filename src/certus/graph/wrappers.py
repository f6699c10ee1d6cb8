"""Modules of torch that only hand their input on to another module, which is captured in their place."""

from torch import nn

# by name, because importing some of them takes seconds
_WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that compute the same; one with hooks or its own forward stays as it is."""
    while not (module._forward_hooks or module._forward_pre_hooks):
        name = _WRAPPERS.get(f"{type(module).__module__}.{type(module).__qualname__}")
        if name is None or not str(module.forward.__module__).startswith("torch."):
            break
        module = getattr(module, name)
    return module
