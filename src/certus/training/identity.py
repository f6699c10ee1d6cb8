"""Identity: a hash of values, modules and functions that is the same in another process, or a refusal."""

import enum
import functools
import hashlib
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from certus.core import ArgumentError

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), PurePath)
_NAMED = (torch.dtype, torch.device, torch.layout, torch.memory_format, np.dtype)
_TRUSTED = ("certus", "torch", "numpy", "builtins", "abc", "typing", "functools", "collections")
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)
_HEAP = 1 << 9  # Py_TPFLAGS_HEAPTYPE: the class was written in Python
_UNSAID = ("_abc_impl", "_is_full_backward_hook", "_non_persistent_buffers_set")


def identity(value: object, name: str) -> str:
    """SHA-256 (first 16 hex digits) of all that decides how a value behaves.

    Numbers, text, tensors (every element), arrays, containers, dataclasses (every field), modules
    (class, tensors, what trains, plain attributes, parts, hooks), other objects by class and
    attributes. A class or function outside of installed packages counts with its code, not with the
    globals that it reads. name: of the value, for errors. Raises ArgumentError that names what has no
    identity beyond this process: a lambda, a function made inside another one, a generator, a handle.
    """
    found = _Identity()
    found.add(value, name)
    return found.digest.hexdigest()[:16]


