"""Lines of the user's code, for errors that name them: "at net.py:12 `code`", or "" where there is none."""

import linecache
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from traceback import FrameSummary
from types import FrameType, TracebackType

import torch
from torch import fx, nn

_HERE = str(Path(__file__).parent)
_TORCH = str(Path(torch.__file__).parent)
_PYTHON = sysconfig.get_path("stdlib")
_CELLS = ("<stdin>", "<ipython")  # code without a file; other names in <> are written by torch
_FRAME = r'File "([^"]+)", line (\d+)'
_LONGEST = 60  # characters of code


def of_node(node: fx.Node) -> str:
    """Where an operation of an exported program comes from: a line, or a part of the module."""
    found = [
        (file, int(number))
        for inner in _within(node)
        for file, number in re.findall(_FRAME, inner.meta.get("stack_trace") or "")
    ]
    parts = list((node.meta.get("nn_module_stack") or {}).values())
    path = parts[-1][0].partition("module.")[2] if parts else ""
    return _last(found) or (f"in part {path!r}" if path else f"in {node.name}")


def _within(node: fx.Node) -> Iterator[fx.Node]:
    """The node, and before it those of the programs that it calls."""
    for source in node.all_input_nodes:
        called = getattr(node.graph.owning_module, str(source.target), None)
        if source.op == "get_attr" and isinstance(called, fx.GraphModule):
            yield from called.graph.nodes
    yield node


def of_error(error: BaseException, module: nn.Module) -> str:
    """The line of the user that an error came through last, or the part of the module."""
    names = {id(part): name for name, part in module.named_modules()}
    frames = list(_frames(error.__traceback__))
    own = [names.get(id(frame.f_locals.get("self"))) for frame, _ in frames]
    part = next((name for name in reversed(own) if name), "")
    line = _last((frame.f_code.co_filename, number) for frame, number in frames)
    return line or (f"in part {part!r}" if part else "")


def of_summary(frame: object) -> str:
    """The line of a frame that torch kept, if it is the user's."""
    return _last([(frame.filename, frame.lineno or 0)]) if isinstance(frame, FrameSummary) else ""


def places(error: BaseException) -> list[str]:
    """Files and functions of torch that an error came through: "nn/modules/rnn.py:forward"."""
    codes = [frame.f_code for frame, _ in _frames(error.__traceback__)]
    inside = [code for code in codes if code.co_filename.startswith(_TORCH)]
    return [f"{code.co_filename[len(_TORCH) + 1 :]}:{code.co_name}" for code in inside]


def of_caller(frame: FrameType | None) -> str:
    """The innermost line of the user among those that call a frame, up to this package."""
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        if _own(frame.f_code.co_filename):
            return _shown(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


def _frames(found: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while found is not None:
        yield found.tb_frame, found.tb_lineno
        found = found.tb_next


def _last(frames: Iterable[tuple[str, int]]) -> str:
    own = [frame for frame in frames if _own(frame[0])]
    return _shown(*own[-1]) if own else ""


def _own(file: str) -> bool:
    """Whether a file is neither of torch, of Python nor of this package."""
    python = file.startswith(_PYTHON) and "-packages" not in file
    return file.startswith(_CELLS) or not (python or file.startswith((_HERE, _TORCH, "<")))


def _shown(file: str, number: int) -> str:
    code = linecache.getline(file, number).strip()
    code = code if len(code) <= _LONGEST else code[: _LONGEST - 3] + "..."
    return f"at {Path(file).name}:{number}" + (f" `{code}`" if code else "")
