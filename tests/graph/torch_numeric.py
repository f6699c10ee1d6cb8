"""Functions with jumps, inverse functions, order statistics, sums by index and spectra: bodies, shapes."""

import torch

SMALL, LONG = (2, 3), (4, 6)

STEPS = {
    "towards-zero": lambda x: (7 * x - 3).trunc() + (5 * x - 2).fix() + torch.div(x - 3, 0.4, rounding_mode="trunc"),
    "hypot": lambda x: torch.hypot(x, x[:, :1] - 1) + torch.hypot(x - 0.5, torch.tensor([0.3, 0.0, 1.0]).to(x)),
    "buckets": lambda x: torch.bucketize(x, torch.tensor([0.2, 0.5, 0.9]).to(x)).to(x) + torch.bucketize(x.round(decimals=1), torch.tensor([0.2, 0.5]).to(x), right=True),
    "logaddexp": lambda x: torch.logaddexp(x, 2 * x.flip(2)) + torch.logaddexp(torch.tensor(0.3).to(x), x),
    "distances": lambda x: torch.cdist(x, x.flip(2) + 1) + torch.cdist(2 * x, torch.eye(2, 3).to(x).expand(x.shape[0], 2, 3), p=1.0),
    "fraction": lambda x: (7 * x - 3).frac() + x.round(decimals=1),
    "remainder": lambda x: (9 * x - 4) % 2 + torch.remainder(9 * x - 4, -1.5) + torch.remainder(x, torch.tensor([0.5, -0.2, 3.0])),
    "fmod": lambda x: torch.fmod(9 * x - 4, 2) + torch.fmod(3 * x - 1, torch.tensor([0.5, -0.2, 3.0])),
    "heaviside": lambda x: sum(torch.heaviside(x.round(decimals=1) - 0.5, v) for v in torch.tensor([[1.0], [0.0], [0.25]]).to(x)),
    "inverse": lambda x: (2 * x).asinh() + (x + 1.5).acosh() + (x / 2).atanh() + (x / 2).asin() - (x / 2).acos(),
}  # fmt: skip

EDGES = torch.tensor([1, 3, 0, 0, 1, 2]), torch.tensor([0, 0, 1, 3, 2, 2])
WIDE = EDGES[1][:5, None].expand(5, 6)
SUMS = {
    "index-add": lambda x: torch.zeros_like(x).index_add(1, EDGES[1], x[:, EDGES[0]]),
    "index-add-onto": lambda x: x.index_add(2, EDGES[1], x.relu(), alpha=-0.5) + torch.ones_like(x).index_add_(1, EDGES[0], x[:, EDGES[1]]),
    "scatter-add": lambda x: torch.zeros_like(x).scatter_add(1, WIDE.expand(x.shape[0], 5, 6), torch.cat([x, 2 * x], 1)),
    "scatter-add-ones": lambda x: x.scatter_add(2, EDGES[1].expand(x.shape[0], 4, 6), torch.ones_like(x)),
    "scatter-reduce": lambda x: torch.zeros_like(x).scatter_reduce(1, WIDE[:4].expand(x.shape[0], 4, 6), x, "sum"),
    "scatter-mean": lambda x: x.scatter_reduce(1, WIDE[:4].expand(x.shape[0], 4, 6), x.exp(), "mean", include_self=False),
    "scatter-mean-self": lambda x: x.scatter_reduce(1, WIDE[:4].expand(x.shape[0], 4, 6), x.exp(), "mean"),
    "scatter-largest": lambda x: torch.zeros_like(x).scatter_reduce(1, WIDE[:4].expand(x.shape[0], 4, 6), x - 0.5, "amax"),
    "scatter-smallest": lambda x: x.scatter_reduce(1, WIDE[:3].expand(x.shape[0], 3, 6), x.exp() - 1, "amin", include_self=False),
    "index-put": lambda x: torch.ops.aten.index_put(x, [None, EDGES[1]], x[:, EDGES[0]].exp(), True),
    "index-put-wide": lambda x: torch.ops.aten.index_put(x, [None, EDGES[1][:3], EDGES[0][:3]], x[:, :1, :1].squeeze(1), True),
    "index-reduce": lambda x: x.index_reduce(1, EDGES[1], x[:, EDGES[0]], "mean"),
}  # fmt: skip

