"""The vision transformers of VNN-COMP 2023 as a torch module, from the constants of the ONNX file."""

import gzip
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HEAD = 16  # values of one attention head in both networks


class Norm(nn.Module):
    """Batch normalisation of [B, tokens, width] over the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Heads of 16 values, spelled out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.heads = width // HEAD

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        batch = x.shape[0]
        q = self.query(x).reshape(batch, -1, self.heads, HEAD).permute(0, 2, 1, 3)
        k = self.key(x).reshape(batch, -1, self.heads, HEAD).permute(0, 2, 3, 1)
        v = self.value(x).reshape(batch, -1, self.heads, HEAD).permute(0, 2, 1, 3)
        weights = torch.softmax(torch.matmul(q, k) * HEAD**-0.5, dim=-1)
        mixed = torch.matmul(weights, v).permute(0, 2, 1, 3)
        return self.out(mixed.reshape(batch, -1, self.heads * HEAD))


class Residual(nn.Module):
    """x + part(norm(x)), under the names that the file uses."""

    def __init__(self, width: int, part: nn.Module) -> None:
        super().__init__()
        self.fn = nn.Sequential(Norm(width), part)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        return self.fn(x) + x


class Embedding(nn.Module):
    """Patches, a class token and positions."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros((32 // patch) ** 2 + 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 32, 32] -> [B, T, D]."""
        tokens = self.projection(x).flatten(2).transpose(1, 2)
        token = torch.zeros(x.shape[0], 1, tokens.shape[2]) + self.cls_token
        return torch.cat([token, tokens], dim=1) + self.positions


class Mean(nn.Module):
    """The mean of the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, D]."""
        return x.mean(1)


def read_vit(path: Path) -> nn.Module:
    """The module of a gzipped file; `difference` compares it with onnxruntime."""
    import onnx

    model = onnx.load_from_string(gzip.decompress(path.read_bytes()))
    held = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    width, _, patch, _ = held["0.projection.weight"].shape
    depth = len([name for name in held if name.endswith("query.bias")])
    blocks = []
    for _ in range(depth):
        wide = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Identity(), nn.Linear(2 * width, width)
        )
        blocks.append(nn.Sequential(Residual(width, Attention(width)), Residual(width, wide)))
    head = nn.Sequential(Mean(), nn.BatchNorm1d(width), nn.Linear(width, 10))
    net = nn.Sequential(Embedding(width, patch), nn.Sequential(*blocks), head)
    state = {k: np.array(v) for k, v in held.items() if not k.startswith("onnx::")}
    for (
        node
    ) in model.graph.node:  # matrices lost their names: the bias of the next node tells whose
        matrix = held.get(node.input[1]) if node.op_type == "MatMul" else None
        if matrix is None:
            continue
        after = next(other for other in model.graph.node if node.output[0] in other.input)
        bias = next(name for name in after.input if name in held)
        state[bias.removesuffix("bias") + "weight"] = matrix.T.copy()
    own = net.state_dict()
    missing = {k for k in own if k not in state and not k.endswith("num_batches_tracked")}
    assert not missing and set(state) <= set(own), (missing, set(state) - set(own))
    net.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()}, strict=False)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.eps = 1e-5
    return net


def difference(path: Path, module: nn.Module, x: Tensor) -> float:
    """Largest difference from onnxruntime, relative to max(1, largest output)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        gzip.decompress(path.read_bytes()), providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    found = module(x).detach().numpy()
    return float(np.abs(found - wanted).max() / max(1.0, np.abs(wanted).max()))
