"""Five architectures as users write them, with functional calls: name -> (module, input shape)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Pooled(nn.Module):
    """Convolutions with overlapping max pooling, as in AlexNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, padding="same")
        self.head = nn.Linear(6 * 3 * 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv1(x)), inplace=True), 3, stride=2, padding=1)
        x = F.max_pool2d(self.conv2(x).relu_(), kernel_size=3, stride=2, padding=1)
        return self.head(torch.flatten(x, 1))


class Transformer(nn.Module):
    """A classifier over patches: embedding, class token, positions, one nn.TransformerEncoderLayer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8) * 0.1)
        self.positions = nn.Parameter(torch.randn(1, 5, 8) * 0.1)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1) + self.positions
        return self.head(self.encoder(x)[:, 0])


class Separable(nn.Module):
    """Depthwise-separable convolutions with a residual connection and HardSwish, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1, bias=False)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.pointwise = nn.Conv2d(6, 6, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norms[0](self.stem(x)))
        h = F.relu6(self.norms[1](self.depthwise(x)))
        x = x + self.norms[2](self.pointwise(h))
        return self.head(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1))


class Sequence(nn.Module):
    """An LSTM over the rows of an image; the last output is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h0 = torch.zeros(1, x.size(0), 6, dtype=x.dtype, device=x.device)
        output, _ = self.lstm(x.squeeze(1), (h0, torch.zeros_like(h0)))
        return self.head(output[:, -1, :])


class UNet(nn.Module):
    """Two levels: one goes up by ConvTranspose2d, one by Upsample, both with skip concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.bottom = nn.Conv2d(4, 4, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.join2 = nn.Conv2d(8, 3, 3, padding=1)
        self.up1 = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.join1 = nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = F.relu(self.down1(x))
        second = F.relu(self.down2(F.max_pool2d(first, 2)))
        h = F.relu(self.bottom(F.max_pool2d(second, 2)))
        h = F.relu(self.join2(torch.cat([self.up2(h), second], dim=1)))
        return self.join1(torch.cat((self.up1(h), first), 1))


ARCHITECTURES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "overlapping max pooling": (Pooled, (1, 10, 10)),
    "transformer encoder layer": (Transformer, (1, 8, 8)),
    "depthwise separable": (Separable, (1, 8, 8)),
    "LSTM": (Sequence, (1, 8, 8)),
    "U-Net": (UNet, (1, 8, 8)),
}


def make(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """A module in evaluation mode with weights that depend on its name alone, and its input shape."""
    kind, shape = ARCHITECTURES[name]
    with torch.random.fork_rng():
        torch.manual_seed(sum(map(ord, name)))
        return kind().eval(), shape
