"""Small modules as users write them: name -> (module, input shape). Every law of capture runs over them."""

import math

import torch
import torch.nn.functional as F
from tests.graph.torch_numeric import BODIES
from tests.laws.networks import Function
from torch import nn

P = nn.Parameter


def function(body, **parts):
    return lambda: Function(body, **{k: v() if callable(v) else v for k, v in parts.items()})


def param(*shape):
    return lambda: P(torch.randn(*shape))


def plain(body):
    return function(lambda m, x: body(x))


def net(*layers):
    return lambda: nn.Sequential(*[layer() for layer in layers])


def scaled(layer):
    """A layer after a linear one, for activations: its inputs have both signs."""
    return lambda: nn.Sequential(nn.Linear(4, 5), layer(), nn.Linear(5, 3))


ACTIVATIONS = {
    name: (scaled(layer), (4,))
    for name, layer in {
        "relu": nn.ReLU,
        "leaky-steep": lambda: nn.LeakyReLU(1.5),
        "leaky-negative": lambda: nn.LeakyReLU(-0.3),
        "prelu": nn.PReLU,
        "prelu-each": lambda: nn.PReLU(5, 0.3),
        "elu": lambda: nn.ELU(0.7),
        "selu": nn.SELU,
        "celu": lambda: nn.CELU(0.6),
        "hardtanh": lambda: nn.Hardtanh(-0.2, 0.5),
        "hardswish": nn.Hardswish,
        "hardsigmoid": nn.Hardsigmoid,
        "silu": nn.SiLU,
        "gelu": nn.GELU,
        "gelu-tanh": lambda: nn.GELU(approximate="tanh"),
        "mish": nn.Mish,
        "softplus": lambda: nn.Softplus(2.0, 4.0),
        "softsign": nn.Softsign,
        "logsigmoid": nn.LogSigmoid,
        "sigmoid": nn.Sigmoid,
        "softshrink": lambda: nn.Softshrink(0.2),
        "hardshrink": lambda: nn.Hardshrink(0.2),
        "tanhshrink": nn.Tanhshrink,
        "threshold": lambda: nn.Threshold(0.1, 0.1),
        "threshold-jump": lambda: nn.Threshold(0.1, -0.5),
        "rrelu": nn.RReLU,
        "softmax": lambda: nn.Softmax(1),
        "softmin": lambda: nn.Softmin(1),
        "logsoftmax": lambda: nn.LogSoftmax(1),
    }.items()
} | {
    "prelu-channels": (net(lambda: nn.Conv2d(2, 3, 3), lambda: nn.PReLU(3, 0.4)), (2, 5, 5)),
    "glu": (net(lambda: nn.Linear(4, 6), lambda: nn.GLU(1)), (4,)),
}

