"""Who may import what: the engine knows no host and no gradio, and heavy packages are imported where needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sciart_ext"
FILES = sorted(PACKAGE.rglob("*.py"))
HOST = {"modules", "modules_forge", "ldm", "sgm", "k_diffusion", "networks", "lora", "launch", "webui"}
STANDALONE = {"diffusers", "transformers", "accelerate", "torchsde"}
IN_HOST = {"torch", "numpy", "safetensors", "pydantic", "PIL", "skimage", "scipy", "filelock"}


def imported(path: Path, at_module_level: bool = False) -> set[str]:
    """Top-level names of the packages that a file imports (relative imports aside)."""
    names = set()
    for node in imports(path, at_module_level):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif not node.level:
            names.add(node.module.split(".")[0])
    return names


@cache
def imports(path: Path, at_module_level: bool = False) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """The imports in a file, wherever in it or where it is imported alone."""
    nodes = _module_level(parsed(path)) if at_module_level else ast.walk(parsed(path))
    return tuple(node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom)))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _module_level(node: ast.AST):
    """Nodes that run when the file is imported: everything outside of functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _module_level(child)


def imported_files(path: Path) -> set[Path]:
    """Files and folders of the package that a file imports, or names from, wherever in it."""
    found = set()
    for node in imports(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            named = [base / alias.name for alias in node.names]
            found |= {one for one in named if is_module(one)} or {base}
    return found


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def room(path: Path) -> str:
    """The folder in which a module is, or the module itself where it stands loose beside rooms."""
    inner = path.relative_to(PACKAGE)
    loose = inner.parent.as_posix() in (".", "host", "host/a1111") and not path.is_dir()
    return (inner if loose or path.is_dir() else inner.parent).as_posix()


@cache
def rooms() -> dict[str, set[str]]:
    """Which rooms each room imports from."""
    arrows: dict[str, set[str]] = {}
    for path in FILES:
        own = room(path.parent if path.name == "__init__.py" else path.with_suffix(""))
        arrows.setdefault(own, set()).update(room(other) for other in imported_files(path))
        arrows[own].discard(own)
    return arrows


def inside(path: Path, folder: str) -> bool:
    return (PACKAGE / folder) in path.parents


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestImportsOf:
    def test_a_webui_is_imported_in_its_own_folder_alone(self, path):
        if not inside(path, "host/a1111"):
            assert not imported(path) & HOST

    def test_only_ui_imports_gradio(self, path):
        if not inside(path, "ui"):
            assert "gradio" not in imported(path)

    def test_only_standalone_imports_diffusers_at_module_level(self, path):
        if not inside(path, "standalone"):
            assert not imported(path, at_module_level=True) & (STANDALONE | {"matplotlib"})

    def test_the_engine_needs_only_what_the_host_installs(self, path):
        if not any(inside(path, folder) for folder in ("host", "ui", "standalone")):
            front = {"click", "rich_click"} if inside(path, "cli") else set()  # which no host imports
            foreign = imported(path, at_module_level=True) - set(sys.stdlib_module_names) - IN_HOST - {"sciart_ext"}
            assert not foreign - front

    def test_the_engine_does_not_reach_into_host_ui_or_standalone(self, path):
        if any(inside(path, folder) for folder in ("host", "ui", "standalone")):
            return
        above = ("host", "ui") if inside(path, "cli") else ("host", "ui", "standalone")  # whose front end it is
        for node in imports(path, at_module_level=True):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (node.module or "").split(".")[0] not in above

    def test_the_file_says_what_it_is_for(self, path):
        assert path.stat().st_size == 0 or ast.get_docstring(parsed(path))


def reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """The rooms that a room imports from, and those that they do."""
    found, left = set(), [start]
    while left:
        for other in arrows.get(left.pop(), ()):
            if other not in found:
                found.add(other)
                left.append(other)
    return found


@pytest.mark.parametrize("name", sorted(rooms()))
def test_no_room_imports_itself_by_way_of_others(name):
    assert name not in reached(rooms(), name)


@pytest.mark.parametrize(("name", "others"), [
    ("lora", {"recipe", "mixer", "presets"}), ("recipe", {"mixer", "presets", "combine", "compose", "guidance"}),
    ("mixer", {"compose", "guidance", "influence"}), ("report", {"mixer"}), ("compose", {"guidance"}),
    ("combine", {"mixer"})])
def test_a_room_stands_below(name, others):
    assert not reached(rooms(), name) & others


def test_hosts_know_nothing_of_the_command_line():
    below = [name for name in rooms() if name.startswith(("host", "ui", "standalone"))]
    assert len(below) > 8 and not any("cli" in reached(rooms(), name) for name in below)


@pytest.mark.parametrize("room", ["recipe", "presets", "report", "pipeline"])
def test_what_needs_no_torch_loads_none(room):
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (PACKAGE / room).glob("*.py")]
    code = (f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m.removesuffix('.__init__'))\n"
            "print([m for m in ('torch', 'matplotlib') if m in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_scripts_are_short_and_only_delegate():
    for path in (ROOT / "scripts").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path


def test_importing_the_engine_loads_nothing_heavy():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES
               if not any(inside(path, folder) for folder in ("host", "ui", "standalone"))
               and path.name not in ("__main__.py", "__init__.py")]
    heavy = sorted(STANDALONE | {"matplotlib", "gradio", "modules"})
    code = (f"import sys, importlib\nfor m in {modules!r}: importlib.import_module(m)\n"
            f"print([m for m in {heavy!r} if m in sys.modules])")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_installer_installs_nothing_and_says_nothing_where_all_fits():
    names = imported(ROOT / "install.py")
    assert names <= {"re", "sys", "importlib"}
    result = subprocess.run([sys.executable, "install.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "" and result.stderr == ""


def test_the_installer_says_in_one_line_what_does_not_fit():
    code = ("import importlib.metadata as m, runpy\n"
            "old = m.version\n"
            "m.version = lambda name: '0.1' if name in ('torch', 'pydantic') else old(name)\n"
            "runpy.run_path('install.py', run_name='__main__')")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.count("\n") == 1
    assert result.stdout.startswith("SciArt: torch 0.1 is too old, 2.1 is needed; pydantic 0.1")
