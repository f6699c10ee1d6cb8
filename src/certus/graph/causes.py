"""Why a module cannot be captured: a table of causes, each known by what torch and the module did."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from certus.core import CertusError, ModelError, UnsupportedError
from certus.graph import lines
from certus.graph.calls import Calls

LONGEST = 300  # characters of an error
_QUOTED = 140  # characters of torch's words in it


@dataclass(frozen=True)
class Sign:
    """Something that was seen, with the user's line.

    text: "error Kind: words", "in file:function" (of torch, which it came through), "call name/arguments in
    function", "part class", "size" (where an export first relied on the batch size), or what was `seen`.
    """

    text: str
    line: str = ""


@dataclass(frozen=True)
class Cause:
    """One cause of a failed capture.

    signs: patterns, each of which some `Sign` must fit. says: the sentence; {line} is the line of the
    last of them that has one, other names are groups of the patterns.
    """

    signs: tuple[str, ...]
    says: str
    kind: type[CertusError] = ModelError


_GRADIENT = (
    "the model takes a gradient inside forward {line}; derivatives have no rules: write the derivative out "
    "as a function of its own"
)
_SQUEEZE = (
    "squeeze() without a dimension drops the batch dimension of a single input {line}; name the dimension, "
    "such as squeeze(1)"
)
CAUSES = (
    Cause((r"^call torch\.(autograd\.(grad|backward)|Tensor\.backward)/",), _GRADIENT),
    Cause((r"^call torch\..*_(make_dual|(grad|jvp)_increment_nesting)/",), _GRADIENT),
    Cause((r"^in _functorch/eager_transforms\.py:.*(grad|vjp|jvp|jac)",), _GRADIENT),
    Cause((r"^error .*does not require grad",), _GRADIENT),
    Cause(
        (r"^export", r"^part .*\.(?P<found>\w*ScriptModule|TopLevelTracedModule)$"),
        "the model is or holds a TorchScript module ({found}), whose code torch.export cannot read: pass the "
        "nn.Module that was scripted, with the weights loaded into it",
    ),
    Cause(
        (r"^export", r"^part torch\.ao\.nn\.(?:\w+\.)*quantized\..*\.(?P<found>\w+)$"),
        "the model is quantised to whole numbers (its part {found}), which has no rules: pass the model as "
        "it was before the conversion",
    ),
    Cause(
        (
            r"^error \w*: (?P<found>aten\.\w+?)(?:_cachemask)?(?:\.\w+)?(?=\s|$)",
            r"^error UnsupportedOperatorException",
        ),
        "the model uses operations without a bound rule: {found} {line}",
        UnsupportedError,
    ),
    Cause(
        (r"^(export|changes)", r"^part torch\.ao\.quantization\.fake_quantize\.(?P<found>\w+)$"),
        "the model is prepared for quantisation, and its fake quantisation ({found}) goes on observing: "
        "write it as scale * (torch.round(x / scale + zero).clamp(low, high) - zero)",
    ),
    Cause(
        (r"^error UserError: [\s\S]*<= 25\b", r"^call torch\.(functional\.)?cdist/"),
        "torch.cdist computes otherwise for more than 25 rows {line}: write "
        "(a[:, None] - b).square().sum(-1).sqrt()",
    ),
    Cause(
        (
            r"^changes its input",
            r"^call torch\.[\w.]*(?:\b[a-z]\w*[a-z0-9]_|__setitem__|__i[a-z]+__)/",
        ),
        "the model changes its input in place {line}; work on a new tensor: x = x - mean, or first "
        "x = x.clone()",
    ),
    Cause(
        (r"^changes (?P<found>.*)",),
        "the model changes {found} when it is called; in evaluation mode it must leave everything as it is",
    ),
    Cause(
        (r"^alone: Expected more than 1 value per channel when training",),
        "a normalisation of the model acts in training mode {line}: it has no running statistics, so that "
        "every answer depends on the batch; build it with track_running_stats=True",
        UnsupportedError,
    ),
    Cause((r"^(lost|alone)\b", r"^call torch\.(Tensor\.)?squeeze/1 "), _SQUEEZE),
    Cause(
        (r"^lost (?P<found>.*)",),
        "the model's output has no batch dimension in front: its shape is {found}; keep dimension 0 as it is",
    ),
    Cause(
        (r"^alone: (?P<found>.*)",),
        "the model runs on two inputs, but fails on one {line}: {found}",
    ),
    Cause(
        (r"^returns (?P<found>.*)",),
        "the model must return one tensor, not {found}: wrap it in a module that returns the one to certify",
    ),
    Cause(
        (r"^call torch\.\w*pack_padded_sequence/",),
        "the model packs its sequences (pack_padded_sequence {line}): give the recurrent layer the padded "
        "tensor itself; all inputs of a certificate have one length",
    ),
    Cause(
        (r"^error RuntimeError: .*numpy\(\)",),
        "the model leaves torch for numpy {line}, where no operation is seen: use the function of torch",
    ),
    Cause(
        (r"^error UserError", r"^call .* in tolist$"),
        "the model turns a tensor into Python numbers {line}, which are not seen any more: keep the tensor",
    ),
    Cause(
        (r"^error GuardOnDataDependent", r"^in distributions/\w+\.py:__init__"),
        "torch.distributions checks the values that it is given {line}: pass validate_args=False",
    ),
    Cause(
        (r"^error (GuardOnDataDependent|DataDependentOutput)",),
        "Python needs the values of a tensor (if, while, assert, float) {line}; write it with torch.where, "
        "or leave it out if it only checks",
    ),
    Cause(
        (r"^error UserError: Constraints violated", r"^size"),
        "the model's code fixes or asks the size of the batch {line}; any number of inputs must be treated "
        "alike: use x.shape[0] or -1 in place of a number, of len(x) and of loops over x",
    ),
    Cause(
        (r"^error .*found a fake tensor", r"^call torch\.Tensor\.(data\.__get__|detach)/"),
        "the model works on the bare values of a tensor (.data or .detach() {line}), which are not followed: "
        "use the tensor itself, and change weights outside of forward",
    ),
    Cause(
        (r"^error TypeError: .*missing \d+ required [\w-]+ arguments?: (?P<found>.*)",),
        "the model needs more inputs ({found}): trace it with a tuple of examples, or wrap it in a module "
        "that holds what is constant",
    ),
    Cause(
        (r"^failed (?P<shape>.*?\)): (?P<found>.*)",),
        "the model fails on an input {shape} {line}: {found}",
    ),
    Cause((r"^error \w*: (?P<found>.*)",), "torch.export cannot capture the model {line}: {found}"),
)


def explained(
    seen: str, module: nn.Module, calls: Calls, error: Exception | None = None
) -> CertusError:
    """The error for the user: the first of the CAUSES whose signs were all seen.

    seen: what the caller saw: "export", "failed (2, 4): words", "returns a tuple" and such. calls: what
    the module called until then.
    """
    signs = list(_signs(seen, module, calls, error))
    for cause in CAUSES:
        found = [_find(pattern, signs) for pattern in cause.signs]
        if None not in found:
            fields = {"line": ""}
            for sign, groups in filter(None, found):
                fields |= groups | ({"line": sign.line} if sign.line else {})
            return cause.kind(tidy(cause.says.format(**fields)))
    raise AssertionError("the last cause fits every error")


def _signs(seen: str, module: nn.Module, calls: Calls, error: Exception | None) -> Iterator[Sign]:
    line = "" if error is None else lines.of_error(error, module)
    yield Sign(seen, line)
    if error is not None:
        yield Sign(f"error {type(error).__name__}: {str(error).strip()}", line)
        for place in lines.places(error):
            yield Sign(f"in {place}", line)
    for kind in dict.fromkeys(type(part) for part in module.modules()):
        yield Sign(f"part {kind.__module__}.{kind.__qualname__}")
    yield Sign("size", calls.fixed)
    for name, where in calls.found:
        yield Sign(f"call {name}", where)


def _find(pattern: str, signs: Sequence[Sign]) -> tuple[Sign, dict[str, str]] | None:
    for sign in signs:
        match = re.search(pattern, sign.text)
        if match:
            return sign, {name: text[:_QUOTED] for name, text in match.groupdict("").items()}
    return None


def tidy(text: str) -> str:
    """A sentence without the gap that a missing line leaves, and not too long."""
    text = re.sub(r" +([,;:)])", r"\1", " ".join(text.split()))
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
