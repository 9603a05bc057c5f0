"""The command line: recipes from options, plans, presets, LoRA reports; errors in one line."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sciart_ext import standalone
from sciart_ext.cli import main
from sciart_ext.cli.mixture import parse_lora_option
from sciart_ext.cli.program import program as sciart
from sciart_ext.errors import SciArtError
from sciart_ext.presets import store

MIX = ["--lora", "child=0.2@0, 0.65@0.5", "--lora", "paint=0.4"]


@pytest.fixture(autouse=True)
def own_user_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "USER_DIR", tmp_path / "user")


def run(capsys, *arguments):
    """(exit status, standard output, standard error) of a command."""
    status = main(list(map(str, arguments)))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refuse(capsys, *arguments):
    """The one line of a command that must be refused."""
    status, out, err = run(capsys, *arguments)
    assert status == 2 and out == "" and err.count("\n") == 1 and err.startswith("sciart: ")
    return err


@pytest.mark.parametrize(("text", "entry"), [
    ("child=0.65", {"name": "child", "weight": 0.65}),
    ("child = -1", {"name": "child", "weight": -1.0}),
    ("child=0.65@0.5,0.2@0", {"name": "child", "schedule": [[0.0, 0.2], [0.5, 0.65]]}),
    ("child=0.5@0", {"name": "child", "schedule": [[0.0, 0.5]]}),
    ("a=b=1", {"name": "a=b", "weight": 1.0}),
    ("child=0,5", {"name": "child", "weight": 0.5}),
    ("child = 50 %", {"name": "child", "weight": 0.5}),
    ("child=0,2@0; 0,65@0,5", {"name": "child", "schedule": [[0.0, 0.2], [0.5, 0.65]]}),
    ("child=0.2@0.2, 1@0.2", {"name": "child", "schedule": [[0.2, 0.2], [0.2, 1.0]]}),
    ("child=0.8@s5", {"name": "child", "schedule": [["s5", 0.8]]}),
    ("a=b=0.8:start=5:stop=10", {"name": "a=b", "schedule": [["s5", 0.0], ["s5", 0.8], ["s10", 0.8], ["s10", 0.0]]}),
    ("start=0.5", {"name": "start", "weight": 0.5}),
    ("stop=0.5 start=5", {"name": "stop", "schedule": [["s5", 0.0], ["s5", 0.5]]}),
    ("/my loras/x.safetensors=1", {"name": "/my loras/x.safetensors", "weight": 1.0}),
])
def test_a_lora_option_is_read(text, entry):
    assert parse_lora_option(text) == entry


@pytest.mark.parametrize("text", ["child", "child=", "=1", "child=x", "child=1@2", "child=11", "child=0,2,0,5",
                                  "child=0.8:start=0.3", "child=0.8:start=5:start=6", "child=0.5%%"])
def test_a_wrong_lora_option_is_refused(text):
    with pytest.raises(SciArtError, match="lora"):
        parse_lora_option(text)


def test_plan_tells_the_negative_prompt_and_steps_that_never_come(capsys):
    recipe = {"loras": [{"name": "child", "weight": 0.8, "negative": {"schedule": "0.2@s1, 1@s9"}},
                        {"name": "b", "weight": 0.5}]}
    status, out, err = run(capsys, "plan", "--recipe", json.dumps(recipe), "--steps", 3)
    assert status == 0 and err == "note: child: a step of the schedule is after the last, 3\n"
    assert out.splitlines()[1:] == [
        "step  progress  child (prompt)  child (negative)      b",
        "   1     0.000           0.800             0.200  0.500",
        "   2     0.500           0.800             0.300  0.500",
        "   3     1.000           0.800             0.400  0.500",
        "text   encoder           0.800             1.000  0.500", ""]


def test_options_take_a_decimal_comma(capsys):
    read = sciart.commands["generate"].make_context("generate", ["--cfg", "7,5"]).params
    assert read["cfg"] == 7.5
    for text in ("50%", "7,5,1", "x"):
        assert "is not a number such as 7.5; accepted: 0 to 100" in refuse(capsys, "generate", "--cfg", text)


def test_plan_prints_an_aligned_table(capsys):
    status, out, _ = run(capsys, "plan", *MIX, "--steps", 3, "--hires-steps", 1)
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "first pass, 3 steps"
    assert lines[1].split() == ["step", "progress", "child", "paint"]
    assert [line.split() for line in lines[2:5]] == [
        ["1", "0.000", "0.200", "0.400"], ["2", "0.500", "0.650", "0.400"], ["3", "1.000", "0.650", "0.400"]]
    assert lines[5].split() == ["text", "encoder", "0.650", "0.400"]
    assert len({len(line) for line in lines[1:6]}) == 1
    assert lines[7:10][0] == "hires pass, 1 steps" and lines[9].split() == ["1", "0.000", "0.650", "0.400"]


def test_plan_as_json_is_the_plan_s_table(capsys):
    table = json.loads(run(capsys, "plan", *MIX, "--steps", 2, "--json")[1])
    assert [lora["weights"] for lora in table["first"]["loras"]] == [[0.2, 0.65], [0.4, 0.4]]
    assert table["hires"] is None


def test_plan_as_a_picture(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert run(capsys, "plan", *MIX, "--png", tmp_path / "new" / "plan.png")[0] == 0
    assert (tmp_path / "new" / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_a_preset_s_plan_needs_no_files(capsys):
    out = run(capsys, "plan", "--preset", "science-imagination", "--role", "child=my_kid", "--steps", 1)[1]
    assert out.splitlines()[1].split() == ["step", "progress", "my_kid", "watercolor", "science"]


def test_a_recipe_comes_from_json_from_a_file_or_from_standard_input(capsys, tmp_path, monkeypatch):
    import io
    text = '{"loras": [{"name": "a", "weight": 0.3}]}'
    (tmp_path / "r.json").write_text(text)
    expected = run(capsys, "plan", "--recipe", text)
    assert run(capsys, "plan", "--recipe", tmp_path / "r.json") == expected
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert run(capsys, "plan", "--recipe", "-") == expected


def test_lora_options_are_added_to_the_recipe_s(capsys):
    out = run(capsys, "plan", "--recipe", '{"loras": [{"name": "a", "weight": 0.3}]}', "--lora", "b=1")[1]
    assert out.splitlines()[1].split() == ["step", "progress", "a", "b"]


@pytest.mark.parametrize(("arguments", "message"), [
    (["plan"], "recipe: missing; give --recipe, --preset or --lora"),
    (["plan", "--recipe", "{x"], "recipe: not valid JSON"),
    (["plan", "--recipe", "[]"], "recipe: expected one JSON object, got list"),
    (["plan", "--recipe", "nowhere.json"], "recipe: nowhere.json: No such file"),
    (["plan", "--recipe", '{"loras": [{"name": "a"}]}'], "loras[0].weight: missing"),
    (["plan", "--recipe", '{"loras": 1}', "--lora", "a=1"], "loras: expected a list, got int"),
    (["plan", "--recipe", '{"roles": 1}', "--role", "a=b"], "roles: expected an object"),
    (["plan", "--lora", "a"], "lora: cannot read 'a'; expected NAME=SPEC"),
    (["plan", "--lora", "a=1", "--lora", "a=2"], "loras[1].name: 'a' is listed twice"),
    (["plan", "--lora", "a=1", "--role", "child"], "role: cannot read 'child'; expected ROLE=NAME"),
    (["plan", "--lora", "a=1", "--steps", "0"], "steps: 0 is out of range"),
    (["plan", "--lora", "a=1", "--hires-steps", "-1"], "hires-steps: -1 is out of range"),
    (["plan", "--preset", "nope"], "preset: no preset 'nope'"),
    (["presets", "show", "nope"], "name: no preset 'nope'"),
    (["presets", "delete", "science-imagination"], "shipped with SciArt"),
    (["presets", "save", "../x", '{"recipe": {"loras": [{"name": "a", "weight": 1}]}}'], "name: '../x'; accepted"),
    (["loras", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
    (["generate", "--model", "x", "--preset", "science-imagination"], "'child' is not bound to a LoRA; give --role"),
    (["influence", "--prompt", "p"], "loras: missing; give --recipe, --preset or --lora"),
    (["influence", "--lora", "a=1", "--subsets", "some"], "subsets: 'some' is not known; accepted: solo, left-out"),
    (["influence", "--lora", "a=1", "--orders", "1"], "orders: 1 is out of range; accepted: 2 to 1000"),
    (["influence", "--lora", "a=1", "--at-once", "0"], "at-once: 0 is out of range; accepted: 1 to 256"),
])
def test_errors_are_one_line_and_status_2(capsys, arguments, message):
    assert message in refuse(capsys, *arguments)


def test_unknown_commands_and_options_are_refused(capsys):
    assert "command: 'paint' is not known; did you mean 'plan'? accepted: bake, combine" in refuse(capsys, "paint")
    assert "--wx: no such option; sciart plan --help lists them" in refuse(capsys, "plan", "--wx", "1")
    assert "--step: no such option; did you mean --steps?" in refuse(capsys, "plan", "--step", "1")
    for arguments in ([], ["presets"]):
        status, out, _ = run(capsys, *arguments)
        assert status == 2 and "Usage: sciart" in out


def test_missing_extras_are_named(capsys, monkeypatch):
    monkeypatch.setattr(standalone, "EXTRAS", ("no_such_package",))
    for arguments in (["generate", "--prompt", "p"], ["influence", "--prompt", "p", "--lora", "child=1"],
                      ["export-webui", "x"]):
        assert 'no_such_package not installed; pip install "sciart[standalone]"' in refuse(capsys, *arguments)


def test_presets_are_saved_listed_shown_and_deleted(capsys, tmp_path):
    (tmp_path / "p.json").write_text('{"title": "Mine", "recipe": {"loras": [{"name": "a", "weight": 1}]}}')
    assert run(capsys, "presets", "save", "mine", tmp_path / "p.json")[0] == 0
    listed = run(capsys, "presets", "list")[1].splitlines()
    assert listed[0].split()[:2] == ["science-imagination", "shipped"]
    assert listed[-1].split() == ["mine", "own", "Mine"]
    shown = json.loads(run(capsys, "presets", "show", "mine")[1])
    assert shown["name"] == "mine" and shown["builtin"] is False and shown["recipe"]["loras"][0]["name"] == "a"
    assert run(capsys, "presets", "delete", "mine")[0] == 0
    assert "no preset 'mine'" in refuse(capsys, "presets", "show", "mine")


def test_influence_is_told_in_sentences_and_saved_as_a_folder(capsys, tmp_path, one_thread):
    pytest.importorskip("diffusers")
    asked = ["influence", "--prompt", "a rocket in space", "--lora", "child=0.8", "--lora", "watercolor=0.5", "--steps",
             2, "--width", 64, "--height", 64, "--out", tmp_path / "out", "--device", "cpu"]
    status, out, _ = run(capsys, *asked)
    first, second, page = out.splitlines()
    assert status == 0 and page == str(tmp_path / "out" / "index.html") and (tmp_path / "out" / "index.html").is_file()
    data = json.loads((tmp_path / "out" / "influence.json").read_text(encoding="utf-8"))
    assert data["sentences"] == [first, second] and first.startswith("child: ") and " % of the change, " in first
    assert data["made"]["prompt"] == "a rocket in space" and data["made"]["recipe"]["loras"][0]["name"] == "child"
    assert [name for name in ("rocket", "space") if f"word_{name}" in np.load(tmp_path / "out" / "maps.npz")] == [
        "rocket", "space"]
    solo = run(capsys, *asked, "--subsets", "solo", "--words", "-")[1]
    assert solo.startswith("child: ΔE ")
    assert "words: 'robot' is not in the prompt" in refuse(capsys, *asked, "--words", "rocket, robot")


def test_influence_goes_on_where_it_was_interrupted(capsys, tmp_path, one_thread, monkeypatch):
    pytest.importorskip("diffusers")
    asked = ["influence", "--prompt", "a rocket", "--lora", "child=0.8", "--lora", "watercolor=0.5", "--steps", 2,
             "--width", 64, "--height", 64, "--at-once", 2, "--device", "cpu", "--out"]
    told: list[int] = []

    def progress(done, of):
        told.append(of)
        if done == 6:  # in the second of two batches of two pictures
            raise KeyboardInterrupt

    monkeypatch.setattr("sciart_ext.cli.influence.progress", lambda *_: contextlib.nullcontext(progress))
    status, out, error = run(capsys, *asked, tmp_path / "out")
    assert (status, out) == (130, "")
    assert error == "sciart: interrupted: 2 of 4 pictures are made; the same command goes on from there\n"
    assert run(capsys, *asked, tmp_path / "out")[0] == 0 and told == [8, 8, 8, 4, 4]
    assert not (tmp_path / "out" / "unfinished").exists()
    monkeypatch.undo()
    run(capsys, *asked, tmp_path / "whole")
    for name in ("shares.csv", "curves.csv", "03_all.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_influence_goes_on_where_it_was_killed(capsys, tmp_path, one_thread, monkeypatch):
    pytest.importorskip("diffusers")
    asked = ["influence", "--prompt", "a rocket", "--lora", "child=0.8", "--lora", "watercolor=0.5", "--steps", "2",
             "--width", "64", "--height", "64", "--at-once", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    kept = tmp_path / "out" / "unfinished"
    process = multiprocessing.get_context("fork").Process(target=main, args=(asked,))  # what it imports is there
    process.start()
    while process.is_alive() and not list(kept.glob("*.npz")):
        time.sleep(0.01)
    process.kill()
    process.join()
    made = len(list(kept.glob("*.npz")))
    assert 0 < made < 4, "it was over before it could be killed"
    told: list[int] = []
    monkeypatch.setattr("sciart_ext.cli.influence.progress",
                        lambda *_: contextlib.nullcontext(lambda done, of: told.append(of)))
    assert run(capsys, *asked)[0] == 0 and told[0] == 2 * (4 - made)
    assert not kept.exists() and not [path for path in (tmp_path / "out").iterdir() if "tmp" in path.name]


def test_a_preset_that_is_wrong_is_one_line_of_the_list(capsys, tmp_path):
    own = tmp_path / "user" / "presets"
    own.mkdir(parents=True)
    (own / "bad.json").write_text("[" * 100_000)
    recipe = {"loras": [{"name": "a", "weight": 1}]}
    (own / "good.json").write_text(json.dumps({"title": "a\n\x1b[2Jb", "recipe": recipe}))
    (tmp_path / "user" / "roles.json").write_text("[]")
    status, out, err = run(capsys, "presets", "list")
    *_, bad, good = out.splitlines()
    assert status == 0 and bad.split(maxsplit=2)[:2] == ["bad", "own"] and "cannot be used: preset: bad.json" in bad
    assert good.split() == ["good", "own", "a", "[2Jb"]
    assert err.count("\n") == 1 and err.startswith("sciart: roles: ") and "mend or delete the file" in err


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
def test_a_full_disk_is_one_line_and_status_1_and_leaves_nothing(tmp_path):
    for name, rank in (("a", 40), ("b", 40)):
        stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
        save_file({f"{stem}.lora_down.weight": torch.rand(rank, 768), f"{stem}.lora_up.weight": torch.rand(320, rank)},
                  tmp_path / f"{name}.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    for asked in (["combine", f"{tmp_path / 'a'}.safetensors=1", f"{tmp_path / 'b'}.safetensors=1", "--quiet", "--out",
                   out / "c.safetensors"], ["plan", "--lora", "a=1", "--png", out / "plan.png"]):
        process = program(*asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, before="""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
