"""Measures how far functions of one value are off in torch and onnxruntime: `make errors`.

Writes src/certus/bounding/errors.toml, from which the rounding guard charges. Every function runs over all
magnitudes and signs that its type holds, densely where it bends, in the forms in which an engine takes other
code: long and short arrays, strided ones, one value at a time. float32 is compared with torch's float64,
float64 with mpmath. The instructions that torch uses are those of ATEN_CPU_CAPABILITY; the table keeps the
largest figures of what it holds already and of this run, so run it once for each (default, avx2, avx512).
"""

import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence

import mpmath
import numpy as np
import torch
from docs.tools.errors_truth import TRUTH
from torch import Tensor

from certus.bounding.engine import TABLE, amplitude, key
from certus.graph import activation, gated, inverse, periodic, piecewise, powers, smooth
from certus.graph.op import Elementwise

HEAD = """\
# Written by `make errors`: the error of one evaluation of a function, in units in the last place (eps) of
# [its value, its amplitude]: |computed - exact| <= eps (first |f(x)| + second amplitude), as measured.
"""

_EXPONENTS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.5, 1.3, 2.0, 2.5, 3.0, 4.0, 7.0)
# every function of one value that rounds; several settings share a row of the table
FUNCTIONS: tuple[Elementwise, ...] = (
    *(
        activation.Sigmoid(),
        activation.Tanh(),
        activation.LeakyRelu(0.01),
        piecewise.Prelu(torch.tensor(0.3)),
    ),
    *(gated.Gelu(), gated.Gelu(tanh=True), gated.Silu(), gated.Mish(), gated.HardSwish()),
    *(
        smooth.Elu(),
        smooth.Elu(1.6732632423543772, 1.0507009873554805),
        smooth.Celu(),
        smooth.Celu(0.7),
    ),
    *(
        smooth.Softplus(),
        smooth.Softplus(1.5, 30.0),
        smooth.Softplus(0.3, 30.0),
        smooth.Softplus(threshold=float("inf")),
    ),
    *(smooth.LogSigmoid(), smooth.Softsign(), smooth.Erf(), smooth.Atan()),
    *(inverse.Asinh(), inverse.Acosh(), inverse.Atanh(), inverse.Asin()),
    *(powers.Exp(), powers.Log(), powers.Sqrt(), powers.Reciprocal()),
    *(powers.Power(p) for p in _EXPONENTS),
    *(periodic.Sin(), periodic.Cos(), periodic.Tan()),
)
_FAR = 1e5  # beyond it bounds of sines are [-1, 1] all the same
_OPSET = 24