FUNCTIONS = {
    name: (plain(body), (2, 3))
    for name, body in {
        "exp": lambda x: (-x).exp(),
        "log": lambda x: (x + 2).log() + torch.log1p(x + 1) + torch.log2(x + 3) + (x + 2).log10(),
        "exponentials": lambda x: torch.exp2(x) + torch.expm1(x) + 2.5**x + x.sinh() + x.cosh(),
        "roots": lambda x: (x + 2).sqrt() + torch.rsqrt(x + 3),
        "reciprocal": lambda x: torch.reciprocal(x + 2) + 1 / (x + 2.5) - 3.0 / (x + 4),
        "pow": lambda x: x**3 + x**2 + (x + 2) ** -2 + (x + 2) ** 0.3 + x**1 + x**0,
        "square": lambda x: x * x + x.square(),
        "waves": lambda x: x.sin() + torch.cos(2 * x) + (0.5 * x).tan() + x.atan(),
        "abs": lambda x: x.abs() - torch.erf(x) + torch.erfc(x),
        "steps": lambda x: x.sign() + (5 * x).floor() + (5 * x).ceil() + (7 * x).round(),
        "constant-minus": lambda x: 1 - x + (2.0 - 3 * x) - torch.ones(3) + torch.sub(1, x),
        "rsub": lambda x: torch.rsub(x, 1.0, alpha=2) + torch.add(x, x, alpha=0.5),
        "constant-over": lambda x: torch.tensor([1.0, 2.0, 3.0]) / (x + 2),
        "quotient": lambda x: x / (x.flip(1) + 3) + torch.div(x, 3) + torch.true_divide(x, 2),
        "floor-divide": lambda x: torch.div(7 * x, 2, rounding_mode="floor"),
        "product": lambda x: x[:, :1] * x[:, 1:] * torch.tanh(x[:, :1]),
        "clamp-low": lambda x: x.clamp(min=0.3) + x.clamp_min(-0.1),
        "clamp-high": lambda x: x.clamp(max=0.3) + x.clamp_max(0.2),
        "clamp-both": lambda x: x.clamp(0.1, 0.6) + torch.clip(x, 0.2, 0.4) + x.clamp(0.5, 0.2),
        "clamp-tensor": lambda x: torch.clamp(x, torch.zeros(3), torch.tensor([0.2, 0.4, 0.6])),
        "maximum": lambda x: torch.maximum(x, x.flip(2)) + torch.maximum(x, torch.tensor(0.4)),
        "minimum": lambda x: torch.minimum(x, x.flip(1)) + torch.min(x, torch.full((3,), 0.5)),
        "max-dim": lambda x: x.max(1, keepdim=True).values + x.min(dim=2, keepdim=True).values,
        "amax": lambda x: x.amax((1, 2), keepdim=True) - x.amin(2, keepdim=True),
        "step-greater": lambda x: (x > 0.4).float() + (x <= 0.5) * x + (x < x.flip(1)).to(x.dtype),
        "where-data": lambda x: torch.where(x > 0.5, x, 0.1 * x) + torch.where(x <= 0.2, 1.0, 0.0),
        "logic": lambda x: ((x > 0.3) & ~(x > 0.6) | (x == 0.1)).float(),
        "where-constant": lambda x: torch.where(torch.eye(2, 3).bool(), x, 2 * x + 1),
        "where-fill": lambda x: torch.where(torch.eye(2, 3) > 0, x, torch.tensor(0.7)),
        "masked-fill": lambda x: x.masked_fill(torch.eye(2, 3).bool(), -2.0),
        "mean": lambda x: x.mean(1) + x.mean((1, 2), keepdim=True).squeeze(1) + x.sum(-2),
        "variance": lambda x: x.var(2) + x.var(1, unbiased=False).sum(1, keepdim=True),
        "deviation": lambda x: x.std((1, 2), keepdim=True) + torch.std(x, 2, correction=0)[:, None],
        "norms": lambda x: x.norm(dim=2) + x.norm(p=1, dim=2) + x.norm(float("inf"), dim=2),
        "vector-norm": lambda x: torch.linalg.vector_norm(x, 2, dim=(1, 2)) + torch.linalg.norm(x[:, 0], dim=1),
        "norm-three": lambda x: x.norm(p=3, dim=2),
        "normalize": lambda x: F.normalize(x + 2, dim=2),
        "cosine": lambda x: F.cosine_similarity(x[:, 0] + 1, x[:, 1] + 2, dim=1)[:, None],
        "softmax": lambda x: F.softmax(x, 1) + torch.softmax(3 * x, -1),
        "log-softmax": lambda x: F.log_softmax(x, dim=-1) + x.logsumexp(1, keepdim=True),
        "cumsum": lambda x: x.cumsum(1) + x.cumsum(-1),
        "softmax-masked": lambda x: F.softmax(
            x.unsqueeze(1).expand(-1, 3, -1, -1).mean(2).masked_fill(
                torch.triu(torch.ones(3, 3), 1).bool(), float("-inf")), -1),
    }.items()
}  # fmt: skip