""")
        _, err = process.communicate()
        assert process.returncode == 1 and re.fullmatch(r"sciart: \S+: cannot be written: .*\n", err), (asked[0], err)
        assert list(out.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_an_output_without_room_is_one_line_and_status_1():
    with open("/dev/full", "w") as full:
        process = program("presets", "list", stdout=full, stderr=subprocess.PIPE)
        assert process.communicate()[1] == "sciart: standard output cannot be written: No space left on device\n"
    assert process.returncode == 1


def program(*arguments, before="", **options):
    """The command line in a process of its own."""
    code = f"{before}\nimport sys\nfrom sciart_ext.cli import main\nsys.exit(main(sys.argv[1:]))"
    root = Path(__file__).parents[2]
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=root, text=True, **options)


def test_lora_files_are_reported(capsys, tmp_path):
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{stem}.lora_down.weight": torch.ones(4, 768), f"{stem}.lora_up.weight": torch.ones(320, 4),
               f"{stem}.alpha": torch.tensor(2.0)}, tmp_path / "x.safetensors")
    out = run(capsys, "loras", tmp_path / "x.safetensors")[1]
    assert out.startswith("x.safetensors: LoRA for SD1, rank 4, 1 UNet and 0 text encoder layers")
    report = json.loads(run(capsys, "loras", "--json", tmp_path / "x.safetensors")[1])[0]
    assert report["ranks"] == {"4": 1} and report["base"] == "SD1"


def test_the_list_of_loras_tells_kinds_ranks_and_embeddings(capsys, tmp_path):
    import torch
    from lora_files import pair, save

    norm = save(tmp_path / "norm.safetensors", {"lora_unet_mid_block_resnets_0_norm1.w_norm": torch.ones(4)})
    both = save(tmp_path / "both.safetensors", {**pair(), "bundle_emb.zorp.string_to_param.*": torch.ones(2, 4)})
    lines = run(capsys, "loras", norm, both)[1].splitlines()
    assert lines[0].startswith("norm.safetensors: norm differences for unknown, 1 UNet and 0 text encoder layers")
    assert lines[1].startswith("both.safetensors: LoRA for unknown, rank 2, 1 UNet") and "embedding 'zorp'" in lines[1]
