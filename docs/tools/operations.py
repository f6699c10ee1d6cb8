"""Writes docs/operations.md from the tables of rules: `make operations`."""

from pathlib import Path

from docs.tools.examples import example_of
from docs.tools.support import COLUMNS, cells, operations, refusal, written_with

import certus.graph.onnx.builders  # noqa: F401  (fills the tables of ONNX)
from certus.graph.builders import BUILDERS as TORCH
from certus.graph.onnx.table import BUILDERS as ONNX
from certus.graph.op import Affine, Op

PAGE = Path(__file__).resolve().parents[1] / "operations.md"

HEAD = """\
# Operations and methods

Written by `make operations` from the tables of rules in the code. A test fails where this page is out of
date, and tries every claim of the first two tables on a small example.

Whatever is captured from PyTorch or read from an ONNX file becomes a graph of the operations below. What each
method does with them:

| entry | meaning |
| --- | --- |
| exact | no loss at this operation |
| yes | supported |
| relaxed | replaced by linear bounds below and above it |
| own slopes | relaxed, and every bound improves the lower slope for itself |
| interval | the method goes on from the operation's interval: sound, but dependences before it are lost |
| ibp alone | `rigorous=True` works with `ibp`, not with `crown` |
| no | refused, with the name of the operation |

The column `crown` is also about `crown-ibp`, `fast-lin`, `wong-kolter`, `deeppoly`, `sdp-crown`, `lp` and
`tightest`. `lp` adds the second lower line of ReLU and leaky ReLU and every member of a max pooling window;
`sdp-crown` adds the L2 ball of a layer at ReLU and leaky ReLU. `rigorous` is about `rigorous=True` of `ibp`,
`crown-ibp`, `crown` and `alpha-crown`. `lipschitz` is no where a function has no finite slope. Attacks and
`smoothing` work with every operation.
"""

SOURCES = """\
## From PyTorch and ONNX

The operations that a function or an operator is written with; the arguments of a call may ask for some of
them alone. Modules arrive as functions: `nn.LSTM` as `lstm`, `nn.MultiheadAttention` and
`nn.TransformerEncoderLayer` as `linear`, `scaled_dot_product_attention` (or `bmm` and `softmax`) and
`layer_norm`. What a network computes without its input (weights from weights, shapes, masks, ranges) is
evaluated, whatever it uses: by torch, or by onnxruntime, with any operator that it has for these types.

Refused, with the line of your code or the name of the ONNX node: what is not listed, decisions on values,
results whose size depends on values, and whatever mixes the inputs of a batch.
"""


def page() -> str:
    """The whole page."""
    affine = [kind for kind in operations() if issubclass(kind, Affine)]
    others = [kind for kind in operations() if not issubclass(kind, Affine)]
    parts = [
        HEAD,
        f"## Affine operations\n\n{_operations(affine)}",
        f"## Other operations\n\n{_operations(others)}",
        SOURCES,
        f"### PyTorch (ATen functions, as `torch.export` gives them)\n\n{_sources(_torch())}",
        f"### ONNX operators (operator sets 7 to 21)\n\n{_sources(_onnx())}",
    ]
    return "\n".join(parts)


def _operations(kinds: list[type[Op]]) -> str:
    rows = [(f"`{kind.__name__}`", _about(kind), *cells(kind, example_of(kind))) for kind in kinds]
    return _table(("operation", "what it is", *COLUMNS), rows)


def _about(kind: type[Op]) -> str:
    """The first statement of its docstring."""
    paragraph = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    for mark in (". ", "; ", ": "):
        paragraph = paragraph.split(mark)[0]
    return paragraph.rstrip(".").replace("|", "\\|")


def _torch() -> dict[str, set[str]]:
    """Names without their overloads; one that is refused in full with its overload."""
    found: dict[str, set[str]] = {}
    for target, entry in TORCH.items():
        name = target.removeprefix("aten.")
        short = name if name.startswith("prims.") else name.split(".")[0]
        refused = refusal(entry.build)
        if refused:
            found[name] = {f"refused: {refused}"}
        else:
            found.setdefault(short, set()).update(written_with(entry.build, short))
    return found


def _onnx() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for name, builder in ONNX.items():
        refused = refusal(builder)
        found[name] = {f"refused: {refused}"} if refused else set(written_with(builder, name))
    return found | {"If": {"the branch that a constant condition selects"}}


def _sources(found: dict[str, set[str]]) -> str:
    """Functions in groups that are written with the same operations."""
    groups: dict[str, list[str]] = {}
    for name in sorted(found, key=_letters):
        text = ", ".join(sorted(found[name])) or "the value itself, or numbers"
        groups.setdefault(text, []).append(name)
    rows = [(", ".join(f"`{name}`" for name in names), text) for text, names in groups.items()]
    return _table(("functions", "written with"), rows)


def _letters(name: str) -> str:
    return name.lower().lstrip("_")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
