"""Proven upper bounds of l2 operator norms: dense matrices and zero-padded convolutions.

Convolution. Zero padding followed by a finite convolution is P T E: E puts the input into l2(Z^d)
(an isometry), T convolves there, P keeps the outputs that exist (norm 1); hence padding and input
size drop out and norm <= ||T|| = sup over frequencies w of ||K^(w)||_2, K^(w) = sum_t K[t]
e^{-iwt}.

* Stride s: sorting positions by their residue modulo s (space to depth) is an isometry and turns T
  into a convolution of stride 1 with kernel [out, in * prod(s), ceil(k / s)].
* Dilation: the kernel is written out with its zeros. Groups are diagonal blocks: the largest
  counts.
* The sup from a grid of N_i points in dimension i: let M = sup ||K^||, attained at w with singular
  vectors u, v. For fixed other coordinates p(t) = Re(c e^{i n t} u* K^(w + t e_i) v), with c a
  phase that makes p(0) = M and n = (k_i - 1) / 2, is a real function of exponential type n with |p|
  <= M, so p(t) >= M cos(n t) for |t| <= pi / n (M. Riesz 1914; Duffin & Schaeffer 1938). A grid
  coordinate lies within pi / N_i of any number; going coordinate by coordinate, each time from the
  largest value that remains, gives (largest value on the grid) >= M prod_i cos(n_i pi / N_i).

Sedghi, Gupta & Long 2019 give the circular case, Pfister & Bresler 2018 bounds from a grid,
Delattre et al. 2023 the passage from circular to zero padding. Everything is float64; the relative
rounding error of the eigenvalues (about 1e-12) is covered by the factor SAFETY.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from certus.core import ArgumentError

SAFETY = 1 + 1e-9
_CHUNK = 1 << 21  # complex numbers held at a time (32 MiB)


def dense_bound(matrix: Tensor) -> Tensor:
    """Upper bound of ||M||_2, the largest over leading dimensions; a 0-dim float64 tensor.

    matrix [..., m, n], finite. Differentiable. The bound exceeds the norm by SAFETY only.
    """
    blocks = matrix.double().reshape(-1, *matrix.shape[-2:])
    scale = _scale(blocks)
    tops = _top(blocks.detach() / scale)
    return _live(blocks, tops, scale) * SAFETY


def conv_bound(
    weight: Tensor,
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    tolerance: float = 0.01,
) -> Tensor:
    """Upper bound of the norm of a convolution with any zero padding and input size; 0-dim float64.

    weight [out, in / groups, *kernel] in any number of spatial dimensions, finite. Differentiable
    (through the frequency with the largest value). The result is at most (1 + tolerance) times the
    norm on an infinite domain; a smaller tolerance evaluates more frequencies. Raises ArgumentError
    for a tolerance outside (0, 1].
    """
    if not 0 < tolerance <= 1:
        raise ArgumentError(f"tolerance must lie in (0, 1], got {tolerance!r}")
    kernel = _polyphase(_dilated(weight.double(), dilation), stride)
    taps = kernel.shape[2:]
    counts, factor = _grid(taps, tolerance)
    scale = _scale(kernel)
    flat = kernel.reshape(groups, kernel.shape[0] // groups, kernel.shape[1], -1) / scale
    offsets = torch.cartesian_prod(*[torch.arange(k, dtype=torch.float64) for k in taps])
    offsets = offsets.reshape(-1, len(taps)).to(kernel.device)
    points = _points(counts).to(kernel.device)
    step = max(1, _CHUNK // max(1, flat.shape[0] * flat.shape[1] * flat.shape[2]))
    fixed = flat.detach()
    tops = torch.cat([_top(_response(fixed, offsets, w)) for w in points.split(step)])
    best = tops.reshape(len(points), groups).amax(1).argmax()
    blocks = _response(flat, offsets, points.index_select(0, best.reshape(1)))
    return _live(blocks, tops, torch.ones_like(scale)) * scale * (factor * SAFETY)


def _scale(value: Tensor) -> Tensor:
    """A divisor that keeps squares inside the range of float64; 1 where all values are zero."""
    largest = value.detach().abs().amax()
    return torch.where(largest > 0, largest, torch.ones_like(largest))


def _top(blocks: Tensor) -> Tensor:
    """Largest singular value of each of [F, m, n], from the smaller Gram matrix."""
    wide = blocks.shape[-2] <= blocks.shape[-1]
    gram = blocks @ blocks.mH if wide else blocks.mH @ blocks
    return torch.linalg.eigvalsh(gram)[..., -1].clamp(min=1e-300).sqrt()


def _live(blocks: Tensor, tops: Tensor, scale: Tensor) -> Tensor:
    """max(tops) * scale, with the gradient of the norm of `blocks` where one is asked for."""
    value = tops.amax() * scale
    if not blocks.requires_grad:
        return value
    now = _top(blocks / scale).amax() * scale
    return value + (now - now.detach())


def _dilated(weight: Tensor, dilation: Sequence[int]) -> Tensor:
    """The kernel with the zeros that dilation puts between its taps."""
    for axis, d in enumerate(dilation, start=2):
        if d > 1 and weight.shape[axis] > 1:
            shape = list(weight.shape)
            shape[axis] = (shape[axis] - 1) * d + 1
            index = torch.arange(weight.size(axis), device=weight.device) * d
            weight = weight.new_zeros(shape).index_copy(axis, index, weight)
    return weight


def _polyphase(weight: Tensor, stride: Sequence[int]) -> Tensor:
    """[out, in, *k] at stride s -> [out, in * prod(s), *ceil(k / s)] at stride 1.

    Tap t meets input residue t mod s at coarse position t // s; a padding offset only shifts and
    permutes residues, which changes no norm.
    """
    for axis, s in enumerate(stride, start=2):
        if s == 1:
            continue
        size = weight.shape[axis]
        coarse = -(-size // s)
        filler = list(weight.shape)
        filler[axis] = coarse * s - size
        weight = torch.cat([weight, weight.new_zeros(filler)], axis)
        weight = weight.unflatten(axis, (coarse, s)).movedim(axis + 1, 2).flatten(1, 2)
    return weight


def _grid(taps: Sequence[int], tolerance: float) -> tuple[list[int], float]:
    """Grid points for each dimension and the factor 1 / prod cos(n pi / N) <= 1 + tolerance."""
    wide = sum(k > 1 for k in taps)
    if wide == 0:
        return [1] * len(taps), 1.0
    angle = math.acos((1 + tolerance) ** (-1 / wide))
    counts = [1 if k == 1 else math.ceil((k - 1) / 2 * math.pi / angle) for k in taps]
    factor = 1.0
    for k, count in zip(taps, counts, strict=True):
        factor /= math.cos((k - 1) / 2 * math.pi / count) if k > 1 else 1.0
    return counts, factor


def _points(counts: Sequence[int]) -> Tensor:
    """Frequencies [F, d]; of each pair w, -w (equal norms, as the kernel is real) one suffices."""
    kept = [range(n) for n in counts[:-1]] + [range(counts[-1] // 2 + 1)]
    rows = list(itertools.product(*kept))
    return 2 * math.pi * torch.tensor(rows, dtype=torch.float64) / torch.tensor(counts)


def _response(flat: Tensor, offsets: Tensor, points: Tensor) -> Tensor:
    """K^(w) for kernels [g, m, n, taps] at points [F, d]: [F * g, m, n] complex."""
    angles = points @ offsets.T
    phases = torch.complex(angles.cos(), -angles.sin())
    spectrum = torch.tensordot(phases, flat.to(phases.dtype), dims=([1], [3]))
    return spectrum.flatten(0, 1)