def places(op: Elementwise, dtype: torch.dtype, few: bool) -> Tensor:
    """Where an operation is measured: all magnitudes, and densely around zero."""
    tiny, huge = (1e-37, 1e37) if dtype == torch.float32 else (1e-300, 1e300)
    if isinstance(op, periodic.Wave | periodic.Tan):
        huge = _FAR
    count = 1500 if few else 400_000
    sizes = torch.logspace(np.log10(tiny), np.log10(huge), count, dtype=torch.float64)
    inner = torch.linspace(-30, 30, 4 * count, dtype=torch.float64)
    near = 1 + torch.linspace(-0.1, 0.1, count // 2, dtype=torch.float64)
    x = torch.cat([sizes, -sizes, inner, near, torch.linspace(-120, 120, count)])
    return x.to(dtype)


def exact(op: Elementwise, x: Tensor) -> Tensor:
    """The values in float64, or in higher precision for float64 (rounded to a pair of float64)."""
    if x.dtype == torch.float32:
        return op.forward(x.double())
    with mpmath.workdps(40):
        truth = TRUTH[type(op)]
        return torch.tensor([_number(truth, op, v) for v in x.tolist()], dtype=torch.float64)


def _number(truth: Callable[..., mpmath.mpf], op: Elementwise, value: float) -> float:
    try:
        return float(truth(op, mpmath.mpf(value)))
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        return float("nan")


def forms(x: Tensor) -> Iterator[Tensor]:
    """The same numbers in the layouts that engines treat differently."""
    yield x
    yield torch.stack([x, x], 1)[:, 0]  # strided: no vector instructions
    yield x[: len(x) // 7 * 7].view(-1, 7)


def torch_values(op: Elementwise, x: Tensor) -> Iterator[Tensor]:
    """torch's values in each form, cut to the numbers that all forms hold."""
    for form in forms(x):
        yield op.forward(form).reshape(-1)
    few = x[:: max(1, len(x) // 3000)]
    alone = torch.full_like(x, float("nan"))
    alone[:: max(1, len(x) // 3000)] = torch.cat([op.forward(v.view(1, 1)).view(1) for v in few])
    yield alone


def onnx_values(op: Elementwise, x: Tensor) -> Iterator[Tensor]:
    """onnxruntime's values of the operator that stands for the operation, if there is one."""
    from docs.tools.errors_onnx import session

    run = session(op, x.dtype)
    if run is None:
        return
    yield torch.from_numpy(run(x.numpy()))
    few = x[:: max(1, len(x) // 3000)].numpy()
    alone = torch.full_like(x, float("nan"))
    alone[:: max(1, len(x) // 3000)] = torch.from_numpy(np.concatenate([run(v[None]) for v in few]))
    yield alone


ENGINES = {"torch": torch_values, "onnxruntime": onnx_values}


def units(op: Elementwise, x: Tensor, found: Tensor, truth: Tensor) -> tuple[float, float]:
    """(relative, absolute) of one run, in eps; the second is zero where the first alone explains all."""
    info = torch.finfo(x.dtype)
    size, own = truth.abs()[: len(found)], found.double()
    error = (own - truth[: len(found)]).abs() / info.eps
    usable = torch.isfinite(error) & (size < info.max / 4)
    error, size = error[usable], size[usable]
    error = torch.where(
        error * info.eps > 128 * info.tiny, error, 0.0
    )  # underflow has a charge of its own
    large = size >= min(0.25, float(size.max()) / 4)
    relative = float((error[large] / size[large]).max()) if bool(large.any()) else 0.0
    whole = float((error / size.clamp(min=info.tiny)).max())
    if whole <= 2 * relative + 2:
        return whole, 0.0
    return relative, max(0.0, float((error - relative * size).max())) / amplitude(op)


def measure(engine: str, dtype: torch.dtype) -> dict[str, list[float]]:
    """The rows of one engine and type."""
    rows: dict[str, list[float]] = {}
    for op in FUNCTIONS:
        x = places(op, dtype, few=dtype == torch.float64)
        truth = exact(op, x)
        for found in ENGINES[engine](op, x):
            rows[key(op)] = _larger(rows.get(key(op)), units(op, x, found, truth))
        print(f"{engine} {dtype} {key(op)}: {rows.get(key(op))}", file=sys.stderr)  # noqa: T201
    return rows


def main() -> None:
    """Measure, and write what is larger than before."""
    table = tomllib.loads(TABLE.read_text()) if TABLE.exists() else {}
    for engine in ENGINES:
        for dtype in (torch.float32, torch.float64):
            known = table.setdefault(engine, {}).setdefault(str(dtype).removeprefix("torch."), {})
            for name, row in measure(engine, dtype).items():
                known[name] = [round(number, 2) for number in _larger(known.get(name), row)]
    lines = [HEAD]
    for engine, kinds in table.items():
        for kind, rows in kinds.items():
            figures = (f"{name} = {row}" for name, row in sorted(rows.items()))
            lines += [f"[{engine}.{kind}]", *figures, ""]
    TABLE.write_text("\n".join(lines))


def _larger(row: Sequence[float] | None, other: Sequence[float]) -> list[float]:
    return list(other) if row is None else [max(a, b) for a, b in zip(row, other, strict=True)]


if __name__ == "__main__":
    main()
