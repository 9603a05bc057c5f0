"""Who may import what: the engine knows no host and no gradio, and heavy packages are imported where needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "sciart_ext"
FILES = sorted(PACKAGE.rglob("*.py"))
HOST = {"modules", "modules_forge", "ldm", "sgm", "k_diffusion", "networks", "lora", "launch", "webui"}
STANDALONE = {"diffusers", "transformers", "accelerate", "torchsde"}
IN_HOST = {"torch", "numpy", "safetensors", "pydantic", "PIL", "skimage", "scipy"}


def imported(path: Path, at_module_level: bool = False) -> set[str]:
    """Top-level names of the packages that a file imports (relative imports aside)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in _module_level(tree) if at_module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return names


def _module_level(node: ast.AST):
    """Nodes that run when the file is imported: everything outside of functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _module_level(child)


def inside(path: Path, folder: str) -> bool:
    return (PACKAGE / folder) in path.parents


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestImportsOf:
    def test_only_host_imports_the_host(self, path):
        if not inside(path, "host"):
            assert not imported(path) & HOST

    def test_only_ui_imports_gradio(self, path):
        if not inside(path, "ui"):
            assert "gradio" not in imported(path)

    def test_only_standalone_imports_diffusers_at_module_level(self, path):
        if not inside(path, "standalone"):
            assert not imported(path, at_module_level=True) & (STANDALONE | {"matplotlib"})

    def test_the_engine_needs_only_what_the_host_installs(self, path):
        if not any(inside(path, folder) for folder in ("host", "ui", "standalone")):
            foreign = imported(path, at_module_level=True) - set(sys.stdlib_module_names) - IN_HOST - {"sciart_ext"}
            assert not foreign

    def test_the_engine_does_not_reach_into_host_ui_or_standalone(self, path):
        if any(inside(path, folder) for folder in ("host", "ui", "standalone")):
            return
        for node in _module_level(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (node.module or "").split(".")[0] not in ("host", "ui", "standalone")

    def test_the_file_says_what_it_is_for(self, path):
        assert path.stat().st_size == 0 or ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


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
