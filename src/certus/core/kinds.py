"""Settings as JSON and back: a frozen dataclass is {"kind": the name of its class, **its fields}."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from certus.core.errors import ArgumentError
from certus.core.rules import Rules

Json = Any
KIND = "kind"


def to_json(value: Any) -> Json:
    """The value in the types of JSON: equal settings become equal texts, and different ones different.

    Numbers, texts, None, truth values, sequences, dicts with text keys, enumerations, dtypes and
    dataclasses of these; a number that JSON lacks is {"kind": "float", "value": "inf"}. Of an array
    stand dtype, shape and a hash. Raises ArgumentError for anything else, such as a function: what
    computes a row must be told by its settings.
    """
    if value is None or (isinstance(value, bool | int | str) and not isinstance(value, Enum)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {KIND: "float", "value": repr(value)}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple | frozenset | set):
        ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [to_json(part) for part in ordered]
    return _of_object(value)


def _of_object(value: Any) -> Json:
    kind = {KIND: type(value).__name__}
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return _of_array(value)
    if isinstance(value, torch.dtype):
        return kind | {"name": str(value)}
    if isinstance(value, Enum | Rules):  # a table of rules is told by its name
        return kind | {"name": value.name}
    if is_dataclass(value) and not isinstance(value, type):
        return kind | {f.name: to_json(getattr(value, f.name)) for f in fields(value) if f.init}
    raise ArgumentError(
        f"{type(value).__name__} cannot be told as settings: make it a frozen dataclass of numbers and texts"
    )


def _of_array(value: Tensor | np.ndarray | np.generic) -> Json:
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if array.ndim == 0:
        return to_json(array.item())
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
    return {KIND: "array", "dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest}


def text(value: Any) -> str:
    """`to_json` as text that is the same for the same settings."""
    return json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=4096)
def parsed(told: str) -> Json:
    """What a text of `text` says; not to be changed. ArgumentError where it is not JSON."""
    try:
        return json.loads(told)
    except (ValueError, RecursionError):
        raise ArgumentError(f"not JSON: {told[:60]!r}") from None


class Kinds:
    """The dataclasses that JSON may name, by the names of their classes: nothing else is ever made."""

    def __init__(self, *classes: type) -> None:
        self._classes = {kind.__name__: kind for kind in classes}

    def __contains__(self, kind: object) -> bool:
        """Whether objects of this kind can be made."""
        return kind in self._classes

    def from_json(self, told: Json) -> Any:
        """The value that `to_json` told of.

        Raises ArgumentError for a kind that is not among these (an array, too: a hash is no array) and
        for fields that its class refuses.
        """
        if isinstance(told, list):
            return tuple(self.from_json(part) for part in told)
        if not isinstance(told, dict):
            return told
        if KIND not in told:
            return {name: self.from_json(part) for name, part in told.items()}
        rest = {name: part for name, part in told.items() if name != KIND}
        if told[KIND] == "float" and rest.get("value") in ("inf", "-inf", "nan"):
            return float(rest["value"])
        kind = self._classes.get(told[KIND]) if isinstance(told[KIND], str) else None
        if kind is None:
            raise ArgumentError(f"there is no kind {str(told[KIND])[:40]!r} here")
        try:
            return kind(**{name: self.from_json(part) for name, part in rest.items()})
        except TypeError as error:
            raise ArgumentError(f"{told[KIND]}: {error}") from None
