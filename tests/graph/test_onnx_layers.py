"""Imported layers that move, window, normalise or reduce: equal to onnxruntime, inside bounds."""

import numpy as np
import pytest
from tests.graph.onnx_models import model, node
from tests.graph.test_onnx_operators import X4, check, f, i64

import certus

pytest.importorskip("onnxruntime")


def conv(size, pads=None, **more):
    kernel = more.pop("kernel", [3, 3])
    extra = {"pads": pads} if pads else {}
    return [node("Conv", ["x", "w", "b"], kernel_shape=kernel, **extra, **more)]


def resize(scales, **more):
    return (
        [node("Resize", ["x", "r", "s"], **more)],
        X4,
        {"s": np.array(scales, np.float32), "r": np.zeros(0, np.float32)},
    )


W = {"w": f(5, 4, 3, 3), "b": f(5)}
CASES = {
    "conv same": ((7, 11), conv(0, [1, 1, 1, 1]), X4, W),
    "conv stride dilation": ((11,), conv(0, [2, 2, 2, 2], strides=[2, 1], dilations=[1, 2]), X4, W),
    "conv one-sided": ((11,), conv(0, [0, 1, 1, 2], strides=[2, 2]), X4, W),
    "conv upper": ((11,), conv(0, auto_pad="SAME_UPPER", strides=[2, 2]), X4, W),
    "conv lower": ((11,), conv(0, auto_pad="SAME_LOWER", strides=[2, 2]), X4, W),
    "conv groups": (
        (11,),
        [node("Conv", ["x", "w"], group=2, pads=[1, 1, 1, 1])],
        X4,
        {"w": f(6, 2, 3, 3)},
    ),
    "conv 1d": ((11,), [node("Conv", ["x", "w"])], (1, 3, 9), {"w": f(4, 3, 3)}),
    "conv 3d": ((11,), [node("Conv", ["x", "w"])], (1, 2, 4, 4, 4), {"w": f(3, 2, 2, 2, 2)}),
    "conv of several images": ((11,), conv(0), (3, 4, 6, 6), W),
    "conv norm merge": (
        (9, 14, 15),
        [
            node("Conv", ["x", "w"], "h"),
            node("BatchNormalization", ["h", "b", "b", "m", "v"], epsilon=1e-3),
        ],
        X4,
        {"w": f(5, 4, 3, 3), "b": f(5), "m": f(5), "v": abs(f(5)) + 0.5},
    ),
    "norm alone": (
        (7, 15),
        [node("Relu", "x", "h"), node("BatchNormalization", ["h", "b", "b", "m", "v"])],
        X4,
        {"b": f(4), "m": f(4), "v": abs(f(4)) + 0.5},
    ),
    "transposed": (
        (7, 11),
        [node("ConvTranspose", ["x", "w", "b"], strides=[2, 2], pads=[1, 1, 1, 1])],
        X4,
        {"w": f(4, 5, 4, 4), "b": f(5)},
    ),
    "transposed output padding": (
        (11,),
        [
            node(
                "ConvTranspose",
                ["x", "w"],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                output_padding=[1, 1],
                group=2,
            )
        ],
        X4,
        {"w": f(4, 3, 3, 3)},
    ),
    "transposed one-sided": (
        (11,),
        [node("ConvTranspose", ["x", "w"], strides=[2, 2], pads=[0, 1, 2, 0])],
        X4,
        {"w": f(4, 3, 3, 3)},
    ),
    "transposed norm merge": (
        (11,),
        [
            node("ConvTranspose", ["x", "w"], "h", strides=[2, 2], group=2),
            node("BatchNormalization", ["h", "b", "b", "m", "v"]),
        ],
        X4,
        {"w": f(4, 3, 3, 3), "b": f(6), "m": f(6), "v": abs(f(6)) + 0.5},
    ),
    "transposed shape": (
        (11,),
        [node("ConvTranspose", ["x", "w"], strides=[2, 2], output_shape=[12, 12])],
        X4,
        {"w": f(4, 3, 3, 3)},
    ),
    "max pool": ((8, 12), [node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])], X4, {}),
    "max pool overlapping": (
        (12,),
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])],
        X4,
        {},
    ),
    "max pool one-sided": (
        (12,),
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")],
        X4,
        {},
    ),
    "max pool ceil": (
        (12,),
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        X4,
        {},
    ),
    "max pool 1d": ((12,), [node("MaxPool", "x", kernel_shape=[3])], (1, 2, 9), {}),
    "average pool": (
        (7, 11, 19),
        [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2])],
        X4,
        {},
    ),
    "average pool padded": (
        (11,),
        [
            node(
                "AveragePool",
                "x",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[1, 1, 1, 1],
                count_include_pad=1,
            )
        ],
        X4,
        {},
    ),
    "average pool one-sided": (
        (11,),
        [node("AveragePool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])],
        X4,
        {},
    ),
    "average pool one-sided counted": (
        (11,),
        [
            node(
                "AveragePool",
                "x",
                kernel_shape=[3, 3],
                strides=[2, 2],
                pads=[0, 0, 1, 1],
                count_include_pad=1,
            )
        ],
        X4,
        {},
    ),
    "average pool dilated": (
        (19,),
        [node("AveragePool", "x", kernel_shape=[2, 2], dilations=[2, 2])],
        X4,
        {},
    ),
    "lp pool": ((11,), [node("LpPool", "x", kernel_shape=[2, 2], strides=[2, 2], p=2)], X4, {}),
    "global average": ((7, 13), [node("GlobalAveragePool", "x")], X4, {}),
    "global max": ((7, 13), [node("GlobalMaxPool", "x")], X4, {}),
    "global lp": ((7,), [node("GlobalLpPool", "x", p=2)], X4, {}),
    "softmax flat": ((7, 11), [node("Softmax", "x", axis=1)], (1, 3, 4), {}),
    "softmax rows": ((11,), [node("Softmax", "x", axis=2)], (1, 3, 2, 2), {}),
    "softmax": ((13,), [node("Softmax", "x", axis=1)], (1, 3, 4), {}),
    "log softmax": ((11, 13), [node("LogSoftmax", "x", axis=-1)], (1, 6), {}),
    "instance norm": (
        (7,),
        [node("InstanceNormalization", ["x", "s", "b"])],
        X4,
        {"s": f(4), "b": f(4)},
    ),
    "layer norm": (
        (17,),
        [node("LayerNormalization", ["x", "s", "b"], axis=-1)],
        (1, 3, 8),
        {"s": f(8), "b": f(8)},
    ),
    "group norm": (
        (21,),
        [node("GroupNormalization", ["x", "s", "b"], num_groups=2)],
        X4,
        {"s": f(4), "b": f(4)},
    ),
    "lrn": ((13,), [node("LRN", "x", size=3, alpha=0.1)], X4, {}),
    "pad attributes": ((7,), [node("Pad", "x", pads=[0, 0, 1, 0, 0, 0, 2, 1], value=0.3)], X4, {}),
    "pad reflect": (
        (11,),
        [node("Pad", ["x", "p"], mode="reflect")],
        X4,
        {"p": i64(0, 0, 1, 2, 0, 0, 2, 1)},
    ),
    "pad edge": (
        (13,),
        [node("Pad", ["x", "p"], mode="edge")],
        X4,
        {"p": i64(0, 0, 1, 2, 0, 0, 2, 1)},
    ),
    "pad axes crop": (
        (18,),
        [node("Pad", ["x", "p", "", "a"])],
        X4,
        {"p": i64(-1, 2, 1, -2), "a": i64(2, 3)},
    ),
    "upsample": ((9,), [node("Upsample", ["x", "s"])], X4, {"s": np.array([1, 1, 2, 3], "f4")}),
    "upsample linear": (
        (9,),
        [node("Upsample", ["x", "s"], mode="linear")],
        X4,
        {"s": np.array([1, 1, 2, 2], "f4")},
    ),
    "resize nearest": ((11, 13), *resize([1, 1, 1.5, 0.5], mode="nearest")),
    "resize floor": (
        (13,),
        *resize(
            [1, 1, 2, 2],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ),
    "resize linear": ((11, 13), *resize([1, 1, 2, 1.5], mode="linear")),
    "resize corners": (
        (13,),
        *resize([1, 1, 2, 2], mode="linear", coordinate_transformation_mode="align_corners"),
    ),
    "resize asymmetric": (
        (13,),
        *resize([1, 1, 2, 2], mode="linear", coordinate_transformation_mode="asymmetric"),
    ),
    "resize cubic": ((13,), *resize([1, 1, 2, 2], mode="cubic")),
    "resize cubic odd": ((13,), *resize([1, 1, 2.6, 1], mode="cubic")),
    "resize linear odd": ((13,), *resize([1, 1, 1.8, 0.6], mode="linear")),
    "resize sizes": (
        (13,),
        [node("Resize", ["x", "", "", "n"], mode="linear")],
        X4,
        {"n": i64(1, 4, 9, 4)},
    ),
    "slice": (
        (11,),
        [node("Slice", ["x", "s", "e", "a", "t"])],
        X4,
        {"s": i64(1, -1), "e": i64(3, -9), "a": i64(1, 3), "t": i64(1, -2)},
    ),
    "slice attributes": ((7, 9), [node("Slice", "x", starts=[1], ends=[9], axes=[2])], X4, {}),
    "split": ((7, 11), [node("Split", "x", ("h", "y"), axis=1, split=[1, 3])], X4, {}),
    "gather": ((11,), [node("Gather", ["x", "i"], axis=2)], X4, {"i": i64(5, 0, -1)}),
    "gather scalar": ((11,), [node("Gather", ["x", "i"], axis=1)], X4, {"i": np.int64(-2)}),
    "gather batch": ((11,), [node("Gather", ["x", "i"], axis=0)], X4, {"i": np.int64(0)}),
    "gather elements": (
        (13,),
        [node("GatherElements", ["x", "i"], axis=1)],
        (1, 6),
        {"i": i64(2, 0, -1).reshape(1, 3)},
    ),
    "gather nd": (
        (13,),
        [node("GatherND", ["x", "i"])],
        (1, 3, 4),
        {"i": i64(0, 2, 1, 0, 0, 3).reshape(2, 3)},
    ),
    "scatter nd": (
        (13,),
        [node("ScatterND", ["x", "i", "u"])],
        (1, 6),
        {"i": i64(0, 4, 0, 1).reshape(2, 2), "u": f(2)},
    ),
    "scatter data": (
        (13,),
        [
            node("Slice", ["x", "s", "e", "a"], "u"),
            node("ScatterElements", ["c", "i", "u"], axis=1),
        ],
        (1, 6),
        {
            "i": i64(4, 0).reshape(1, 2),
            "c": f(1, 6),
            "s": i64(1),
            "e": i64(3),
            "a": i64(1),
        },
    ),
    "concat constants": (
        (11,),
        [node("Concat", ["a", "x", "b"], axis=1)],
        (1, 6),
        {"a": f(1, 2), "b": f(1, 1)},
    ),
    "tile expand": (
        (13,),
        [node("Tile", ["x", "t"], "h"), node("Expand", ["h", "n"])],
        (1, 1, 3),
        {"t": i64(1, 1, 2), "n": i64(2, 4, 6)},
    ),
    "reshape batch away": (
        (13,),
        [
            node("Squeeze", ["x", "z"], "h"),
            node("Reshape", ["h", "n"], "g"),
            node("Transpose", "g", "t", perm=[1, 0]),
            node("Unsqueeze", ["t", "z"], "u"),
            node("Flatten", "u", axis=0),
        ],
        (1, 3, 4),
        {"z": i64(0), "n": i64(2, -1)},
    ),
    "shape folding": (
        (13,),
        [
            node("Shape", "x", "s"),
            node("Gather", ["s", "zero"], "n"),
            node("Unsqueeze", ["n", "zeros"], "m"),
            node("Concat", ["m", "rest"], "t", axis=0),
            node("Reshape", ["x", "t"], "r"),
            node("ConstantOfShape", "t2", "o"),
            node("Add", ["r", "o"]),
        ],
        X4,
        {"zero": np.int64(0), "zeros": i64(0), "rest": i64(-1, 8), "t2": i64(1, 1)},
    ),
    "folded operations": (
        (13,),
        [
            node("Conv", ["k", "w"], "c"),
            node("Softmax", "c", "s", axis=1),
            node("ReduceMean", "s", "m", axes=[1, 2, 3]),
            node("Mul", ["x", "m"]),
        ],
        X4,
        {"k": f(1, 4, 5, 5), "w": f(3, 4, 3, 3)},
    ),
}


@pytest.mark.parametrize(
    ("name", "opset"), [(name, opset) for name, case in CASES.items() for opset in case[0]]
)
def test_equals_onnxruntime_and_lies_in_bounds(name, opset):
    _, nodes, shape, constants = CASES[name]
    check(certus.load(model(nodes, shape, opset=opset, constants=constants)))
