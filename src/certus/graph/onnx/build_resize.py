"""Upsample and Resize: interpolation with constant weights, one matrix for each axis."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from certus.graph.affine import Interpolation
from certus.graph.onnx.build_linear import permuted
from certus.graph.onnx.build_moves import picked, size_of
from certus.graph.onnx.table import Call, Unsupported, affordable, axis_of, builds
from certus.graph.onnx.values import Data
from certus.graph.structural import Resize

_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}


@dataclass(frozen=True)
class Sampling:
    """How one axis of `size` entries becomes `out` entries."""

    size: int
    out: int
    scale: float
    mode: str
    coordinates: str
    rounding: str
    cubic: float
    exclude: bool

    def places(self) -> Any:
        """The (fractional) input place of every output."""
        i = np.arange(self.out, dtype=np.float64)
        match self.coordinates:
            case "asymmetric":
                return i / self.scale
            case "half_pixel":
                return (i + 0.5) / self.scale - 0.5
            case "pytorch_half_pixel":
                return (i + 0.5) / self.scale - 0.5 if self.out > 1 else np.zeros(1)
            case "align_corners":
                return i * (self.size - 1) / (self.out - 1) if self.out > 1 else np.zeros(1)
            case "half_pixel_symmetric":
                offset = self.size / 2 * (1 - self.out / (self.scale * self.size))
                return offset + (i + 0.5) / self.scale - 0.5
        raise Unsupported(f"resizing with coordinates {self.coordinates}")

    def nearest(self) -> Any:
        """The input place that every output copies."""
        x = self.places()
        match self.rounding:
            case "floor":
                found = np.floor(x)
            case "ceil":
                found = np.ceil(x)
            case "round_prefer_ceil":
                found = np.floor(x + 0.5)
            case _:
                found = np.ceil(x - 0.5)
        return np.clip(found, 0, self.size - 1).astype(np.int64)

    def matrix(self) -> Any:
        """[out, size]: the weight of every input in every output."""
        x = self.places()
        base = np.floor(x).astype(np.int64)
        part = x - base
        if self.mode == "linear":
            taps = [(0, 1 - part), (1, part)]
        else:
            taps = [(k, _cubic(abs(part - k), self.cubic)) for k in (-1, 0, 1, 2)]
        result = np.zeros((self.out, self.size))
        for shift, weight in taps:
            place = base + shift
            inside = (place >= 0) & (place < self.size)
            kept = np.where(inside | (not self.exclude), weight, 0.0)
            np.add.at(result, (np.arange(self.out), np.clip(place, 0, self.size - 1)), kept)
        return result / result.sum(1, keepdims=True) if self.exclude else result


def _cubic(distance: Any, a: float) -> Any:
    near = (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    far = a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@builds("Resize", "Upsample")
def _resize(call: Call) -> Data:
    x = call.data()
    if call.attribute("antialias", 0):
        raise Unsupported("resizing with antialiasing")
    samplings = _samplings(call, x)
    changed = [i for i, s in enumerate(samplings) if s.out != s.size or s.scale != 1]
    if not changed:
        return x
    plain = _torch_mode(samplings, changed, x)
    if plain is not None:
        out = tuple(s.out for s in samplings[2:])
        scales = tuple(s.scale for s in samplings[2:]) if plain[0] == "linear" else None
        op = Resize(out, plain[0], plain[1], scales)
        return call.put(op, call.at(x, x.shape[1:]), shape=tuple(s.out for s in samplings))
    if samplings[changed[0]].mode == "nearest":
        places = np.arange(size_of(x)).reshape(x.shape)
        for axis in changed:
            places = np.take(places, samplings[axis].nearest(), axis)
        return picked(call, x, places)
    for axis in changed:
        x = _along(call, x, axis, samplings[axis].matrix())
    return x


def _samplings(call: Call, x: Data) -> list[Sampling]:
    """One for each axis, from any version of Resize and Upsample."""
    old = call.node.op == "Upsample" or call.opset < 11
    mode = _MODES.get(str(call.attribute("mode", "nearest")))
    coordinates = (
        "asymmetric" if old else str(call.attribute("coordinate_transformation_mode", "half_pixel"))
    )
    rounding = "floor" if old else str(call.attribute("nearest_mode", "round_prefer_floor"))
    if mode is None:
        raise Unsupported(f"resizing with mode {call.attribute('mode')}")
    scales, sizes = _target(call, x, old)
    affordable(sizes)
    cubic = float(call.attribute("cubic_coeff_a", -0.75))
    exclude = bool(call.attribute("exclude_outside", 0))
    return [
        Sampling(d, n, s, mode, coordinates, rounding, cubic, exclude)
        for d, n, s in zip(x.shape, sizes, scales, strict=True)
    ]


def _target(call: Call, x: Data, old: bool) -> tuple[list[float], list[int]]:
    """Scale and size of every axis."""
    found = call.array(1 if old else 2)
    found = call.attribute("scales") if found is None else found
    axes = [axis_of(a, x.rank) for a in call.attribute("axes", range(x.rank))]
    scales, sizes = [1.0] * x.rank, list(x.shape)
    if found is not None and len(np.asarray(found)):
        for axis, scale in zip(axes, np.asarray(found).reshape(-1), strict=True):
            scales[axis] = float(scale)
            sizes[axis] = int(np.floor(x.shape[axis] * np.float32(scale)))
        return scales, sizes
    wanted = call.ints(3)
    if wanted is None or call.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unsupported("resizing without scales or sizes, or with an aspect ratio to keep")
    for axis, size in zip(axes, wanted, strict=True):
        sizes[axis], scales[axis] = size, size / x.shape[axis]
    return scales, sizes


def _torch_mode(samplings: list[Sampling], changed: list[int], x: Data) -> tuple[str, bool] | None:
    """Mode and align_corners of the equal torch interpolation of an image, or None."""
    image = 3 <= x.rank <= 5 and x.shape[0] == 1 and min(changed) >= 2
    first = samplings[changed[0]]
    if not image:
        return None
    if first.mode == "nearest" and first.coordinates == "asymmetric" and first.rounding == "floor":
        whole = all(s.scale == s.out // s.size and s.out % s.size == 0 for s in samplings[2:])
        return ("nearest", False) if whole else None
    if first.mode == "linear" and first.coordinates == "align_corners":
        return ("linear", True)
    half = first.coordinates == "half_pixel" or (
        first.coordinates == "pytorch_half_pixel" and all(s.out > 1 for s in samplings[2:])
    )
    return ("linear", False) if first.mode == "linear" and half else None


def _along(call: Call, x: Data, axis: int, matrix: Any) -> Data:
    """The matrix applied to one axis."""
    order = [i for i in range(x.rank) if i != axis] + [axis]
    moved = permuted(call, x, order)
    shape = (*moved.shape[:-1], len(matrix))
    result = call.put(Interpolation(call.tensor(matrix)), call.at(moved), shape=shape)
    return permuted(call, result, [order.index(i) for i in range(x.rank)])
