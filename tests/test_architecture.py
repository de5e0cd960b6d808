"""The habits that no linter knows: who imports whom, how large things are, what they are called."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from nas.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
LAYERS = ("search_spaces", "predictors", "nas", "fasternas")  # each may import those before it
HEAVY = {"torch", "ray", "optuna", "matplotlib", "scipy", "sklearn", "timm", "pandas"}
LIGHT_STATEMENTS = (
    "import fasternas",
    "from fasternas import FASTERNET, SPACES, FasterNetConfig, Space, each, oneof",
    "import nas.cli.main",
    f"import {', '.join(sorted({f'nas.cli.{command.module}' for command in COMMANDS}))}",
)

PACKAGED = sorted(path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
SOURCES = [*PACKAGED, *sorted(ROOT.glob("benchmarks/*.py")), *sorted(ROOT.glob("tests/*.py"))]
BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.Try, ast.With, ast.AsyncWith, ast.Match)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _depth(node: ast.AST) -> int:
    """The deepest nesting of blocks below a node; functions and classes inside count anew."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        elif_branch = isinstance(node, ast.If) and node.orelse == [child]
        own = isinstance(child, BLOCKS) and not (elif_branch and isinstance(child, ast.If))
        deepest = max(deepest, own + _depth(child))
    return deepest


def _bound_names(path: Path) -> set[str]:
    """The names that a file imports, defines or assigns."""
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _run(statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement in a fresh interpreter, then print the imported top-level modules."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"{statement}\n{report}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", LAYERS)
def test_every_package_is_there_and_typed(package: str) -> None:
    assert (ROOT / package / "__init__.py").is_file()
    assert (ROOT / package / "py.typed").is_file()


def test_imports_point_down_only() -> None:
    upwards = []
    for path in PACKAGED:
        above = LAYERS[LAYERS.index(path.relative_to(ROOT).parts[0]) + 1 :]
        upwards += [(_name(path), n) for n in _imports(path) if n.partition(".")[0] in above]
    assert upwards == []


def test_no_module_bears_the_name_of_something_that_its_package_exports() -> None:
    hidden = []
    for init in (path for path in PACKAGED if path.name == "__init__.py"):
        modules = {path.stem for path in init.parent.glob("*.py")}
        modules |= {path.parent.name for path in init.parent.glob("*/__init__.py")}
        hidden += [(_name(init), name) for name in sorted(modules & _bound_names(init))]
    assert hidden == []


def test_no_class_name_exists_twice() -> None:
    places: dict[str, list[str]] = {}
    for path in PACKAGED:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(_name(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_files_are_short_and_functions_short_and_flat() -> None:
    long = [_name(path) for path in SOURCES if len(path.read_text().splitlines()) > 500]
    for path in SOURCES:
        for function in _functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > 50 or _depth(function) > 3:
                long.append(
                    f"{_name(path)}:{function.name}: {lines} lines, {_depth(function)} deep"
                )
    assert long == []


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ("pass", 0),
        ("if a: pass\nelif b: pass\nelif c: pass", 1),
        ("if a: pass\nelse:\n for x in y: pass", 2),
        ("try:\n with a:\n  while b: pass\nexcept E: pass", 3),
        ("for x in y:\n def inner():\n  if x: pass", 1),
        ("match a:\n case 1:\n  if b: pass", 2),
    ],
)
def test_nesting_is_counted_as_a_reader_counts(body: str, depth: int) -> None:
    assert _depth(ast.parse(body)) == depth


def test_only_the_command_line_prints() -> None:
    printing = []
    for path in (path for path in PACKAGED if path.parent.name != "cli"):
        called = [node.func for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
        names = {f.id for f in called if isinstance(f, ast.Name)}
        names |= {f.attr for f in called if isinstance(f, ast.Attribute)}
        printing += [_name(path)] * ("print" in names)
    assert printing == []


def test_ruff_formats_everything() -> None:
    off = "# fmt" + ": "
    assert [_name(path) for path in SOURCES if off in path.read_text()] == []


def test_what_is_settled_is_spelled_in_one_place() -> None:
    places: dict[str, list[str]] = {}
    for path in PACKAGED:
        for node in ast.walk(_tree(path)):
            table = isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
            table = table and ast.unparse(node).split(" ")[0].isupper()
            variable = isinstance(node, ast.Constant) and re.match(r"XDG_\w+$", str(node.value))
            if table or variable:
                places.setdefault(ast.unparse(node), []).append(_name(path))
    assert places
    assert {what: where for what, where in places.items() if len(where) > 1} == {}


@pytest.mark.parametrize("statement", LIGHT_STATEMENTS)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    finished = _run(statement)
    assert finished.returncode == 0, finished.stderr
    assert not HEAVY & set(finished.stdout.split())


@pytest.mark.parametrize("package", LAYERS)
def test_our_import_names_are_ours(package: str) -> None:
    # An editable installation may be listed without its packages: hence "no other owner".
    assert set(packages_distributions().get(package, [])) <= {"fasternas"}


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d\S*)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]
    finished = _run("import fasternas; print(fasternas.__version__)")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[0] == project["version"]


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("git tells which files are ours; this is no clone.")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name]
    # Spelled in pieces, so that this file may be searched too.
    private = re.compile(rb"index" rb"-url|trusted" rb"-host|(?<![\w.\-])/(work|root)" rb"/")
    assert not [_name(p) for p in paths if p.is_file() and private.search(p.read_bytes())]
