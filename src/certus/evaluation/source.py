"""Which code computes: versions and a hash, so that rows of different code are told apart."""

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

import torch


def version() -> str:
    """Certus's version, `source` where it is not installed."""
    try:
        return importlib.metadata.version("certus")
    except importlib.metadata.PackageNotFoundError:
        return "source"


@cache
def source_hash() -> str:
    """Hash of Certus's own code: rows of an older rule are never taken for those of a newer one."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        if not {"cli", "report"} & set(path.parts[-3:-1]):  # they compute no row
            digest.update(path.read_bytes())
    return digest.hexdigest()


def build() -> str:
    """Code and torch of this process, in words; workers must have the same."""
    return f"Certus {version()} ({source_hash()[:12]}) with torch {torch.__version__}"
