"""ATen linear layers, convolutions, matrix products and batch normalisation."""

from collections.abc import Sequence
from typing import Any

from certus.graph import affine, structural
from certus.graph.aten_arithmetic import plus, scaled
from certus.graph.bilinear import Product
from certus.graph.builders import Arguments, Unsupported, builds, value_shape


@builds("linear.default", anywhere=True)
def _linear(a: Arguments) -> int:
    if not a.is_data(a["input"]) or a.is_data(a["weight"]) or a.is_data(a["bias"]):
        raise Unsupported("a linear layer whose weight depends on the input; write a matmul")
    a.dim(-1, "input")
    return a.add(affine.Linear(a.constant("weight"), a.constant("bias")), a.x("input"))


@builds("matmul.default", anywhere=True)
def _matmul(a: Arguments) -> int:
    return product(a, "self", "other")


@builds("mm.default", "bmm.default", anywhere=True)
def _mm(a: Arguments) -> int:
    return product(a, "self", "mat2")


@builds("mv.default", "dot.default", anywhere=True)
def _mv(a: Arguments) -> int:
    return product(a, "self", "vec" if a["vec"] is not None else "tensor")


@builds("addmm.default", "addbmm.default", "baddbmm.default", anywhere=True)
def _addmm(a: Arguments) -> int:
    first, second = ("mat1", "mat2") if "addmm" in a.target else ("batch1", "batch2")
    if a.target.startswith("addbmm"):
        raise Unsupported("a sum over a batch of products")
    result = scaled(a, product(a, first, second), float(a["alpha"]))
    return plus(a, result, a["self"], float(a["beta"]))


def product(a: Arguments, left: str, right: str) -> int:
    """torch.matmul of two arguments, of which at least one depends on the input."""
    if not a.is_data(a[right]):
        a.dim(-1, left)
        matrix = a.constant(right)
        _batch_free(a, value_shape(matrix), left, 2)
        return _on_the_right(a, matrix, a.x(left))
    a.dim(-2 if a.ndim(right) > 1 else -1, right)
    if not a.is_data(a[left]):
        matrix = a.constant(left)
        _batch_free(a, value_shape(matrix), right, 2)
        return _on_the_left(a, matrix, a.x(right))
    a.dim(-1, left)
    a.aligned(a[left], a[right])
    if min(a.ndim(left), a.ndim(right)) < 2 + (not a.free):
        raise Unsupported("a product of vectors that depend on the input; write (x * y).sum(-1)")
    return a.add(Product(), *a.pair(a.x(left), a.x(right)))


def _batch_free(a: Arguments, shape: Sequence[int], data: str, core: int) -> None:
    """The dimensions in front of a constant matrix must be one where the batch is."""
    axis = a.layout(data).axis - a.ndim(data)
    if axis < -core and len(shape) >= -axis and shape[axis] != 1:
        raise Unsupported("a constant that differs along the batch")


def _on_the_right(a: Arguments, matrix: Any, x: int) -> int:
    """x @ matrix, as a linear layer would do it where the matrix is plain."""
    missing = len(value_shape(matrix)) - len(a.shape(x)) - (not a.free)
    if missing > 0:
        x = a.add(structural.Reshape((1,) * missing + a.shape(x)), x)
    return a.add(affine.MatMul(matrix), x)


def _on_the_left(a: Arguments, matrix: Any, x: int) -> int:
    shape = value_shape(matrix)
    if len(a.shape(x)) == 1:  # a vector for each input of the batch
        column = a.add(structural.Reshape((*a.shape(x), 1)), x)
        if len(shape) == 1:
            raise Unsupported("a product of a vector with the batch")
        row = a.add(affine.MatMul(matrix, left=True), column)
        return a.add(structural.Reshape(a.shape(row)[:-1]), row)
    missing = len(shape) - len(a.shape(x)) - (not a.free)
    if missing > 0:
        x = a.add(structural.Reshape((1,) * missing + a.shape(x)), x)
    return a.add(affine.MatMul(matrix, left=True), x)


@builds("conv1d.default", "conv2d.default", "conv3d.default")
def _conv(a: Arguments) -> int:
    dims = a.ndim("input") - 2
    return _convolve(a, a.x("input"), a.ints("padding", dims))


@builds("conv1d.padding", "conv2d.padding", "conv3d.padding")
def _conv_same(a: Arguments) -> int:
    dims = a.ndim("input") - 2
    x, padding = a.x("input"), (0,) * dims
    if a["padding"] == "same":
        kernel = value_shape(a.constant("weight"))[2:]
        spans = [d * (k - 1) for d, k in zip(a.ints("dilation", dims), kernel, strict=True)]
        padding = tuple(span // 2 for span in spans)
        if any(span % 2 for span in spans):  # one more behind, in the order of F.pad
            behind = [v for span in reversed(spans) for v in (0, span % 2)]
            x = a.add(structural.Pad(tuple(behind)), x)
    return _convolve(a, x, padding)


@builds("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
def _conv_transpose(a: Arguments) -> int:
    return _transposed(a, a.ndim("input") - 2)


@builds("convolution.default")
def _convolution(a: Arguments) -> int:
    dims = a.ndim("input") - 2
    if a["transposed"]:
        return _transposed(a, dims)
    return _convolve(a, a.x("input"), a.ints("padding", dims))


def _convolve(a: Arguments, x: int, padding: tuple[int, ...]) -> int:
    _constant_weight(a)
    dims = len(padding)
    op = affine.Conv(
        a.constant("weight"),
        a.constant("bias"),
        a.ints("stride", dims),
        padding,
        a.ints("dilation", dims),
        a["groups"],
    )
    return a.add(op, x)


def _transposed(a: Arguments, dims: int) -> int:
    _constant_weight(a)
    op = affine.ConvTranspose(
        a.constant("weight"),
        a.constant("bias"),
        a.ints("stride", dims),
        a.ints("padding", dims),
        a.ints("output_padding", dims),
        a.ints("dilation", dims),
        a["groups"],
    )
    return a.add(op, a.x("input"))


def _constant_weight(a: Arguments) -> None:
    if not a.is_data(a["input"]) or a.is_data(a["weight"]):
        raise Unsupported("a convolution whose weight depends on the input")


@builds("batch_norm.default")
def _batch_norm(a: Arguments) -> int:
    if a["training"] or a["running_mean"] is None:
        raise Unsupported("batch normalisation in training mode")
    return fixed_norm(a, "input")


@builds("_native_batch_norm_legit_no_training.default")
def _native_batch_norm(a: Arguments) -> tuple[int | None, ...]:
    return fixed_norm(a, "input"), None, None


def fixed_norm(a: Arguments, name: str) -> int:
    """Normalisation by running statistics."""
    op = affine.BatchNorm(
        a.constant("weight"),
        a.constant("bias"),
        a.constant("running_mean"),
        a.constant("running_var"),
        a["eps"],
    )
    return a.add(op, a.x(name))


@builds("bilinear.default")
def _bilinear(a: Arguments) -> int:
    raise Unsupported("write nn.Bilinear as torch.einsum")