LINEAR = {
    "like-of-weight": (function(lambda m, x: next(x @ (v + torch.zeros_like(v)) for v in [m.w.exp()]), w=param(4, 3)), (4,)),
    "addmm": (function(lambda m, x: torch.addmm(m.b, x, m.w, beta=2, alpha=0.5), w=param(4, 3), b=param(3)), (4,)),
    "baddbmm": (plain(lambda x: torch.baddbmm(x, x, x.transpose(1, 2) @ x)), (3, 3)),
    "bmm": (plain(lambda x: torch.bmm(x, x.transpose(1, 2))), (2, 3)),
    "matmul-data": (function(lambda m, x: (x @ m.w) @ x.mT, w=param(3, 3)), (2, 3)),
    "matmul-heads": (plain(lambda x: x.unflatten(2, (2, 2)).transpose(1, 2) @ x.view(-1, 1, 4, 3)[:, :, :2]), (3, 4)),
    "matmul-constant": (function(lambda m, x: m.w @ x + (x.mT @ m.w.T).mT, w=param(4, 2)), (2, 3)),
    "matmul-vector": (function(lambda m, x: (x @ m.v)[:, :2] + torch.mv(m.w, m.v), v=param(3), w=param(2, 3)), (2, 3)),
    "matmul-batched-constant": (function(lambda m, x: x.unsqueeze(1) @ m.w, w=param(2, 3, 4)), (2, 3)),
    "einsum-constant": (function(lambda m, x: torch.einsum("bij,jk->bik", x, m.w), w=param(3, 4)), (2, 3)),
    "einsum-vector": (function(lambda m, x: torch.einsum("bij,j->bi", x, m.w), w=param(3)), (2, 3)),
    "einsum-data": (plain(lambda x: torch.einsum("bij,bkj->bik", x, x.tanh())), (2, 3)),
    "einsum-heads": (plain(lambda x: torch.einsum("bqhd,bkhd->bhqk", x, x)), (2, 2, 3)),
    "linear-moved": (function(lambda m, x: m.l(x.transpose(0, 1)).transpose(0, 1).relu(), l=lambda: nn.Linear(3, 4)), (2, 3)),
    "bilinear": (function(lambda m, x: torch.einsum("bi,oij,bj->bo", x, m.w, x), w=param(2, 3, 3)), (3,)),
    "embedding-positions": (function(lambda m, x: x + m.e(torch.arange(x.shape[1])), e=lambda: nn.Embedding(5, 3)), (2, 3)),
    "tied": (function(lambda m, x: F.linear(m.l(x).relu(), m.l.weight.t()), l=lambda: nn.Linear(4, 5)), (4,)),
    "weight-norm": (net(lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), nn.ReLU), (4,)),
}  # fmt: skip

