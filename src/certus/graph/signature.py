"""All that a module's answer visibly rests on, in a form that can be compared later."""

import array
import enum
import functools
import sys
import types
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

BEYOND = "more than is compared"
_MOST = 20_000  # entries
_LONG = 256  # containers of more plain values are compared as a whole
_READ = 4096  # values of a tensor that a forward pass may have read as numbers
_PLAIN = (int, float, complex, str, bytes, type(None), torch.dtype, torch.device, enum.Enum, range)
_LIBRARIES = {"torch", "numpy", "certus", "builtins", "logging", "threading", "onnxruntime"}
# of every module: whether it trains is asked elsewhere, and gradients and files change no answer
_IRRELEVANT = {"training", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"}
_IRRELEVANT |= {"_state_dict_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks"}
_IRRELEVANT |= {"_load_state_dict_post_hooks", "_non_persistent_buffers_set", "__weakref__"}
_UNCALLED = {"__init__", "__repr__", "extra_repr", "__doc__", "__module__", "__dict__"}


class Same:
    """An object itself, kept alive so that no other takes its identity."""

    __slots__ = ("thing",)

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        """By identity."""
        return isinstance(other, Same) and self.thing is other.thing

    __hash__ = None  # type: ignore[assignment]


def signature(module: nn.Module) -> dict[str, Any]:
    """From the names of a module's values to what is compared of them, for all that it reaches.

    Parameters count by identity: their values may change in place, which a graph follows. Every other
    tensor counts by identity, storage and number of writes, a small one by its values too. Where there
    is more than is compared, an entry BEYOND is equal to nothing. Seen are attributes and sub-modules, hooks,
    methods, and what functions read from closures, defaults and globals; values that are files, the
    environment or inside of compiled code are not.
    """
    found: dict[str, Any] = {}
    seen: dict[int, Any] = {}  # with the objects, so that no other takes their identity meanwhile
    left = deque([("", module), ("global hooks", _global_hooks())])
    while left and len(found) < _MOST:
        path, value = left.popleft()
        while path in found:  # a key 1 beside a key "1", a closure's name beside a global one
            path += "'"
        found[path] = _token(value)
        if isinstance(value, _PLAIN) or id(value) in seen:
            continue
        seen[id(value)] = value
        left.extend((f"{path}.{name}" if path else name, part) for name, part in _parts(value))
    if left:
        found[BEYOND] = object()
    return found


def _global_hooks() -> list[Any]:
    """torch's hooks on all modules."""
    names = ("_global_forward_hooks", "_global_forward_pre_hooks")
    return [dict(getattr(torch_module, name, {})) for name in names]


@functools.singledispatch
def _token(value: Any) -> Any:
    """What is compared of one value, its parts apart."""
    if isinstance(value, _PLAIN):
        return type(value), repr(value)  # so that NaN equals itself, and -0.0 not 0.0
    if isinstance(value, bytearray | memoryview | array.array):
        return type(value), zlib.crc32(memoryview(value))
    return Same(value)


@_token.register(Tensor)
def _token_of_tensor(value: Tensor) -> Any:
    if isinstance(value, nn.Parameter):
        return Same(value), value.shape, value.dtype
    writes = -1 if value.is_inference() else value._version
    place = value.data_ptr() if type(value) is Tensor and not value.is_sparse else 0
    return Same(value), value.shape, value.dtype, writes, place, _content(value)


def _content(value: Tensor) -> int:
    """Of what may have been read as numbers, whose writes by `.data` or numpy do not count."""
    plain = type(value) is Tensor and value.layout is torch.strided and value.device.type == "cpu"
    if not plain or not 0 < value.numel() <= _READ:
        return 0
    return zlib.crc32(value.detach().contiguous().view(-1).view(torch.uint8).numpy().data)


@_token.register(np.ndarray)
def _token_of_array(value: np.ndarray) -> Any:
    content = 0 if value.dtype.hasobject else zlib.crc32(np.ascontiguousarray(value).data)
    return value.shape, value.dtype, content


@_token.register(list)
@_token.register(tuple)
@_token.register(dict)
@_token.register(deque)
def _token_of_container(value: Any) -> Any:
    return type(value), len(value), zlib.crc32(repr(value).encode()) if _flat(value) else 0


@_token.register(set)
@_token.register(frozenset)
def _token_of_set(value: Any) -> Any:
    return type(value), sorted(map(repr, value))


@_token.register(types.MethodType)
@_token.register(functools.partial)
def _token_of_bound(value: Any) -> Any:
    return type(value)  # made anew at each look; its parts count


@_token.register(types.FunctionType)
def _token_of_function(value: types.FunctionType) -> Any:
    return Same(value.__code__)


def _flat(value: Any) -> bool:
    """Whether a long container holds nothing but plain values, so that it is compared as a whole.

    A short one is not: one of its values may be a counter, which calls change, and the others settings.
    """
    if not isinstance(value, list | tuple | dict) or len(value) <= _LONG:
        return False
    parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return all(isinstance(part, _PLAIN) for part in parts)


_Parts = Iterable[tuple[str, Any]]


@functools.singledispatch
def _parts(value: Any) -> _Parts:
    """The values that a value consists of, by name."""
    return _of_object(value)


@_parts.register(np.ndarray)
def _of_array(value: np.ndarray) -> _Parts:
    return _numbered(value.ravel().tolist()) if value.dtype.hasobject else ()


@_parts.register(types.BuiltinMethodType)
def _of_builtin(value: Any) -> _Parts:
    return (("self", value.__self__),) if isinstance(value.__self__, list | dict | tuple) else ()


@_parts.register(Tensor)
@_parts.register(set)
@_parts.register(frozenset)
def _nothing(value: Any) -> _Parts:
    return ()


@_parts.register(dict)
def _of_dict(value: dict[Any, Any]) -> _Parts:
    if not _flat(value):
        yield from ((f"[{key!r}]", part) for key, part in value.items())
    yield from getattr(value, "__dict__", {}).items()


@_parts.register(list)
@_parts.register(tuple)
@_parts.register(deque)
def _of_list(value: Any) -> _Parts:
    if not _flat(value):
        yield from _numbered(value)
    yield from getattr(value, "__dict__", {}).items()


def _numbered(values: Iterable[Any]) -> _Parts:
    return ((str(i), part) for i, part in enumerate(values))


@_parts.register(types.MethodType)
@_parts.register(staticmethod)
@_parts.register(classmethod)
def _of_method(value: Any) -> _Parts:
    return (("function", value.__func__), ("self", getattr(value, "__self__", None)))


@_parts.register(functools.partial)
def _of_partial(value: Any) -> _Parts:
    return (("function", value.func), ("args", value.args), ("keywords", value.keywords))


@_parts.register(property)
def _of_property(value: property) -> _Parts:
    return (("get", value.fget),)


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes and class of an object; of a library's own only modules and distributions are opened."""
    opened = isinstance(value, nn.Module | torch.distributions.Distribution)
    if isinstance(value, types.ModuleType) or (_foreign(type(value)) and not opened):
        return
    yield "class", type(value)
    own = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                own[name] = getattr(value, name)
    for name, part in own.items():
        if name in ("_parameters", "_buffers", "_modules"):
            yield from part.items()
        elif name not in _IRRELEVANT and not (isinstance(part, dict) and not part):
            yield name, part


@_parts.register(type)
def _of_class(kind: type) -> Iterator[tuple[str, Any]]:
    """What a class and its bases define; of a library's classes only which function is called."""
    for base in kind.__mro__:
        if _foreign(base):
            yield f"{base.__name__}.forward", getattr(kind, "forward", None)
            return
        for name, part in vars(base).items():
            if name not in _UNCALLED and name not in _IRRELEVANT:
                yield f"{base.__name__}.{name}", part


@_parts.register(types.FunctionType)
def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Defaults, closure, and the globals that a function's code names; nothing of a library's."""
    if _foreign(function):
        return
    yield "defaults", function.__defaults__
    yield "keywords", function.__kwdefaults__
    yield "attributes", function.__dict__
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            yield name, None
    names = _names(function.__code__)
    for name in names:
        part = function.__globals__.get(name, sys.modules.get(name))  # imported outside, or inside
        if isinstance(part, types.ModuleType):
            yield from _of_named(part, name, names)
        elif part is not None:
            yield name, part


def _of_named(module: types.ModuleType, path: str, names: list[str]) -> Iterator[tuple[str, Any]]:
    """What of a module, and of modules that it names, a code may read; nothing of a library's."""
    if module.__name__.partition(".")[0] in _LIBRARIES:
        return
    for name in names:
        part = vars(module).get(name)
        if isinstance(part, types.ModuleType) and part is not module:
            yield from _of_named(part, f"{path}.{name}", [n for n in names if n != name])
        elif part is not None:
            yield f"{path}.{name}", part


def _names(code: types.CodeType) -> list[str]:
    """Global names and attributes in a code and in the functions that it defines."""
    found = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found += _names(constant)
    return list(dict.fromkeys(found))


def _foreign(thing: Any) -> bool:
    """Whether a class or function belongs to a library, which does not change."""
    return str(getattr(thing, "__module__", "") or "builtins").partition(".")[0] in _LIBRARIES
