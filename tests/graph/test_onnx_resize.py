"""Every mode of Resize that onnxruntime has: equal to it, and inside interval bounds."""

import numpy as np
import pytest
from tests.graph.onnx_models import model, node
from tests.graph.test_onnx_operators import check, i64

import certus

pytest.importorskip("onnxruntime")

PLACES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
CROP = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9], np.float32)
MODES = [
    *({"mode": "linear", "coordinate_transformation_mode": p} for p in PLACES),
    *({"mode": "cubic", "coordinate_transformation_mode": p} for p in PLACES),
    *({"nearest_mode": r, "coordinate_transformation_mode": p} for r in ROUNDINGS for p in PLACES),
    {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5},
    {"mode": "linear", "antialias": 1},
    {"mode": "cubic", "antialias": 1, "exclude_outside": 1},
    {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
]


@pytest.mark.parametrize("scales", [(1, 1, 1.7, 0.6), (1, 1, 2, 3)])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(map(str, mode.values())))
def test_modes_equal_onnxruntime(mode, scales):
    constants = {"s": np.array(scales, np.float32), "r": CROP}
    body = model(
        [node("Resize", ["x", "r", "s"], **mode)], (1, 2, 5, 6), opset=19, constants=constants
    )
    check(certus.load(body))


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(
    "more", [{}, {"axes": [3, 2]}, {"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]}]
)
def test_sizes_equal_onnxruntime(mode, more):
    sizes = i64(9, 4) if more else i64(1, 2, 9, 4)
    nodes = [node("Resize", ["x", "", "", "z"], mode=mode, **more)]
    check(certus.load(model(nodes, (1, 2, 5, 6), opset=19, constants={"z": sizes})))


def test_numbers_from_outside_a_crop_are_refused():
    constants = {"s": np.array((1, 1, 2, 2), np.float32), "r": CROP}
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize"}
    for mode in ({"mode": "nearest"}, {"mode": "linear", "extrapolation_value": 1.0}):
        nodes = [node("Resize", ["x", "r", "s"], **mode, **crop)]
        with pytest.raises(certus.UnsupportedError, match="crop"):
            certus.load(model(nodes, (1, 2, 5, 6), opset=19, constants=constants))