CONVOLUTIONS = {
    "conv1d-same-even": (net(lambda: nn.Conv1d(2, 3, 4, padding="same"), nn.ReLU), (2, 6)),
    "conv2d-same-even": (net(lambda: nn.Conv2d(2, 3, (2, 4), padding="same", dilation=(1, 3)), nn.ReLU), (2, 8, 9)),
    "conv2d-valid": (net(lambda: nn.Conv2d(2, 3, 2, padding="valid")), (2, 4, 4)),
    "conv2d-reflect": (net(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")), (2, 4, 4)),
    "conv2d-circular": (net(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular")), (2, 4, 4)),
    "conv3d": (net(lambda: nn.Conv3d(2, 2, 2, stride=2), lambda: nn.BatchNorm3d(2), nn.ReLU), (2, 4, 4, 3)),
    "depthwise": (net(lambda: nn.Conv2d(3, 6, 3, groups=3), nn.ReLU6, lambda: nn.Conv2d(6, 2, 1)), (3, 5, 5)),
    "transposed1d": (net(lambda: nn.ConvTranspose1d(2, 3, 3, 2, 1, 1), nn.ReLU), (2, 4)),
    "transposed2d": (net(lambda: nn.ConvTranspose2d(4, 2, 3, 2, 1, 1, groups=2, dilation=2), nn.ReLU), (4, 3, 2)),
    "transposed3d": (net(lambda: nn.ConvTranspose3d(1, 2, 2, 2, bias=False)), (1, 2, 2, 2)),
    "maxpool1d": (net(lambda: nn.MaxPool1d(3, 2, 1)), (2, 7)),
    "maxpool3d": (net(lambda: nn.MaxPool3d(2, 1)), (1, 3, 3, 3)),
    "maxpool-functional": (plain(lambda x: F.max_pool2d(F.relu(x), 3, stride=2, padding=1)), (2, 5, 5)),
    "avgpool3d": (net(lambda: nn.AvgPool3d(2, 1, 1)), (1, 3, 3, 3)),
    "avgpool-divisor": (plain(lambda x: F.avg_pool2d(x, 2, divisor_override=3)), (1, 4, 4)),
    "adaptive-max": (net(lambda: nn.AdaptiveMaxPool2d((2, 1))), (2, 4, 5)),
    "adaptive-max1d": (net(lambda: nn.AdaptiveMaxPool1d(3)), (2, 9)),
    "adaptive-avg3d": (net(lambda: nn.AdaptiveAvgPool3d((2, 1, 2))), (1, 3, 3, 3)),
    "global-avg": (plain(lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1)), (2, 3, 4)),
    "lp-pool": (net(lambda: nn.LPPool2d(2, 2)), (2, 4, 4)),
    "lp-pool1d": (net(lambda: nn.LPPool1d(2, 3)), (2, 6)),
    "upsample-nearest": (net(lambda: nn.Upsample(scale_factor=2)), (2, 3, 2)),
    "upsample-bilinear": (net(lambda: nn.Upsample(scale_factor=1.7, mode="bilinear")), (2, 3, 4)),
    "upsample-corners": (plain(lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True)), (1, 3, 2)),
    "upsample-1d": (plain(lambda x: F.interpolate(x, scale_factor=2, mode="linear")), (2, 3)),
    "upsample-3d": (plain(lambda x: F.interpolate(x, size=(3, 3, 2), mode="trilinear")), (1, 2, 2, 2)),
    "upsample-exact": (plain(lambda x: F.interpolate(x, size=(5, 4), mode="nearest-exact")), (1, 3, 3)),
    "upsample-bicubic": (plain(lambda x: F.interpolate(x, scale_factor=2, mode="bicubic")), (1, 3, 4)),
    "upsample-antialias": (plain(lambda x: F.interpolate(x, size=(3, 2), mode="bilinear", antialias=True)), (1, 6, 5)),
    "downsample-area": (plain(lambda x: F.interpolate(x, size=(2, 2), mode="area")), (1, 4, 6)),
    "unfold": (net(lambda: nn.Unfold(2, padding=1, stride=2)), (2, 4, 4)),
    "pixel-shuffle": (net(lambda: nn.PixelShuffle(2), lambda: nn.Conv2d(1, 2, 2)), (4, 2, 2)),
    "pixel-unshuffle": (net(lambda: nn.PixelUnshuffle(2)), (1, 4, 4)),
    "channel-shuffle": (net(lambda: nn.ChannelShuffle(2)), (4, 2, 2)),
} | {
    f"pad-{mode}": (plain(lambda x, mode=mode: F.pad(x, (1, 2, 0, 1), mode=mode)), (2, 3, 4))
    for mode in ("constant", "reflect", "replicate", "circular")
}  # fmt: skip

NORMS = {
    "layernorm": (net(lambda: nn.Linear(4, 5), lambda: nn.LayerNorm(5), nn.ReLU), (4,)),
    "layernorm-two": (net(lambda: nn.LayerNorm((2, 3), elementwise_affine=False)), (4, 2, 3)),
    "groupnorm": (net(lambda: nn.Conv2d(2, 4, 2), lambda: nn.GroupNorm(2, 4)), (2, 3, 3)),
    "instancenorm": (net(lambda: nn.Conv1d(2, 3, 2), lambda: nn.InstanceNorm1d(3, affine=True)), (2, 5)),
    "instancenorm-running": (net(lambda: nn.InstanceNorm2d(2, track_running_stats=True)), (2, 3, 3)),
    "rmsnorm": (net(lambda: nn.Linear(4, 5), lambda: nn.RMSNorm(5)), (4,)),
    "batchnorm-in-place": (net(lambda: nn.Conv2d(2, 3, 2), lambda: nn.BatchNorm2d(3), lambda: nn.ReLU(inplace=True)), (2, 3, 3)),
}  # fmt: skip

SHAPES = {
    name: (plain(body), (4, 6))
    for name, body in {
        "split": lambda x: torch.cat([p.relu() * i for i, p in enumerate(x.split([1, 2, 3], 2))], 2),
        "chunk": lambda x: sum(x.chunk(3, dim=-1)),
        "unbind": lambda x: torch.stack([p.exp() for p in x.unbind(1)][::-1], dim=2),
        "stack-front": lambda x: torch.stack([x, x.tanh()]).amax(0),
        "cat-constant": lambda x: torch.cat([torch.ones(x.shape[0], 1, 6), x, torch.zeros_like(x)], 1),
        "narrow": lambda x: x.narrow(1, 1, 2) + x[:, -2:] + x[:, ::3],
        "flip": lambda x: x.flip(1) + x.flip((1, 2)) + torch.fliplr(x),
        "roll": lambda x: x.roll(2, 1) + torch.roll(x, (1, -1), (1, 2)),
        "tile": lambda x: x.repeat(1, 2, 1)[:, 2:6] + x.tile((2, 1))[:, :4] + x.repeat_interleave(2, 1)[:, 4:],
        "expand": lambda x: (x.unsqueeze(1).expand(-1, 3, -1, -1) * x.unsqueeze(2)[:, :3]).flatten(2),
        "index-select": lambda x: x.index_select(1, torch.tensor([3, 0, 0])),
        "index": lambda x: x[:, [2, 0, 1]] + x[:, torch.tensor([0, 1, 2]), 3:4],
        "index-two": lambda x: x[:, [0, 1, 3], [5, 0, 0]],
        "index-none": lambda x: x[:, None, 1:, None, 2].squeeze(1),
        "gather": lambda x: x.gather(1, torch.tensor([[[0, 1, 2, 3, 0, 1]]]).expand(x.shape[0], 1, 6)),
        "scatter": lambda x: torch.zeros_like(x).scatter(2, torch.zeros(x.shape[0], 4, 1, dtype=torch.int64), x[:, :, 2:3]),
        "slice-scatter": lambda x: torch.slice_scatter(x, 2 * x[:, :2], 1, 1, 3),
        "select-scatter": lambda x: torch.select_scatter(x, torch.ones_like(x[:, 0]), 1, 2),
        "assign": lambda x: _assign(x),
        "permute": lambda x: x.permute(0, 2, 1).movedim(1, 2).swapaxes(1, 2).mT.transpose(-1, -2),
        "moved": lambda x: x.permute(2, 0, 1).relu().sum(0) + x.transpose(0, 1)[1][:, :4],
        "moved-softmax": lambda x: F.softmax(x.permute(1, 0, 2), -1).permute(1, 0, 2),
        "merged": lambda x: F.relu(x.reshape(-1, 6) @ torch.ones(6, 2).to(x)).view(-1, 4, 2),
        "merged-moved": lambda x: x.transpose(0, 1).reshape(-1, 6).tanh().view(4, -1, 6).transpose(0, 1),
        "view-shape": lambda x: x.view(x.size(0), -1).view(x.shape[0], x.shape[2], x.shape[1]),
        "unflatten": lambda x: x.unflatten(2, (2, 3)).flatten(1, 2).unsqueeze(-1).squeeze(3),
        "diagonal": lambda x: x.diagonal(dim1=1, dim2=2) + x[:, :, :4].tril().sum(1),
        "unfold": lambda x: x.unfold(2, 3, 2).sum(-1),
        "rot90": lambda x: x.rot90(1, (1, 2)),
        "zeros-state": lambda x: x + torch.zeros(x.size(0), 4, 6) + x.new_ones(x.shape[0], 1, 6),
        "casts": lambda x: x.to(torch.float64).double().type_as(x).contiguous().detach(),
        "dropout": lambda x: F.dropout(x, 0.5, training=False).clone(),
        "assert": lambda x: _checked(x),
    }.items()
}  # fmt: skip


def _assign(x):
    h = 2 * x
    h[:, 0] = 0
    h[:, 1, 2:4] += 1
    h[:, 2].relu_()
    return h


def _checked(x):
    torch._assert(x.shape[1] == 4, "four")
    return x.relu()


class Classes(nn.Module):
    """A class token and positions in front of a sequence."""

    def __init__(self):
        super().__init__()
        self.token, self.positions = P(torch.randn(1, 1, 3)), P(torch.randn(1, 4, 3))

    def forward(self, x):
        tokens = self.token.expand(x.shape[0], -1, -1)
        return torch.cat([tokens, x], dim=1) + self.positions[:, : x.shape[1] + 1]


class Attention(nn.Module):
    """Attention spelled out with einops-like views."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 2)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(c // 2)).softmax(dim=-1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, n, c)).mean(1)


def heads(first, **options):
    def body(m, x):
        h = x if first else x.transpose(0, 1)
        h = m.a(h, h, h, **options)[0]
        return h if first else h.transpose(0, 1)

    return function(body, a=lambda: nn.MultiheadAttention(4, 2, batch_first=first))


def encoder(**options):
    return lambda: nn.TransformerEncoderLayer(4, 2, 6, dropout=0.1, batch_first=True, **options)


def recurrent(kind, first=True, take=lambda y, h: y, **options):
    def body(m, x):
        y, h = m.r(x if first else x.transpose(0, 1))
        return take(y if first else y.transpose(0, 1), h)

    return function(body, r=lambda: kind(3, 2, batch_first=first, **options))


CAUSAL = torch.triu(torch.full((3, 3), float("-inf")), 1)
SEQUENCES = {
    "token": (Classes, (3, 3)),
    "spelled": (Attention, (3, 4)),
    "sdpa": (plain(lambda x: F.scaled_dot_product_attention(x, x + 1, 2 * x)), (3, 4)),
    "sdpa-causal": (plain(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True, scale=0.3)), (3, 4)),
    "sdpa-mask": (plain(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=CAUSAL.to(x) == 0)), (3, 4)),
    "sdpa-bias": (plain(lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=CAUSAL.to(x))), (3, 4)),
    "mha": (heads(True), (3, 4)),
    "mha-plain": (heads(True, need_weights=False), (3, 4)),
    "mha-time-first": (heads(False), (3, 4)),
    "mha-masked": (heads(True, attn_mask=CAUSAL.double(), need_weights=False), (3, 4)),
    "encoder": (encoder(), (3, 4)),
    "encoder-norm-first": (encoder(norm_first=True, activation="gelu"), (3, 4)),
    "encoder-stack": (lambda: nn.TransformerEncoder(encoder()(), 2, enable_nested_tensor=False), (2, 4)),
    "lstm": (recurrent(nn.LSTM), (3, 3)),
    "lstm-last": (recurrent(nn.LSTM, take=lambda y, h: h[0][-1]), (3, 3)),
    "lstm-both": (recurrent(nn.LSTM, bidirectional=True, num_layers=2), (2, 3)),
    "lstm-time-first": (recurrent(nn.LSTM, first=False, take=lambda y, h: y[:, -1]), (3, 3)),
    "gru": (recurrent(nn.GRU, take=lambda y, h: torch.cat([y[:, 0], h[0]], 1)), (3, 3)),
    "gru-time-first": (recurrent(nn.GRU, first=False), (2, 3)),
    "rnn": (recurrent(nn.RNN), (3, 3)),
    "rnn-relu": (recurrent(nn.RNN, nonlinearity="relu", bias=False), (3, 3)),
    "lstm-state": (
        function(
            lambda m, x: m.r(x, (torch.ones(1, x.shape[0], 2).to(x), m.h.expand(1, x.shape[0], 2).contiguous()))[0],
            r=lambda: nn.LSTM(3, 2, batch_first=True), h=param(1, 1, 2)),
        (2, 3)),
}  # fmt: skip

TABLE = {
    f"{group}/{name}": entry
    for group, entries in {
        "activation": ACTIVATIONS,
        "function": FUNCTIONS,
        "linear": LINEAR,
        "conv": CONVOLUTIONS,
        "norm": NORMS,
        "numeric": {k: (plain(body), shape) for k, (body, shape) in BODIES.items()},
        "shape": SHAPES,
        "sequence": SEQUENCES,
    }.items()
    for name, entry in entries.items()
}


def make(name):
    """A module of the table in float64 with weights that depend on its name alone."""
    builder, shape = TABLE[name]
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        module = builder().double().eval()
        assert torch.get_default_dtype() == torch.float32
        for part in module.modules():
            if isinstance(getattr(part, "running_var", None), torch.Tensor):
                part.running_var.uniform_(0.5, 2.0)
                part.running_mean.uniform_(-0.5, 0.5)
    return module, shape
