"""The two engines under one face: prepare a case once, then ask for margins' lower bounds."""

import time
from collections.abc import Callable
from typing import Any

import torch
from nets import Case
from torch import Tensor

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")
ITERATIONS = 20
PEER_METHODS = {
    "ibp": "IBP",
    "crown-ibp": "CROWN-IBP",
    "crown": "CROWN",
    "alpha-crown": "CROWN-Optimized",
}


def margins(y: Tensor, classes: int = 10) -> Tensor:
    """Rows z_y - z_j for every j != y: [B, classes - 1, classes]."""
    rows = torch.eye(classes)[y].unsqueeze(1) - torch.eye(classes)
    others = torch.arange(classes) != y.unsqueeze(1)
    return rows[others].view(len(y), classes - 1, classes)


def plain(case: Case, method: str) -> Callable[[], Tensor]:
    """The network itself; method is not used."""
    del method

    def run() -> Tensor:
        with torch.no_grad():
            return case.module(case.x)

    return run


class CertusEngine:
    """Certus: the network captured once (an ONNX file read once), lower bounds alone."""

    def __init__(self, case: Case, method: str) -> None:
        import certus

        self.method = certus_method(method)
        self.graph = certus_graph(case)
        self.region, spec = certus.Box(case.lower, case.upper), margins(case.y)
        self.rows = spec.transpose(0, 1).reshape(*spec.shape[1::-1], *self.graph.output_shape)
        self.state: Any = None

    def __call__(self) -> Tensor:
        """Lower bounds [B, R]; the state is kept until the next call, for `multiply_adds`."""
        self.state = None
        with torch.no_grad():
            self.state = self.method.prepare(self.graph.resolved(), self.region)
            return self.method.lower(self.state, self.rows).T

    def multiply_adds(self) -> float:
        """What the last call needed at least."""
        from limits import multiply_adds

        rows, batch = self.rows.shape[0], len(self.region)
        return multiply_adds(self.method, self.graph.resolved(), self.state, batch, rows)


def certus_graph(case: Case) -> Any:
    """The ONNX file where there is one, else the module."""
    import certus

    return certus.trace(case.module, case.x[:1]) if case.path is None else certus.load(case.path)


def certus_method(name: str) -> Any:
    """The BoundMethod of a name of this benchmark."""
    import certus

    if name == "alpha-crown":
        from certus.bounding.alpha_crown import AlphaCrown

        return AlphaCrown(iterations=ITERATIONS)
    return {"ibp": certus.IBP, "crown-ibp": certus.crown_ibp, "crown": certus.Crown}[name]()


def peer_engine(case: Case, method: str) -> Callable[[], Tensor]:
    """auto_LiRPA as its examples call it: default options, lower bounds of a specification alone.

    alpha-CROWN with default options recomputes the inner bounds in every iteration, so that the
    slopes of all layers are optimised for the sum of the margins.
    """
    module, point, spec = peer_module(case), peer_point(case), margins(case.y)
    name = PEER_METHODS[method]
    context = torch.enable_grad if method == "alpha-crown" else torch.no_grad

    def run() -> Tensor:
        with context():
            found = module.compute_bounds(
                x=(point,), C=spec, method=name, bound_lower=True, bound_upper=False
            )
        return found[0].detach()

    return run


def peer_module(case: Case, **options: Any) -> Any:
    """auto_LiRPA's BoundedModule of the network."""
    from auto_LiRPA import BoundedModule

    optimise = {"iteration": ITERATIONS}
    return BoundedModule(
        case.module,
        torch.zeros_like(case.x),
        bound_opts={"optimize_bound_args": optimise, **options},
        device="cpu",
        verbose=False,
    )


def peer_point(case: Case) -> Any:
    """auto_LiRPA's input: the clean points with their boxes."""
    from auto_LiRPA import BoundedTensor, PerturbationLpNorm

    box = PerturbationLpNorm(norm=float("inf"), x_L=case.lower, x_U=case.upper)
    return BoundedTensor(case.x, box)


ENGINES = {"forward": plain, "certus": CertusEngine, "peer": peer_engine}


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of one call and what it returned."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found
