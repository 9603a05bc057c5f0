"""Every code block of the documentation is run, read, or listed here; those for a running WebUI in
tests/host/test_docs.py."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_gallery
import numpy as np
import pytest
import torch
from pages import ROOT, Block, blocks, blocks_of, split_commands
from PIL import Image

from sciart_ext.cli import main
from sciart_ext.cli.program import program
from sciart_ext.presets import PresetStore, resolve, store
from sciart_ext.presets.store import check_preset
from sciart_ext.recipe import compile_plan, parse_recipe, recipe_to_text
from sciart_ext.world import MODEL

pytest.importorskip("diffusers")

from sciart_ext.standalone import models
from sciart_ext.standalone.infotext import read_picture

# What cannot be run where tests run, by page and first line. It is to stay short.
NOT_RUN = {
    ("README.md", "make demo"), ("README.ko.md", "make demo"),
    ("docs/beside-others.md", '{"override_settings": {"ad_script_names"'),
    ("docs/command-line.md", 'pip install ".[standalone]"'),
    ("docs/command-line.md", "python -m sciart_ext generate --model v1-5-pruned-emaonly.safetensors"),
    ("docs/command-line.md", "python -m sciart_ext bake my_child=0.65"),
    ("docs/extending.md", "make test"),
    ("docs/figures.md", "python -m benchmarks.world --quick"),
    ("docs/inside.md", "y = W x"),
    ("docs/tiny-model.md", "python -m training"),
}
# Of 255: the same command on another machine, with other versions.
MEAN_DIFFERENCE = 3.0

COMMANDS = [block for block in blocks() if block.language == "sh" and block.is_run and not block.asks_the_server]
PROGRAMS = [block for block in blocks() if block.language == "python" and block.is_run and not block.asks_the_server]
JSON = [block for block in blocks() if block.language == "json" and block.is_run and not block.is_output]
OUTPUTS = {id(block.after): block.text for block in blocks() if block.is_output}


def test_every_block_is_of_a_kind_that_is_tested():
    for block in blocks():
        assert block.language in ("sh", "python", "json", "text"), f"{block}: no test knows {block.language}"
        assert block.language != "text" or block.is_output or not block.is_run, f"{block}: whose output is it?"
        assert "refused" not in block.marks or block.language == "sh", block
    tested = [*COMMANDS, *PROGRAMS, *JSON, *(block for block in blocks() if block.asks_the_server or block.is_output)]
    assert {str(block) for block in tested} == {str(block) for block in blocks() if block.is_run}
    assert len(COMMANDS) > 15 and len(PROGRAMS) >= 3 and len(JSON) > 10


def test_what_is_not_run_is_listed_and_says_why():
    left_out = [block for block in blocks() if not block.is_run]
    assert all(len(block.marks["not run"]) > 10 for block in left_out)
    for block in left_out:
        page = block.page.relative_to(ROOT).as_posix()
        assert any(page == where and block.text.startswith(line) for where, line in NOT_RUN), f"{block} is not listed"
    assert len(left_out) == len(NOT_RUN)


@pytest.mark.parametrize("block", [block for block in blocks() if not block.is_run and block.language == "sh"], ids=str)
def test_what_is_not_run_could_be(block: Block):
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    extras = re.findall(r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    for words in split_commands(block.text):
        if words[0] == "make":
            assert words[1] in targets
        elif words[:3] == ["python", "-m", "sciart_ext"]:
            program.commands[words[3]].make_context(words[3], words[4:])
        elif words[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(words[2]), words
        else:
            assert words[:2] == ["pip", "install"] and words[2][2:-1] in extras, words


def filled(folder: Path) -> Path:
    """The working directory of a reader: LoRA files, and what the pages tell to save."""
    for path in (MODEL / "loras").glob("*.safetensors"):
        shutil.copyfile(path, folder / path.name)
    for block in blocks():
        if "file" in block.marks:
            (folder / block.marks["file"]).write_text(block.text, encoding="utf-8")
    return folder


@pytest.fixture
def empty_folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(store, "USER_DIR", tmp_path / "user")
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def read_once():
    """A model that commands name alike is read once for all of them; they leave it as it was."""
    read, kept = models.load_pipeline, {}

    def known(*given):
        if given not in kept:
            kept[given] = read(*given)
        return kept[given]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_pipeline", known)
        yield
    for given, used in kept.items():
        fresh = read(*given)
        for name in ("unet", "vae", "text_encoder"):
            now, own = getattr(used, name).state_dict(), getattr(fresh, name).state_dict()
            assert now.keys() == own.keys()
            assert all(torch.equal(tensor, own[key]) for key, tensor in now.items()), name
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in used.unet.modules())


def printed(words: list[str], status: int) -> str:
    """What a command prints, to both outputs."""
    assert words[:3] == ["python", "-m", "sciart_ext"], f"no test knows how to run {words[0]}"
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        assert main(words[3:]) == status, output.getvalue()
    return output.getvalue()


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_commands_run_in_an_empty_folder_and_print_what_is_shown(block: Block, empty_folder: Path, one_thread):
    commands = split_commands(block.text)
    assert commands
    output = "".join(printed(words, 2 if "refused" in block.marks else 0) for words in commands)
    if id(block) in OUTPUTS:
        assert output.strip() == OUTPUTS[id(block)].strip()
    for words in commands:
        for option, value in zip(words, words[1:]):
            if option in ("--out", "--png"):
                assert list(Path().glob(f"{value.partition('.')[0]}*")), f"{value} was not written"
    for made in Path("gallery").glob("*.png"):
        compare(ROOT / "docs" / "gallery" / made.name, made)


def compare(shown: Path, made: Path) -> None:
    """The picture that a page shows is the one that its command makes, and tells the same of itself, versions aside."""
    told = [{key: value for key, value in read_picture(path).items() if "version" not in key.lower()}
            for path in (shown, made)]
    assert told[0] == told[1] and told[0]["Size"], shown.name
    with Image.open(shown) as a, Image.open(made) as b:
        assert a.size == b.size
        gap = np.abs(np.asarray(a.convert("RGB"), int) - np.asarray(b.convert("RGB"), int)).mean()
    assert gap <= MEAN_DIFFERENCE, f"{shown.name} is not what its command makes: mean {gap:.2f}"


RUNNER = """
import os, runpy, sys, traceback
for folder in sys.argv[1:]:
    os.chdir(folder)
    try:
        runpy.run_path("example.py", run_name="__main__")
        told = ""
    except BaseException:
        told = traceback.format_exc()
    with open("told.txt", "w") as file:
        file.write(told)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """By block, the folder in which its program has run, all in one process; what it raised is in told.txt."""
    made = {str(block): filled(tmp_path_factory.mktemp("program")) for block in PROGRAMS}
    for block in PROGRAMS:
        (made[str(block)] / "example.py").write_text(block.text, encoding="utf-8")
    subprocess.run([sys.executable, "-c", RUNNER, *made.values()], check=True, env={
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"})
    return made


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_programs_run(block: Block, folders: dict[str, Path]):
    folder = folders[str(block)]
    told = (folder / "told.txt").read_text(encoding="utf-8")
    assert told == "", told
    for name in re.findall(r'\.save\("(.+?)"\)', block.text):
        assert (folder / name).stat().st_size > 5000


@pytest.mark.parametrize("block", JSON, ids=str)
def test_recipes_and_presets_are_read(block: Block, tmp_path):
    data = json.loads(block.text)
    if "recipe" in data:
        data = check_preset(data)["recipe"]
    recipe = parse_recipe(data)
    store = PresetStore(user_dir=tmp_path)
    store.bind({role: role for role in ("child", "watercolor", "science")})
    resolved = resolve(recipe, store)
    plan = compile_plan(resolved, 20, 10)
    assert len(plan.first.gates(0.5)) >= len(resolved.loras) > 0 and plan.hires is not None
    assert parse_recipe(recipe_to_text(resolved)) == resolved


def test_the_module_runs_as_a_command(tmp_path):
    done = subprocess.run([sys.executable, "-m", "sciart_ext", "presets", "list"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=True)
    assert done.stdout.startswith("science-imagination")


def test_the_gallery_is_made_by_its_own_commands(tmp_path, one_thread):
    shown = {path.name for path in (ROOT / "docs" / "gallery").glob("*.png")}
    assert {f"{name}.png" for name in make_gallery.commands()} | {"contrastive.subjects.png"} == shown
    made, = make_gallery.make(["child"], tmp_path)
    assert made == tmp_path / "child.png"
    compare(ROOT / "docs" / "gallery" / "child.png", made)
    with pytest.raises(ValueError, match="no picture 'chld'"):
        make_gallery.make(["chld"], tmp_path)


def test_the_gallery_is_small():
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "gallery").iterdir()) < 1_500_000


@pytest.mark.parametrize(("text", "message"), [
    ("```\nx\n```\n", "without a language"),
    ("```sh\nx\n", "not closed"),
    ("Text:\n\n    make demo\n", "not fenced at the margin"),
    ("1. Text\n\n   ```sh\n   x\n   ```\n", "not fenced at the margin"),
    ("<!-- skipped: because -->\n```sh\nx\n```\n", "unknown mark 'skipped'"),
    ("<!-- not run: because -->\n\nText\n", "no code block follows"),
])
def test_no_block_can_hide(tmp_path, text, message):
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        blocks_of(tmp_path / "page.md")
