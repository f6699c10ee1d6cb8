"""Upsample and Resize: copies or interpolation with constant weights, one matrix for each axis.

Which entry is copied and with which weight follows from the operator itself, run on numbered entries or on
unit vectors; the usual interpolations of images are torch's.
"""

import math
from typing import Any

import numpy as np

from certus.graph.affine import Interpolation
from certus.graph.onnx.build_linear import permuted
from certus.graph.onnx.build_moves import numbered, picked
from certus.graph.onnx.fold import evaluated
from certus.graph.onnx.table import Call, Unsupported, affordable, axis_of, builds
from certus.graph.onnx.values import Data
from certus.graph.structural import Resize

_NEAR = 1e-5  # of one, the sum of the weights of an output


@builds("Resize", "Upsample")
def _resize(call: Call) -> Data:
    x = call.data()
    _refuse_filled(call)
    rest = [call.array(i) for i in range(1, len(call.values))]
    out = _run(call, np.ones(x.shape), rest).shape
    scales = _scales(call, x, out)
    changed = [
        i for i, (d, n) in enumerate(zip(x.shape, out, strict=True)) if d != n or scales[i] != 1
    ]
    if not changed and not _cropped(call):
        return x
    plain = _torch_mode(call, x, out, scales)
    if plain is not None:
        factors = tuple(scales[2:]) if plain[0] == "linear" else None
        op = Resize(tuple(out[2:]), plain[0], plain[1], factors)
        return call.put(op, call.at(x, x.shape[1:]), shape=out)
    if call.attribute("mode", "nearest") == "nearest":
        return picked(call, x, _run(call, numbered(x.shape), rest).astype(np.int64))
    axes = [i for i, d in enumerate(x.shape) if d > 1] if _cropped(call) else changed
    matrices = [_matrix(call, x, axis, scales, rest) for axis in axes]
    for axis, matrix in zip(axes, matrices, strict=True):
        x = _along(call, x, axis, matrix)
    return x


def _refuse_filled(call: Call) -> None:
    """Places outside a crop hold a number, which neither copies nor weights say."""
    nearest = call.attribute("mode", "nearest") == "nearest"
    if _cropped(call) and (nearest or call.attribute("extrapolation_value", 0.0)):
        raise Unsupported("resizing of a crop by nearest neighbours or with a value outside")


def _cropped(call: Call) -> bool:
    return call.attribute("coordinate_transformation_mode") == "tf_crop_and_resize"


def _old(call: Call) -> bool:
    return call.node.op == "Upsample" or call.opset < 11


def _run(call: Call, x: Any, rest: list[Any]) -> Any:
    """The operator on numbers below 2^24, which its type for images holds exactly."""
    if x.size > 2**24:
        raise Unsupported(f"resizing of {x.size} numbers")
    (found,) = evaluated(call.node, [x.astype(np.float32), *rest], call.opset)
    return found


def _scales(call: Call, x: Data, out: tuple[int, ...]) -> list[float]:
    """The scale of every axis."""
    given = call.array(1 if _old(call) else 2)
    given = call.attribute("scales") if given is None else given
    scales = [n / d for n, d in zip(out, x.shape, strict=True)]
    if given is not None and len(np.asarray(given)):
        axes = [axis_of(a, x.rank) for a in call.attribute("axes", range(x.rank))]
        for axis, scale in zip(axes, np.asarray(given).reshape(-1), strict=True):
            scales[axis] = float(scale)
    return scales


def _torch_mode(
    call: Call, x: Data, out: tuple[int, ...], scales: list[float]
) -> tuple[str, bool] | None:
    """Mode and align_corners of the equal torch interpolation of an image, or None."""
    image = 3 <= x.rank <= 5 and x.shape[:2] == out[:2] and x.shape[0] == 1
    special = call.attribute("antialias", 0) or scales[:2] != [1, 1]
    kept = call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    if not image or special or kept:
        return None
    mode = call.attribute("mode", "nearest")
    coordinates = call.attribute("coordinate_transformation_mode", "half_pixel")
    coordinates = "asymmetric" if _old(call) else coordinates
    floor = _old(call) or call.attribute("nearest_mode", "round_prefer_floor") == "floor"
    if mode == "nearest" and coordinates == "asymmetric" and floor:
        whole = all(
            s == n // d and n % d == 0 for s, n, d in zip(scales, out, x.shape, strict=True)
        )
        return ("nearest", False) if whole else None
    if mode not in ("linear", "bilinear"):
        return None
    if coordinates == "align_corners":
        return ("linear", True)
    half = coordinates == "half_pixel" or (
        coordinates == "pytorch_half_pixel" and all(n > 1 for n in out[2:])
    )
    return ("linear", False) if half else None


def _matrix(call: Call, x: Data, axis: int, scales: list[float], rest: list[Any]) -> Any:
    """[out, size] for one axis: unit vectors along it, ones along the others, where weights add up to one."""
    kept = call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
    shape, size = list(x.shape), x.shape[axis]
    if not kept and not _cropped(call):  # the other axes may be as small as their scale allows
        shape = [math.ceil(1 / scale) if scale < 1 else 1 for scale in scales]
        shape[axis] = size
        rest = _alone(call, x, axis, shape, rest)
    affordable((size, *shape))
    whole = _run(call, np.ones(shape), rest)
    place = np.unravel_index(int(whole.argmax()), whole.shape)
    if abs(whole[place] - 1) > _NEAR:
        raise Unsupported("an interpolation whose weights do not add up to one")
    line = tuple(slice(None) if i == axis else p for i, p in enumerate(place))
    columns = []
    for k in range(size):
        unit = np.zeros(shape)
        unit[tuple(k if i == axis else slice(None) for i in range(x.rank))] = 1.0
        columns.append(_run(call, unit, rest)[line])
    return np.stack(columns, 1)


def _alone(call: Call, x: Data, axis: int, shape: list[int], rest: list[Any]) -> list[Any]:
    """The other inputs where the other axes keep their size."""
    if len(rest) < 3 or rest[2] is None or not rest[2].size:
        return rest
    named = [axis_of(a, x.rank) for a in call.attribute("axes", range(x.rank))]
    sizes = [n if a == axis else shape[a] for a, n in zip(named, rest[2].tolist(), strict=True)]
    return [*rest[:2], np.array(sizes, np.int64)]


def _along(call: Call, x: Data, axis: int, matrix: Any) -> Data:
    """The matrix applied to one axis."""
    order = [i for i in range(x.rank) if i != axis] + [axis]
    moved = permuted(call, x, order)
    shape = (*moved.shape[:-1], len(matrix))
    result = call.put(Interpolation(call.tensor(matrix)), call.at(moved), shape=shape)
    return permuted(call, result, [order.index(i) for i in range(x.rank)])
