"""The rooms of the house, and which may lean on which: read from the imports, so that it stays so."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests import ROOT

SERVER = (
    "app",
    "__main__",
    "http",
    "commands",
    "lifespan",
    "health",
    "dump",
    "backup",
    "doctor",
    "bulk",
    "spaces",
    "engine",
    "ingest",
    "catalogue",
    "batching",
    "operations",
    "inference",
    "preprocessing",
    "postgres",
    "access",
    "database",
    "settings",
    "secrets",
    "limits",
    "artifact",
    "errors",
    "tracing",
    "wording",
    "origins",
    "hosts",
)
"""Each may import those below it, and nothing above: the way of a picture, read from its end to its beginning."""

EXPORT = ("__main__", "freeze", "artifacts", "graphs", "proof", "checkpoints", "table", "steps", "quiet", "errors")


def modules(package: str) -> Iterator[tuple[str, ast.Module]]:
    """The dotted name and the tree of each module of a package."""
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """The dotted names of all that a module imports, wherever in it the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                path = ROOT / whole.replace(".", "/")
                yield whole if path.is_dir() or path.with_suffix(".py").exists() else node.module


def arrows(package: str) -> Iterator[tuple[str, str]]:
    """Who imports whom, within a package."""
    for name, tree in modules(package):
        for other in imported(tree):
            if other.split(".")[0] == package and other not in (name, package):
                yield name, other


def room(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize(("package", "rooms"), [("server", SERVER), ("export", EXPORT)])
def test_each_room_leans_on_those_below_it_and_on_no_other(package: str, rooms: Sequence[str]) -> None:
    known = {room(name) for name, _ in modules(package) if name != package}
    assert known == set(rooms), "a room is missing in the list of this test, or has gone"
    upwards = {
        f"{one} imports {other}" for one, other in arrows(package) if rooms.index(room(one)) > rooms.index(room(other))
    }
    assert not upwards


@pytest.mark.parametrize("package", ["server", "export", "bench"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    leans: dict[str, set[str]] = {}
    for one, other in arrows(package):
        leans.setdefault(one, set()).add(other)
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in done:
            for other in sorted(leans.get(name, ())):
                walk(other, (*way, name))
            done.add(name)

    for name in sorted(leans):
        walk(name, ())


def who_imports(package: str, *foreign: str) -> set[str]:
    return {name for name, tree in modules(package) for other in imported(tree) if other.split(".")[0] in foreign}


def test_the_server_never_imports_the_export_nor_what_only_the_export_needs() -> None:
    assert not who_imports("server", "export", "torch", "transformers", "optimum", "onnx")


@pytest.mark.parametrize(
    ("foreign", "where"),
    [
        ("onnxruntime", ("server.inference.",)),
        ("litestar", ("server.http.", "server.app")),
        ("argparse", ("server.commands.", "server.__main__")),
        ("psycopg_pool", ("server.database.",)),
        ("obstore", ("server.ingest.storage",)),
        ("httpcore", ("server.ingest.fetch",)),
        ("granian", ("server.commands.serve", "server.commands.supervisor")),
        ("opentelemetry", ("server.operations.otel",)),
        ("pyarrow", ("server.dump.", "server.ingest.feeds.parquet", "server.bulk.on_ray.")),
        ("ray", ("server.bulk.on_ray.",)),
    ],
)
def test_a_library_has_one_home(foreign: str, where: tuple[str, ...]) -> None:
    users = who_imports("server", foreign)
    assert users
    assert not {name for name in users if not f"{name}.".startswith(where)}


def test_the_client_library_imports_nothing_of_ours() -> None:
    assert not who_imports("twinlens", "server", "export", "bench", "tests")


@pytest.mark.parametrize(
    ("foreign", "where"),
    [
        ("httpx", ("twinlens.client.", "twinlens.async_client.", "twinlens.transport.")),
        ("argparse", ("twinlens.commands.",)),
        ("rich", ("twinlens.commands.screen.",)),
        ("PIL", ("twinlens.pictures.",)),
        ("numpy", ("twinlens.pictures.",)),
    ],
)
def test_in_the_client_library_too_a_library_has_one_home(foreign: str, where: tuple[str, ...]) -> None:
    users = who_imports("twinlens", foreign)
    assert users
    assert not {name for name in users if not f"{name}.".startswith(where)}


def test_the_client_library_needs_no_more_than_it_says() -> None:
    needed = {other.split(".")[0] for _, tree in modules("twinlens") for other in imported(tree)}
    assert needed - sys.stdlib_module_names == {"twinlens", "httpx", "msgspec", "rich", "PIL", "numpy"}


def test_no_test_imports_from_a_file_of_tests_or_fixtures() -> None:
    """What tests share lies in tests/support."""
    shared = {
        f"{name} imports {other}"
        for name, tree in modules("tests")
        for other in imported(tree)
        if other.startswith("tests.") and other.rsplit(".", 1)[-1].startswith(("test_", "conftest"))
    }
    assert not shared


LOADED = "import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"

LIGHT: Mapping[str, tuple[str, ...]] = {
    "server.settings": ("onnxruntime", "litestar", "psycopg"),
    "server.access.clients": ("onnxruntime", "litestar", "psycopg"),
    "server.artifact.artifact": ("onnxruntime", "PIL", "litestar"),
    "server.catalogue.catalogue": ("onnxruntime", "litestar"),
    "server.catalogue.duplicates": ("onnxruntime", "litestar"),
    "server.database.migrations": ("onnxruntime", "litestar"),
    "server.http.wire": ("onnxruntime",),
    "server.ingest.feeds.opening": ("onnxruntime", "litestar", "pyarrow", "numpy"),
    "server.app": ("opentelemetry",),
    "server.__main__": ("pyarrow", "ray"),
    "twinlens": ("httpx", "msgspec"),
    "twinlens.client": ("PIL", "numpy", "argparse"),
}


@pytest.mark.parametrize("module", LIGHT)
def test_what_a_module_does_not_need_is_not_loaded_with_it(module: str) -> None:
    code = LOADED.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(LIGHT[module]) & set(done.stdout.split())