class _Identity:
    """One walk; an object that was met before counts by its number, so cycles end."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.seen: dict[int, tuple[int, object]] = {}

    def add(self, value: Any, name: str) -> None:
        """Digest a value, in front of it what it is."""
        if isinstance(value, enum.Enum):
            self.text("enum", _name_of(type(value)), value.name)
        elif isinstance(value, _PLAIN):
            self.text(type(value).__name__, repr(value))
        elif isinstance(value, _NAMED):
            self.text(str(value))
        elif id(value) in self.seen:
            self.text("again", str(self.seen[id(value)][0]))
        else:
            self.seen[id(value)] = (len(self.seen), value)  # held, so that the id stays its own
            self.held(value, name)

    def text(self, *parts: str) -> None:
        """Digest text so that no two lists of parts look alike."""
        for part in parts:
            data = part.encode()
            self.digest.update(f"{len(data)}:".encode() + data)

    def held(self, value: Any, name: str) -> None:
        """Digest a value that holds others."""
        for kinds, take in _TAKES:
            if isinstance(value, kinds):
                return take(self, value, name)
        return self.record(value, name)

    def tensor(self, value: Tensor, name: str) -> None:
        """Type, shape, every element, and whether it trains."""
        self.text("tensor", str(value.dtype), str(tuple(value.shape)), str(value.requires_grad))
        plain = value.detach().cpu().contiguous().flatten().clone()
        self.digest.update(plain.view(torch.uint8).numpy().tobytes())
        for hooks in (value._backward_hooks, getattr(value, "_post_accumulate_grad_hooks", None)):
            self.ordered(list((hooks or {}).values()), f"a hook of {name}")

    def array(self, value: Any, name: str) -> None:
        """As a tensor; arrays of objects are refused."""
        if value.dtype.hasobject:
            raise _nameless(name, value)
        self.text("array", str(value.dtype), str(value.shape))
        self.digest.update(np.ascontiguousarray(value).tobytes())

    def ordered(self, value: Iterable[Any], name: str) -> None:
        """A list, a tuple, or a range, and what a class of its own adds."""
        parts = list(value)
        self.text("ordered", _name_of(type(value)), str(len(parts)))
        for number, part in enumerate(parts):
            self.add(part, f"{name}[{number}]")

    def unordered(self, value: Iterable[Any], name: str) -> None:
        """A set, in an order of its own making."""
        self.ordered(sorted(identity(part, name) for part in value), name)

    def mapping(self, value: Mapping[Any, Any], name: str) -> None:
        """In the order of the mapping: it may decide the order of evaluation."""
        self.text(_name_of(type(value)))
        self.members(value.items(), name)

    def members(self, pairs: Iterable[tuple[Any, Any]], name: str) -> None:
        """Keys with their values."""
        held = list(pairs)
        self.text("members", str(len(held)))
        for key, part in held:
            self.add(key, name)
            self.add(part, f"{name}.{key}" if isinstance(key, str) else f"{name}[{key!r}]")

    def generator(self, value: torch.Generator, name: str) -> None:
        """Where its stream stands."""
        self.tensor(value.get_state(), name)

    def method(self, value: types.MethodType, name: str) -> None:
        """Of which object, and which one."""
        self.add(value.__self__, name)
        self.add(value.__func__, name)

    def partial(self, value: Any, name: str) -> None:
        """functools.partial."""
        self.members([("func", value.func), ("args", value.args), ("kw", value.keywords)], name)

    def builtin(self, value: Any, name: str) -> None:
        """A function of an extension; of an object only with that object."""
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType | type):
            self.add(owner, name)
        where = getattr(value, "__module__", None) or getattr(owner, "__name__", "")
        self.text("builtin", str(where), getattr(value, "__qualname__", value.__name__))

    def function(self, value: types.FunctionType, name: str) -> None:
        """By name and code; what closes over variables is refused, since they are no settings."""
        if value.__name__ == "<lambda>":
            raise _nameless(name, value)
        self.closed(value, name)
        self.text("function", value.__module__ or "", value.__qualname__)
        if not _trusted(value.__module__):
            self.code(value.__code__, name)
            self.add(value.__defaults__, name)
            self.add(value.__kwdefaults__, name)

    def closed(self, value: types.FunctionType, name: str) -> None:
        """Refuse a function that reads variables of the function around it."""
        if set(value.__code__.co_freevars) - {"__class__"}:
            raise _nameless(name, value)

    def code(self, value: types.CodeType, name: str) -> None:
        """Instructions, names and constants; not line numbers."""
        self.text("code", value.co_code.hex(), repr(value.co_names), repr(value.co_varnames))
        for constant in value.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant, name)
            else:
                self.add(constant, name)

    def kind(self, value: type, name: str) -> None:
        """A class: its name, and the code and settings of those that are no part of a package."""
        self.text("class", _name_of(value))
        for part in value.__mro__:
            if not _trusted(part.__module__):
                self.text(_name_of(part))
                for key, held in sorted(vars(part).items()):
                    self.attribute(key, held, f"{name}.{key}")

    def attribute(self, key: str, held: Any, name: str) -> None:
        """One entry of a class."""
        if isinstance(held, property | functools.cached_property):
            held = held.fget if isinstance(held, property) else held.func
        held = getattr(held, "__func__", held)  # of static and class methods
        held = getattr(held, "__wrapped__", held)
        if isinstance(held, types.FunctionType):
            if held.__code__.co_filename != "<string>":  # else dataclass wrote it from the fields
                self.text(key)
                self.closed(held, name)
                self.code(held.__code__, name)
        elif not (key.startswith("__") or key in _UNSAID or isinstance(held, _DESCRIPTORS)):
            self.text(key)
            self.add(held, name)

    def module(self, value: nn.Module, name: str) -> None:
        """Class, attributes, tensors, parts and hooks."""
        self.kind(type(value), name)
        for key, held in sorted(vars(value).items()):
            if "_hooks" in key:  # counted through the whole process
                self.ordered(list(held.values()), f"a hook of {name}")
            elif key not in _UNSAID:
                self.text(key)
                self.add(held, f"{name}.{key}")

    def record(self, value: Any, name: str) -> None:
        """A dataclass or an object written in Python, by its class and all its attributes."""
        cls = type(value)
        kinds = [c for c in cls.__mro__ if c is not object]
        slotted = [c for c in kinds if "__slots__" in vars(c)]
        if not (
            all(c.__flags__ & _HEAP for c in kinds) and (slotted or hasattr(value, "__dict__"))
        ):
            raise _nameless(name, value)
        own = dict(getattr(value, "__dict__", {}))
        for part in slotted:
            names = vars(part)["__slots__"]
            names = (names,) if isinstance(names, str) else names
            own |= {k: getattr(value, k) for k in names if hasattr(value, k) and k[:2] != "__"}
        self.kind(cls, name)
        self.members(sorted(own.items()), name)


_TAKES: tuple[tuple[Any, Callable[[_Identity, Any, str], None]], ...] = (
    (Tensor, _Identity.tensor),
    (np.ndarray | np.generic, _Identity.array),
    (nn.Module, _Identity.module),
    (torch.Generator, _Identity.generator),
    (list | tuple | range, _Identity.ordered),
    (set | frozenset, _Identity.unordered),
    (Mapping, _Identity.mapping),
    (type, _Identity.kind),
    (types.MethodType, _Identity.method),
    (types.FunctionType, _Identity.function),
    (types.BuiltinFunctionType | types.MethodDescriptorType, _Identity.builtin),
    (functools.partial, _Identity.partial),
)


def _nameless(name: str, value: object) -> ArgumentError:
    return ArgumentError(
        f"a snapshot cannot tell whether {name} is the same in another run ({_shown(value)}); make it "
        "a function at the top of a file, a dataclass or a module, or train without a snapshot"
    )


def _shown(value: object) -> str:
    named = getattr(value, "__qualname__", None)
    return str(named) if named else f"an object of {_name_of(type(value))}"


def _name_of(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _trusted(module: str | None) -> bool:
    return (module or "").split(".")[0] in _TRUSTED
