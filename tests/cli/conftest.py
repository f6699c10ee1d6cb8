"""One small checkpoint that every test of the command line may read but not change."""

import shutil
from pathlib import Path

import pytest
from tests.cli.helpers import run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "small"
    assert (
        run("train", "--net", "mlp-small", "--recipe", "standard", "--epochs", 12, "--out", out)
        == 0
    )
    return out


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint, with room for a ledger beside it."""
    return Path(shutil.copytree(trained, tmp_path / "small"))
