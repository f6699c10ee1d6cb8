"""Fixtures for every test: real data, one thread, a fixed seed, and no traces left behind."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tests.laws.tiers import LONG, quick
from tests.laws.tolerance import perturbed

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick",
        action="store_true",
        help="two cases of every test, none that is long (tests/laws/tiers.py)",
    )
    parser.addoption("--coarse", action="store_true", help="operations err as on the coarsest CPU")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Under --quick files that are long as a whole are not even read."""
    name = collection_path.relative_to(config.rootpath).as_posix()
    return True if config.getoption("--quick") and name in LONG else None


@pytest.hookimpl(trylast=True)  # after the slow ones are gone
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under --quick only some cases stay."""
    if config.getoption("--quick"):
        kept = quick([item.nodeid for item in items])
        config.hook.pytest_deselected(items=[i for i, k in zip(items, kept, strict=True) if not k])
        items[:] = [i for i, k in zip(items, kept, strict=True) if k]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project; tests that need it skip where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the real data (../shared/data) is not on this machine")
    return DATA


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """One thread: sums have one order, and parallel test workers do not fight for cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def coarse(request: pytest.FixtureRequest) -> Iterator[None]:
    """Under --coarse every evaluation is off by as much as tolerances allow for."""
    with perturbed() if request.config.getoption("--coarse") else nullcontext():
        yield


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """A fixed global seed before each test; after it, torch's global settings are as before."""
    torch.manual_seed(0)
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before, "global state changed"
