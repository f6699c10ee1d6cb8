"""Models in a form that can be sent to another process."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from certus.graph import Graph


@torch.no_grad()
def portable(model: Any) -> Any:
    """The model as it is now: parameters that are computed from others become plain ones.

    Its outputs are those of the model. Modules with parametrizations, and graphs of them, cannot be sent
    as they are. A graph and its original no longer share what was computed; nothing else is changed.
    """
    if isinstance(model, Graph):
        return replace(model.resolved(), original=portable(model.original))
    if not isinstance(model, nn.Module) or not any(map(is_parametrized, model.modules())):
        return model
    copy = deepcopy(model)
    for part in list(copy.modules()):
        if is_parametrized(part):
            _settle(part)
    return copy


def _settle(part: nn.Module) -> None:
    """Put computed values where a plain module has parameters.

    torch's own way to remove parametrizations changes the class, which a copy shares with the model.
    """
    computed = part.parametrizations
    assert isinstance(computed, nn.ModuleDict)
    values = {name: getattr(part, name) for name in computed}
    part.__class__ = type_before_parametrizations(part)
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=False))
