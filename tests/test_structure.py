"""What ruff, mypy and import-linter cannot hold: sizes, reachability, calls that never appear."""

import ast
import importlib
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
MAX_LINES = 350
DATA = {".csv", ".tsv", ".json", ".npz", ".gz", ".safetensors", ".onnx", ".svg", ".png", ".pyc"}
SOURCES = sorted((SRC / "certus").rglob("*.py"))
# Assembled, so that this file does not match itself. A path in a URL or after a name is none of it.
MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:" + "|".join(["work", "root", "home"]) + r")(?:/|\b)")
# Import names of packages whose distribution has another name.
IMPORT_NAMES = {"dask": ("dask", "distributed")}


def name_of(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in SOURCES}
PACKAGES = [name for name, path in MODULES.items() if path.name == "__init__.py"]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def text_files() -> list[Path]:
    """The project's files: what git would track, or the known folders where there is no git."""
    listed = None
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        folders = [
            ROOT / name for name in ("src", "tests", "docs", "examples", "benchmarks", ".ci")
        ]
        paths = [p for folder in folders for p in folder.rglob("*")] + list(ROOT.iterdir())
    return sorted(p for p in paths if p.is_file() and p.suffix not in DATA)


def test_files_are_short():
    ours = [p for p in text_files() if p.relative_to(ROOT).parts[0] in ("src", "tests")]
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in ours}
    long = [f"{p.relative_to(ROOT)}: {n} lines" for p, n in lines.items() if n > MAX_LINES]
    assert len(lines) > len(SOURCES)
    assert not long, f"split these, {MAX_LINES} lines is the limit: {long}"


def test_no_machine_paths():
    bad = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not bad, f"paths of one machine: {bad}"


@pytest.mark.parametrize("folder", ["work", "root", "home"])
def test_machine_paths_are_recognised(folder):
    assert MACHINE_PATH.search(f'open("/{folder}/x")')
    assert MACHINE_PATH.search(f"/{folder}")
    assert not MACHINE_PATH.search(f"https://example.org/{folder}/x and src/{folder}/x, /{folder}s")


@pytest.mark.parametrize("name", sorted(MODULES))
def test_importable(name):
    importlib.import_module(name)


def test_every_folder_is_a_package():
    bare = {
        str(p.parent.relative_to(SRC))
        for p in SOURCES
        if name_of(p.parent / "a.py")[:-2] not in PACKAGES
    }
    assert not bare, f"folders without an __init__.py: {sorted(bare)}"


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_init_lists_names_that_exist(name):
    """An `__init__` holds a docstring and `from a.b import C as C`; the root may hold more."""
    package = importlib.import_module(name)
    for node in parsed(MODULES[name]).body[1:]:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert hasattr(package, alias.asname or alias.name)
                assert name == "certus" or alias.asname == alias.name, f"write `as {alias.name}`"
        else:
            assert name == "certus", f"line {node.lineno}: an __init__ only lists names"
    for listed in getattr(package, "__all__", ()):
        assert hasattr(package, listed), f"{name}.__all__ names {listed}, which does not exist"


def imported_by(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, and texts that name a module, as in `certus.a.b:C`."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.partition(":")[0]


def test_every_module_is_reachable():
    """From an `__init__` or the command line, a chain of imports leads to every module."""
    reached: set[str] = set()
    frontier = {*PACKAGES, "certus.cli.main", "certus.__main__"} & MODULES.keys()
    while frontier:
        reached |= frontier
        found = {name for module in frontier for name in imported_by(MODULES[module])}
        frontier = (found & MODULES.keys()) - reached
    assert MODULES.keys() == reached, f"used by nothing: {sorted(MODULES.keys() - reached)}"


def at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported: not inside functions or `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not function and not (
            isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ):
            yield node
            yield from at_import(node)


def optional_packages() -> set[str]:
    """Import names of what a plain installation does not have."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {re.split(r"[^\w-]", need)[0] for needs in extras.values() for need in needs}
    return {found for name in names for found in IMPORT_NAMES.get(name, (name.replace("-", "_"),))}


def test_a_plain_installation_can_import_everything():
    optional = optional_packages()
    assert {"onnx", "highspy", "distributed", "pandas"} <= optional
    bad = []
    for name, path in MODULES.items():
        for node in at_import(parsed(path)):
            if isinstance(node, ast.Import):
                roots = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots = {(node.module or "").partition(".")[0]}
            else:
                continue
            bad += [f"{name}: {root}" for root in roots & optional]
    assert not bad, f"import these inside the functions that need them: {bad}"


def forbidden(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that the library never does."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print" | "eval" | "exec" as name)):
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(attr="cuda")):
                yield node.lineno, ".cuda"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
                yield node.lineno, "torch.load"
            case ast.ImportFrom(module="torch") if any(a.name == "load" for a in node.names):
                yield node.lineno, "torch.load"
            case ast.Import() if any("pickle" in a.name for a in node.names):
                yield node.lineno, "pickle"
            case ast.ImportFrom(module=str(module)) if "pickle" in module:
                yield node.lineno, "pickle"
            case ast.keyword(arg="allow_pickle", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    yield value.lineno, "allow_pickle"


def test_forbidden_calls():
    bad = [
        f"{name}:{line} {what}"
        for name in MODULES
        for line, what in forbidden(parsed(MODULES[name]))
    ]
    assert not bad, f"never in this library: {bad}"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(1)", ["print"]),
        ("eval('1')", ["eval"]),
        ("exec('1')", ["exec"]),
        ("x.cuda()", [".cuda"]),
        ("import pickle", ["pickle"]),
        ("from pickle import loads", ["pickle"]),
        ("import cloudpickle", ["pickle"]),
        ("torch.load('a')", ["torch.load"]),
        ("from torch import load", ["torch.load"]),
        ("np.load('a', allow_pickle=True)", ["allow_pickle"]),
        ("np.load('a', allow_pickle=flag)", ["allow_pickle"]),
        ("np.load('a', allow_pickle=False)", []),
        ("model.eval(); console.print('a'); torch.cuda.is_available()", []),
    ],
)
def test_forbidden_calls_are_recognised(code, expected):
    assert [what for _, what in forbidden(ast.parse(code))] == expected
