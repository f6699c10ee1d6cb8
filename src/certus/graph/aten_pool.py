"""ATen pooling and interpolation."""

from itertools import pairwise
from typing import Any

import torch

from certus.graph import activation, affine, structural
from certus.graph.builders import Arguments, Unsupported, builds


@builds("max_pool1d.default", "max_pool2d.default", "max_pool3d.default")
def _max_pool(a: Arguments) -> int:
    dims = a.ndim() - 2
    kernel = a.ints("kernel_size", dims)
    op = activation.MaxPool(
        kernel,
        a.ints("stride", dims, kernel),
        a.ints("padding", dims),
        a.ints("dilation", dims),
        bool(a["ceil_mode"]),
    )
    return a.add(op, a.x())


@builds(*(f"max_pool{d}d_with_indices.default" for d in (1, 2, 3)))
def _max_pool_with_indices(a: Arguments) -> tuple[int | None, ...]:
    return _max_pool(a), None


@builds("avg_pool1d.default", "avg_pool2d.default", "avg_pool3d.default")
def _avg_pool(a: Arguments) -> int:
    dims = a.ndim() - 2
    kernel, divisor = a.ints("kernel_size", dims), a["divisor_override"]
    counted = bool(a["count_include_pad"])
    if divisor is not None and (not counted or a["ceil_mode"]):
        raise Unsupported(
            "average pooling with divisor_override and ceil_mode or uncounted padding"
        )
    op = structural.AvgPool(
        kernel,
        a.ints("stride", dims, kernel),
        a.ints("padding", dims),
        bool(a["ceil_mode"]),
        counted,
    )
    pooled = a.add(op, a.x())
    if divisor is None:
        return pooled
    return a.add(affine.Scale(a.value(torch.Size(kernel).numel() / divisor)), pooled)


@builds(
    *(f"adaptive_avg_pool{d}d.default" for d in (1, 2, 3)),
    *("_adaptive_avg_pool2d.default", "_adaptive_avg_pool3d.default"),
)
def _adaptive_avg_pool(a: Arguments) -> int:
    dims = int(a.target.split("pool")[1][0])
    return a.add(structural.AdaptiveAvgPool(a.canonical()[-dims:]), a.x())


@builds(*(f"adaptive_max_pool{d}d.default" for d in (1, 2, 3)))
def _adaptive_max_pool(a: Arguments) -> tuple[int | None, ...]:
    dims, x = a.ndim() - 2, a.x()
    out = a.node.meta["val"][0].shape[-dims:]
    windows = [_windows(n, o) for n, o in zip(a.shape(x)[-dims:], out, strict=True)]
    kernel = tuple(size for size, _ in windows)
    stride = tuple(step for _, step in windows)
    return a.add(activation.MaxPool(kernel, stride, (0,) * dims, (1,) * dims), x), None


def _windows(size: int, out: int) -> tuple[int, int]:
    """Length and step of the windows of an adaptive pooling, if they are all alike."""
    starts = [i * size // out for i in range(out)]
    ends = [-(-(i + 1) * size // out) for i in range(out)]
    lengths = {end - start for start, end in zip(starts, ends, strict=True)}
    steps = {second - first for first, second in pairwise(starts)}
    if len(lengths) > 1 or len(steps) > 1:
        raise Unsupported(f"adaptive max pooling from {size} to {out} with windows that differ")
    return lengths.pop(), steps.pop() if steps else 1


_SIZED = ("nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "trilinear3d")


@builds(
    *(f"upsample_{kind}.{form}" for kind in _SIZED for form in ("vec", "default")),
    *(f"_upsample_nearest_exact{d}d.{form}" for d in (1, 2, 3) for form in ("vec", "default")),
)
def _upsample(a: Arguments) -> int:
    kind = a.target.split(".")[0].removeprefix("_").removeprefix("upsample_")
    mode = "nearest-exact" if "exact" in kind else "nearest" if "nearest" in kind else "linear"
    dims = a.ndim("self" if a["self"] is not None else "input") - 2
    x = a.x("self" if a["self"] is not None else "input")
    op = structural.Resize(a.canonical()[-dims:], mode, bool(a["align_corners"]), _scales(a, dims))
    return a.add(op, x)


def _scales(a: Arguments, dims: int) -> tuple[float, ...] | None:
    """The factors that the user gave, which the sampling positions are computed from."""
    found: Any = a["scale_factors"]
    if found is None and a["scales_h"] is not None:
        found = [a["scales_d"], a["scales_h"], a["scales_w"]][-dims:]
    if found is None and a["scales"] is not None:
        found = [a["scales"]]
    return None if found is None else tuple(float(scale) for scale in found)


@builds(
    *(f"{name}.{form}" for name in ("upsample_bicubic2d", "_upsample_bicubic2d_aa")
      for form in ("vec", "default")),
    *(f"_upsample_bilinear2d_aa.{form}" for form in ("vec", "default")),
)  # fmt: skip
def _separable(a: Arguments) -> int:
    """Rows and columns are interpolated one after the other: products with two matrices."""
    name = "self" if a["self"] is not None else "input"
    x = a.x(name)
    _, height, width = a.shape(x)
    rows, columns = a.canonical()[-2:]
    first = _matrix(a, height, rows, 0)
    second = _matrix(a, width, columns, 1)
    return a.add(affine.MatMul(second), a.add(affine.MatMul(first, left=True), x))


def _matrix(a: Arguments, old: int, new: int, axis: int) -> torch.Tensor:
    """The interpolation of one axis as a matrix: [new, old] for rows (0), [old, new] for columns."""
    like = a.scope.builder.like
    basis = torch.eye(old, dtype=like.dtype, device=like.device).view(1, 1, old, old)
    size = [old, old]  # the other axis keeps its size and its values
    size[axis] = new
    scales, factors = _scales(a, 2), dict[int, float]()
    if scales is not None:
        factors[axis] = scales[axis]
    target = getattr(torch.ops.aten, a.target.split(".")[0]).default
    result: torch.Tensor = target(
        basis, size, bool(a["align_corners"]), factors.get(0), factors.get(1)
    )
    return result[0, 0]
