"""The shape of the package: who may import whom, and what start-up may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src"
PACKAGE = SOURCE / "layerhold"

# The layers of docs/architecture.md. A name is a module or a whole subpackage of layerhold.
LAYERS = (
    ("values", "blocks", "linux", "digests", "errors", "progress"),
    ("tree", "ids", "lock", "labels"),
    ("archive", "records"),
    ("drivers", "config", "settings"),
    (
        "store",
        "layers",
        "images",
        "containers",
        "collection",
        "references",
        "check",
        "damage",
        "dedup",
        "copying",
        "garbage",
        "tables",
        "recovery",
        "repair",
        "layer_batches",
        "layer_checking",
        "layer_files",
        "layer_making",
        "mounts",
        "identifiers",
        "layout",
        "comparing",
        "container_bases",
        "convert",
        "layer_copies",
        "userns",
        "streams",
    ),
    ("cli", "testing", "__main__"),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
STRANGERS = {("archive", "records"), ("records", "archive")}

# Each of these third-party modules is imported in one module only, which has a fallback or a clear error for it.
WHEELS = ("isal", "fastcrc", "backports", "rich")

# What no start of the command may load: slow to import, and a listing needs none of it.
HEAVY = frozenset(
    {
        "argparse",
        "asyncio",
        "collections",
        "concurrent.futures",
        "contextlib",
        "ctypes",
        "dataclasses",
        "datetime",
        "email",
        "enum",
        "functools",
        "hashlib",
        "inspect",
        "json",
        "logging",
        "pathlib",
        "queue",
        "re",
        "shutil",
        "socket",
        "subprocess",
        "tarfile",
        "tempfile",
        "threading",
        "tomllib",
        "typing",
        "urllib.parse",
        "zipfile",
        *WHEELS,
    }
)


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(path: Path, module: str) -> Iterator[tuple[str, ast.AST, bool]]:
    """Every module that `path` imports, in functions and for type checkers too; whether at start-up, at last."""
    tree = ast.parse(path.read_text(), str(path))
    at_start = set(_at_start(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node, node in at_start
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module), node, node in at_start


def _at_start(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not those in functions or under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from _at_start(other)
            continue
        yield child
        yield from _at_start(child)


def part_of(module: str) -> str | None:
    """The subpackage or module of layerhold that a module belongs to; None for the package itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def test_every_part_has_a_layer() -> None:
    parts = {part for module in MODULES if (part := part_of(module))}
    assert parts <= RANK.keys(), f"say in LAYERS where these belong: {parts - RANK.keys()}"


def test_imports_point_downwards() -> None:
    wrong = []
    for module, path in MODULES.items():
        part = part_of(module)
        for name, node, _ in imports(path, module):
            other = part_of(name) if name.split(".")[0] == "layerhold" else None
            if part is None or other is None or other not in RANK:
                continue
            if RANK[other] > RANK[part]:
                wrong.append(f"{module}:{node.lineno} imports {name}, which is above it")  # type: ignore[attr-defined]
            if (part, other) in STRANGERS:
                wrong.append(f"{module} imports {name}: the two do not know each other")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_the_package_itself() -> None:
    """`import layerhold` would be a circle: its `__init__` imports the store."""
    wrong = [
        module
        for module, path in MODULES.items()
        for name, _, _ in imports(path, module)
        if name == "layerhold" and part_of(module) not in (None, "cli")
    ]
    assert not wrong


def test_imports_have_no_circles() -> None:
    """Not even those in functions; what is there for type checkers alone does not count."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        lines = {getattr(node, "lineno", 0) for node in _typing_only(ast.parse(path.read_text()))}
        for name, node, _ in imports(path, module):
            if name in MODULES and name != module and getattr(node, "lineno", 0) not in lines:
                graph[module].add(name)
    circle = _circle(graph)
    assert not circle, " -> ".join(circle)


def _typing_only(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.body:
                yield from ast.walk(statement)


def _circle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            for other in sorted(graph[module]):
                if found := visit(other, [*way, module]):
                    return found
            done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


def importers(name: str) -> set[str]:
    return {
        module
        for module, path in MODULES.items()
        for imported, _, _ in imports(path, module)
        if imported == name or imported.startswith(f"{name}.")
    }


def test_ctypes_only_in_linux() -> None:
    assert {part_of(module) for module in importers("ctypes")} <= {"linux"}


@pytest.mark.parametrize("wheel", WHEELS)
def test_a_wheel_is_imported_in_one_module(wheel: str) -> None:
    assert len(importers(wheel)) <= 1, importers(wheel)


def test_environment_only_in_config_and_cli() -> None:
    """Settings come from there; the marks of a namespace, which others leave and look for, are no settings."""
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            is_read = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "getenvb")
            if is_read and part_of(module) not in ("config", "cli") and module != "layerhold.settings.namespace":
                wrong.append(f"{module}:{node.lineno}")  # type: ignore[attr-defined]
    assert not wrong, wrong


def test_programs_are_not_started_from_a_shell() -> None:
    wrong = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.system", "os.popen"):
                wrong.append(f"{module}:{node.lineno}")
            if isinstance(node, ast.keyword) and node.arg == "shell":
                wrong.append(f"{module}:{node.value.lineno}")
    assert not wrong, wrong


def test_every_module_says_what_it_is_for() -> None:
    missing = [module for module, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not missing


# What modules may import freely at their top; what these bring with them is paid for already.
FREE = "import binascii, errno, fcntl, os, stat, struct, sys, time"


def loaded_by(statement: str) -> set[str]:
    """The modules that a statement loads in a bare interpreter: without `site`, which loads what is installed."""
    script = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{statement}\nprint(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize("module", ["layerhold", "layerhold.store", "layerhold.records.table", "layerhold.cli.main"])
def test_start_up_is_light(module: str) -> None:
    heavy = (loaded_by(f"import {module}") - loaded_by(FREE)) & HEAVY
    assert not heavy, f"import {module} loads {sorted(heavy)}"


def test_a_listing_is_light(tmp_path: Path) -> None:
    where = ["--graph", f"{tmp_path}/root", "--run", f"{tmp_path}/run", "--storage-driver", "vfs"]
    statement = (
        "import os; os.environ['CONTAINERS_STORAGE_CONF'] = '/dev/null'\n"
        f"sys.argv = ['layerhold', *{where!r}, 'layers']\n"
        "from layerhold.cli.main import main\n"
        "assert not main(sys.argv[1:])"
    )
    loaded_by(statement)
    heavy = (loaded_by(statement) - loaded_by(FREE)) & HEAVY
    assert not heavy, f"layerhold layers loads {sorted(heavy)}"
