"""Engine: the same draws however they are cut, shared or spread over threads; early answers refill."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import certus
from certus.smoothing import Gaussian, Smoothed
from certus.smoothing.derandomized import Columns
from certus.smoothing.draws import BLOCK, Stream
from certus.smoothing.engine import Engine
from certus.smoothing.piece import Piece
from certus.smoothing.response import response
from certus.smoothing.rules import Judgement, Path, Rule


def mlp() -> nn.Module:
    torch.manual_seed(3)
    layers = nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3, bias=False)
    return nn.Sequential(*layers).double().eval()


def inputs(size: int = 5) -> Tensor:
    seeded = torch.Generator().manual_seed(1)
    return torch.randn(size, 1, 3, 4, generator=seeded, dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 50, 64, 100, 256, 400])
def test_pieces_are_cut_without_gaps_and_at_blocks(batch):
    parts = list(Piece(None, 10, 1000, tuple(range(70))).cut(batch, BLOCK))
    for b in (0, 69):
        own = [(p.start, p.stop) for p in parts if b in p.inputs]
        assert own[0][0] == 10
        assert own[-1][1] == 1000
        assert all(left[1] == right[0] for left, right in pairwise(own))
        assert all(stop - start <= batch for start, stop in own)
        if batch >= BLOCK:
            assert all(stop % BLOCK == 0 for _, stop in own[:-1])
            assert len(own) <= 1 + -(-1000 // (batch - batch % BLOCK))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing_and_are_put_back(threads):
    expected = Smoothed(mlp(), Gaussian(0.7), 3).certify(inputs(), n=3000)
    held = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = Smoothed(mlp(), Gaussian(0.7), 3).certify(inputs(), n=3000)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(held)
    assert found.evidence == expected.evidence


def test_shared_draws_are_those_of_one_id():
    shared = Smoothed(mlp(), Gaussian(0.7), 3, shared=True).counts(inputs(40), 500)
    assert torch.equal(shared, Smoothed(mlp(), Gaussian(0.7), 3).counts(inputs(40), 500, [0] * 40))
    assert len(shared.unique(dim=0)) > 5


def test_the_response_of_the_first_layer_gives_the_same_counts():
    x = inputs(40)
    graph = certus.trace(mlp(), x)
    cut = response(graph)
    assert cut is not None
    assert cut.shape == (5,)
    draws = torch.randn(7, 1, 3, 4, dtype=torch.float64)
    whole = graph(x[:1] + draws)
    assert torch.allclose(cut(cut.of_inputs(x[:1]) + cut.of_draws(draws)), whole, atol=1e-12)
    found = Smoothed(graph, Gaussian(0.7), 3, shared=True).counts(x, 700)
    assert torch.equal(found, Smoothed(mlp(), Gaussian(0.7), 3, shared=True).counts(x, 700))


def test_no_cut_where_it_saves_nothing_or_is_read_around():
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(12, 3).double()

        def forward(self, z: Tensor) -> Tensor:
            flat = z.flatten(1)
            return self.first(flat) + flat[:, :3].relu()

    assert response(certus.trace(Around().eval(), inputs())) is None
    wide = nn.Sequential(nn.Flatten(), nn.Linear(12, 50), nn.ReLU(), nn.Linear(50, 3)).double()
    assert response(certus.trace(wide.eval(), inputs())) is None


@dataclass(frozen=True, kw_only=True)
class Until(Rule):
    """Stops when the chosen class has so many hits; it proves nothing worth having."""

    hits: int = 150

    def looks(self) -> tuple[int, ...]:
        return (*range(32, self.n, 32), self.n)

    def _judge(self, path: Path, noise: Gaussian, alpha: float) -> Judgement | None:
        if path.hits[-1] < self.hits and path.taken[-1] < self.n:
            return None
        return Judgement.one_sided(float(path.hits[-1]) / float(path.taken[-1]) / 2)


@pytest.mark.parametrize("shared", [False, True])
def test_settled_inputs_stop_and_nobody_else_notices(shared):
    x, rule = inputs(60), Until(n0=20, n=400)
    g = Smoothed(mlp(), Gaussian(0.7), 3, shared=shared)
    found = g.certify(x, rule=rule)
    taken = np.array([record["n"] for record in found.evidence])
    assert len(set(taken)) > 3
    for b in (0, 17, 59):
        alone = g.certify(x[b : b + 1], rule=rule, ids=[b]).evidence[0]
        assert alone["counts"] == found.evidence[b]["counts"]
        ids = [0 if shared else b]
        stream = Smoothed(mlp(), Gaussian(0.7), 3)
        assert stream.counts(x[b : b + 1], alone["n"], ids, 2)[0].tolist() == alone["counts"]


def test_an_error_in_a_thread_ends_the_call_and_leaves_torch_as_it_was():
    class Broken(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            if len(z) > 8:
                raise RuntimeError("no such kernel")
            return z.flatten(1)[:, :3]

    held = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="no such kernel"):
        Smoothed(Broken().eval(), Gaussian(1.0), 3).counts(inputs(), 100_000)
    assert torch.get_num_threads() == held


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_shares_draws_without_a_response(dtype):
    module, x = mlp().to(dtype), inputs(3).to(dtype)
    found = Smoothed(certus.trace(module, x), Gaussian(0.7), 3, shared=True).counts(x, 300)
    assert torch.equal(found, Smoothed(module, Gaussian(0.7), 3, shared=True).counts(x, 300))


def test_the_response_of_a_layer_without_parameters():
    module = nn.Sequential(nn.AvgPool2d(2, 1), nn.Flatten(), nn.ReLU()).eval()
    x = inputs(3).float()
    found = Smoothed(certus.trace(module, x), Gaussian(0.7), 6, shared=True).counts(x, 300)
    assert torch.equal(found, Smoothed(module, Gaussian(0.7), 6, shared=True).counts(x, 300))


def test_a_thread_that_finds_no_buffers_left_makes_its_own():
    class Taken(list):
        def __len__(self) -> int:
            return 1  # as seen before another thread took it

    x = inputs(2)
    with Engine(mlp(), Gaussian(1.0), 3, x, 64, several=True) as engine:
        engine._desks = Taken()
        pieces = [Piece(Stream.of(Gaussian(1.0), 0, b, 2), 0, 100, (b,)) for b in range(2)]
        assert engine.tally(pieces).sum(1).tolist() == [100, 100]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_laid_out_for_convolutions_and_keep_their_values(channels):
    torch.manual_seed(2)
    x = torch.rand(3, channels, 6, 5)
    strides = set()

    class Sees(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten())
            self.last = nn.Linear(48, 3)

        def forward(self, z: Tensor) -> Tensor:
            strides.add(z.stride())
            return self.last(self.inner(z))

    model = Sees().eval()
    found = Smoothed(model, Gaussian(0.5), 3, batch=100).counts(x, 300)
    assert (30 * channels, 1, 5 * channels, channels) in strides
    for b in range(3):
        draws = torch.empty(300, channels, 6, 5)
        Stream.of(Gaussian(0.5), 0, b, 3).fill(draws, 0, torch.Generator())
        winners = model(x[b] + draws).argmax(1)
        assert torch.equal(torch.bincount(winners, minlength=3), found[b])


def test_counts_of_samples_have_no_part_in_a_proof():
    g = Smoothed(mlp(), Columns(1, 0.5), 3)
    assert torch.equal(g.certify(inputs(), n=50).radius, g.certify(inputs()).radius)


@pytest.mark.parametrize("channels", [1, 3])
def test_modules_that_view_their_values_are_given_plain_images(channels):
    class Viewed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(channels, 4, 3), nn.Linear(4 * 16, 3)

        def forward(self, z: Tensor) -> Tensor:
            return self.last(self.conv(z).relu().view(len(z), -1))

    x = torch.rand(2, channels, 6, 6)
    found = Smoothed(Viewed().eval(), Gaussian(0.5), 3).counts(x, 300)
    assert found.sum(1).tolist() == [300, 300]