FILTER = torch.complex(
    *torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
)
FFT = torch.fft
SPECTRA = {
    "power": lambda x: FFT.rfft(x).real ** 2 + FFT.rfft(x, norm="ortho").imag ** 2,
    "size": lambda x: FFT.fft(x, dim=1).abs() + torch.stft(x[:, 0], 4, 2, window=torch.ones(4).to(x), return_complex=True).abs().mean((1, 2))[:, None, None],
    "mixing": lambda x: FFT.fft2(x).real + FFT.fft(FFT.fft(x, dim=2), dim=1).imag,
    "two-dimensions": lambda x: torch.view_as_real(FFT.rfft2(x, norm="forward")).flatten(1),
    "there-and-back": lambda x: FFT.irfft(FFT.rfft(x), n=6) + FFT.ifft(FFT.fft(x, n=8)).real[..., :6] + FFT.irfft2(FFT.rfft2(x), s=(4, 6)),
    "filtered": lambda x: FFT.irfft2(FFT.rfft2(x) * FILTER.to(FFT.rfft2(x)), s=(4, 6)),
    "convolution": lambda x: FFT.irfft(FFT.rfft(x) * FFT.rfft(torch.arange(6.0).to(x)), n=6),
    "correlation": lambda x: (FFT.fft(x) * FFT.fft(x.flip(1)).conj()).real,
    "squared": lambda x: FFT.fft(x).pow(2).imag + (FFT.fft(x) ** 2).real + FFT.fft(x).square().real,
    "shifted": lambda x: FFT.fftshift(FFT.fft(x), dim=2).imag + FFT.ifftshift(FFT.fft2(x), dim=(1, 2)).real,
    "moved-spectrum": lambda x: FFT.fft(x).transpose(1, 2).reshape(-1, 3, 8)[:, 1:, ::2].abs().flatten(1) + FFT.fft(x)[:, :2, 1:5].unsqueeze(1).real.flatten(1),
    "complex-sums": lambda x: (FFT.fft(x) - 2 * FFT.fft(x.exp()) + x + 1.5).imag + ((1 - FFT.fft(x)) / (2 + 1j) + x * 1j).real,
    "of-odd-length": lambda x: torch.fft.hfft(FFT.rfft(x[..., :5]), n=5) + FFT.rfft(x[..., :3]).imag.sum(2, keepdim=True),
}  # fmt: skip

ORDERS = {
    "sorted": lambda x: x.sort(1).values + x.sort(dim=2, descending=True, stable=True).values,
    "top": lambda x: x.topk(3, 1).values.sum(2) + x.topk(2, dim=2, largest=False)[0].sum(2, keepdim=True).mean(1),
    "statistics": lambda x: x.kthvalue(2, 2).values + x.median(1).values.sum(1, keepdim=True) + torch.msort(x.transpose(0, 1)).transpose(0, 1)[:, 1:2, 0],
}  # fmt: skip

NEAR_AND_FAR = torch.tensor([-1e30, 0.2, 0.5, -1e9, 0.4, float("-inf")])
LIMITS = {
    "limits-far": lambda x: torch.maximum(x, NEAR_AND_FAR) + torch.minimum(-NEAR_AND_FAR, x),
    "limits-equal": lambda x: torch.maximum(torch.full((4, 1), -1e30), x[:, :1]) + torch.clamp(x, max=torch.full((6,), 0.3)),
    "limits-clamp": lambda x: torch.clamp(x, NEAR_AND_FAR, torch.tensor([2e12, 0.6, 0.7, 1e30, 0.5, 0.4])),
}  # fmt: skip

BODIES = {name: (body, SMALL) for name, body in STEPS.items()}
BODIES |= {name: (body, LONG) for name, body in (SUMS | SPECTRA | ORDERS | LIMITS).items()}
