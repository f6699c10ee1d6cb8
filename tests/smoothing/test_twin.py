"""Threads: what may keep something is called by one thread, and a twin stands in only where it agrees."""

import copy
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import certus
from certus.smoothing import Gaussian, Smoothed, twin
from certus.smoothing.derandomized import Columns
from certus.smoothing.draws import Stream
from certus.smoothing.outputs import SmoothedRegression
from certus.smoothing.twin import twin_of

SHARED: dict[str, Tensor] = {}
NOISE = Gaussian(0.5)
X = torch.rand(4, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def two():
    """Two threads of torch."""
    held = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(held)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


class Wrapped(nn.Module):
    """A module of another's making that keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers()

    def forward(self, z: Tensor) -> Tensor:
        return self.inner(z)


class Scratch(nn.Module):
    """Puts its input somewhere, works for a while, and reads it from there."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where, self.buffer, self.slow = where, None, nn.Linear(64, 64)
        if where != "made when needed":
            self.buffer = torch.zeros(256, 64)
        self.array, self.calls = torch.zeros(256, 64).numpy(), 0
        self.nested, self.plain = {"a": [None]}, SimpleNamespace(kept=None)
        self.hooked = nn.Identity()
        kept = {}
        self.closure = kept
        self.hooked.register_forward_hook(lambda part, args, out: kept.update(out=out))

    def forward(self, z: Tensor) -> Tensor:
        n, h = len(z), z * 1.0
        if self.where in ("made when needed", "buffer"):
            self.buffer = torch.zeros(256, 64) if self.buffer is None else self.buffer
            self.buffer[:n] = h
        elif self.where == "data":
            self.buffer.data[:n] = h
        elif self.where == "numpy":
            self.array[:n] = h.numpy()
        elif self.where == "counted":
            self.calls += 1
            SHARED[str(self.calls % 2)] = h
        self.nested["a"][0] = self.plain.kept = self.held = SHARED["g"] = h
        self.hooked(h)
        for _ in range(3):
            self.slow(h)
        return self.read(n)[:, :3]

    def read(self, n: int) -> Tensor:
        if self.where in ("made when needed", "buffer", "data"):
            return self.buffer[:n].clone()
        if self.where == "numpy":
            return torch.from_numpy(self.array[:n].copy())
        return {
            "nested": self.nested["a"][0],
            "plain": self.plain.kept,
            "attribute": self.held,
            "global": SHARED["g"],
            "closure": self.closure.get("out"),
            "counted": SHARED.get(str(self.calls % 2)),
        }[self.where]


PLACES = ["made when needed", "buffer", "data", "numpy", "counted", "nested", "plain", "attribute"]


@pytest.mark.parametrize("work", ["called", "captured if possible"])
@pytest.mark.parametrize("where", [*PLACES, "global", "closure"])
def test_threads_do_not_mix_up_what_a_module_keeps(where, work, two, monkeypatch):
    if work != "called":
        monkeypatch.setattr(twin, "WORTH", 1)
    x = torch.rand(6, 64, generator=torch.Generator().manual_seed(2))
    found = Smoothed(Scratch(where).eval(), NOISE, 3, batch=64).counts(x, 500)
    for b in range(6):
        draws = torch.empty(500, 64)
        Stream.of(NOISE, 0, b, 3).fill(draws, 0, torch.Generator())
        expected = torch.bincount((x[b] + draws)[:, :3].argmax(1), minlength=3)
        assert torch.equal(found[b], expected)


def hooked() -> nn.Module:
    net = layers()
    net[1].register_forward_hook(lambda part, args, out: None)
    return net


def replaced() -> nn.Module:
    net = layers()
    net[1].forward = torch.relu
    return net


def derived() -> nn.Module:
    net = layers()
    net[1] = type("ReLU", (nn.ReLU,), {})()
    return net


def normalised() -> nn.Module:
    net = layers()
    nn.utils.parametrizations.weight_norm(net[0])
    return net


@pytest.mark.parametrize("make", [Wrapped, hooked, replaced, derived, normalised])
@pytest.mark.parametrize("kind", ["module", "function"])
def test_what_may_keep_things_is_called_by_the_thread_that_asks(make, kind, two):
    """That thread's own settings hold as well: threading.local, autocast, deterministic algorithms."""
    net, seen = make(), set()

    class Watched(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            seen.add(threading.get_ident())
            return net(z)

    called = Watched().eval()
    g = Smoothed(called if kind == "module" else called.forward, NOISE, 3)
    g.certify(X, n=2000)
    SmoothedRegression(called, NOISE).certify(X, 0.1, 200)
    assert seen == {threading.get_ident()}
    assert twin_of(net, None, NOISE, X, streams(), 1) is None


def streams() -> list[Stream]:
    return [Stream.of(NOISE, 0, b, 3) for b in range(len(X))]


def test_a_hook_on_all_modules_counts_as_one_on_each():
    net = layers()
    assert twin_of(net, None, NOISE, X, streams(), 1) is net
    handle = nn.modules.module.register_module_forward_pre_hook(lambda part, args: None)
    try:
        assert twin_of(net, None, NOISE, X, streams(), 1) is None
    finally:
        handle.remove()


def test_what_keeps_nothing_is_called_by_several(two):
    seen = set()

    wrapped = Wrapped().eval()
    graph = certus.trace(wrapped, X)
    original = type(graph).__call__

    def watched(self, z: Tensor) -> Tensor:
        seen.add(threading.get_ident())
        return original(self, z)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(graph), "__call__", watched)
        found = Smoothed(graph, NOISE, 3).counts(X, 20_000)
        assert seen - {threading.get_ident()}
        asked = Smoothed(wrapped, NOISE, 3, graph=graph).counts(X, 20_000)
    assert torch.equal(found, Smoothed(layers(), NOISE, 3).counts(X, 20_000))
    assert torch.equal(found, asked)


def test_a_module_is_captured_where_that_pays(two, monkeypatch):
    net = Wrapped().eval()
    few = Smoothed(net, NOISE, 3).counts(X, 700)
    monkeypatch.setattr(twin, "WORTH", 2800)
    before = dict(vars(net))
    assert isinstance(twin_of(net, None, NOISE, X, streams(), 2800), certus.Graph)
    assert twin_of(net, None, NOISE, X, streams(), 2799) is None
    assert torch.equal(Smoothed(net, NOISE, 3).counts(X, 700), few)
    assert vars(net) == before


def test_capturing_calls_a_copy(monkeypatch):
    """What capturing would leave in a module, stand-ins for tensors among it, is left in the copy."""

    class Kept(Wrapped):
        def __init__(self) -> None:
            super().__init__()
            self.kept = []

        def forward(self, z: Tensor) -> Tensor:
            self.kept.append(z)
            return self.inner(z)

    monkeypatch.setattr(twin, "WORTH", 1)
    net = Kept().eval()
    found = twin_of(net, None, NOISE, X, streams(), 1)
    assert isinstance(found, certus.Graph)
    assert [len(rows) for rows in net.kept] == [64]  # the comparison
    assert found.tensors()[0][1].data_ptr() == net.inner[0].weight.data_ptr()


@pytest.mark.parametrize("noise", [NOISE, Columns(1, 0.5)])
def test_a_graph_of_another_module_stands_for_nothing(noise):
    x = X.view(4, 1, 2, 4)
    net = nn.Sequential(nn.Flatten(), Wrapped()).eval()
    given = [None] * 4 if isinstance(noise, Columns) else streams()
    assert twin_of(net, certus.trace(net, x), noise, x, given, 1) is not None
    for change in (lambda z: z * (1 + 1e-2), lambda z: -z, lambda z: z[:, :2]):
        other = copy.deepcopy(net)
        other[1].forward = lambda z, change=change: change(net[1].inner(z))
        assert twin_of(net, certus.trace(other, x), noise, x, given, 1) is None


def test_a_graph_whose_module_has_changed_since_is_refused():
    net = nn.Sequential(nn.Flatten(), Wrapped()).eval()
    graph = certus.trace(net, X)
    net[1].forward = lambda z: net[1].inner(z) * (1 + 1e-2)
    with pytest.raises(certus.ModelError, match="has changed"):
        twin_of(net, graph, NOISE, X, streams(), 1)
    with pytest.raises(certus.ArgumentError, match="the Graph of module"):
        Smoothed(Wrapped().eval(), NOISE, 3, graph=graph)


def test_small_answers_beside_a_large_constant_are_compared_by_their_spread():
    class Shifted(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.inner, self.scale = layers(), scale

        def forward(self, z: Tensor) -> Tensor:
            return self.scale * self.inner(z)

    small = Shifted(1e-6).eval()
    other = certus.trace(Shifted(-1e-6).eval(), X)
    assert twin_of(small, other, NOISE, X, streams(), 1) is None
    assert twin_of(small, certus.trace(small, X), NOISE, X, streams(), 1) is not None


def test_a_mode_of_the_asking_thread_keeps_the_module_there():
    """autocast belongs to a thread: others would compute another function."""
    net = layers()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert twin_of(net, None, NOISE, X, streams(), 1) is None
    assert twin_of(net, None, NOISE, X, streams(), 1) is net


def test_a_module_may_keep_the_rows_that_it_was_given():
    """Rows are written into one buffer again and again, which a module must not see."""

    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows, self.answers = None, None

        def forward(self, z: Tensor) -> Tensor:
            if self.rows is None or not torch.equal(self.rows, z):
                self.rows, self.answers = z, z[:, :3] * 1.0
            return self.answers

    found = Smoothed(Remembers().eval(), NOISE, 3, batch=64).counts(X, 640)
    assert torch.equal(found, Smoothed(lambda z: z[:, :3], NOISE, 3).counts(X, 640))
