"""Fixtures for every test: real data, one thread, a fixed seed, and no traces left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """A fixed global seed before each test; after it, torch's global settings are as before."""
    torch.manual_seed(0)
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    yield
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == before, "global state changed"
