"""Prompts are read as the WebUI reads them: the standalone engine's pictures are the host's, and so is every text."""

from __future__ import annotations

import json
import random
import subprocess

import numpy as np
import pytest
import torch
from pictures import MAX_DIFFERENCE, difference, with_recipe
from safetensors.torch import load_file, save_file
from server import clean_environment, webui_folder, webui_python

pytest.importorskip("diffusers")

from sciart_ext.recipe import parse_recipe
from sciart_ext.standalone.generate import Settings, generate, load_loras
from sciart_ext.standalone.infotext import parse_infotext
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.prompts.syntax import parts_of, pieces_of, texts_of
from sciart_ext.world import MODEL

STEPS, SEED, CFG = 6, 11, 5.0
COMMAS = "a rocket, a red star, a blue planet, a robot, "
PROMPTS = {
    "plain": "a red striped rocket and a yellow visor robot in space",
    "round": "a (red) rocket and a ((robot)) in space",
    "number": "a (red striped:1.4) rocket and a (robot:0.6) in space",
    "square": "a [red] rocket and a [[robot]] in space",
    "nested": "a (red (striped:1.3) rocket) and a ([visor] robot:1.2) in space",
    "negative weight": "a rocket and a (robot:-0.5) in space",
    "escaped": r"a \(red\) rocket \[in\] space and a (robot\):1.3), a back\slash",
    "open": "a (red rocket and a [robot in space",
    "closed": "a red) rocket and a robot:1.2) in ]space",
    "inside a word": "a roc(ket)s:1.5 and (ro)bots",
    "break": "a red rocket BREAK a yellow robot in space",
    "breaks": "BREAK a red rocket BREAK BREAK a (robot:1.3) BREAK",
    "break in brackets": "a (red rocket BREAK a robot:1.2) in space",
    "long": "a rocket " * 45 + "and a robot in space",
    "long with commas": COMMAS * 6 + "a submarine in the sea near a planet",
    "long and emphasised": COMMAS * 5 + "(a yellow visor robot in space, and a rocket:1.3), a planet",
    "and": "a red rocket in space AND a yellow robot in space",
    "and with weights": "a red rocket in space :1.2 AND a yellow robot :0.5 AND planet :-0.3",
    "and of two lengths": "a rocket " * 45 + " AND a (robot:1.2) in space :0.7",
    "a weight alone": "a red rocket in space :0.6",
    "edited by share": "a [red:blue:0.5] rocket in space",
    "edited by step": "a [red rocket:robot:2] in space [with a planet:4] [and a star::3]",
    "edited and emphasised": "a ([red:blue:3] rocket:1.3) and a [(robot:1.4):planet:0.4] in space",
    "edited within": "a [red:[green:blue:4]:2] rocket in [space|the sea]",
    "edited to another length": "a rocket, [a robot:" + "a planet, " * 40 + ":3] in space",
    "in turn": "a [red|blue|green] [rocket|(robot:1.3)] in space",
    "and, edited": "a [red:blue:2] rocket AND a [robot|planet] in space :0.8",
    "no edit": "a [red:blue] rocket | a [robot:planet:0.5] in space",
    "comment": "a red rocket # and a robot\n# nothing\nin space",
    "lora": "a rocket in space <lora:child:0.8>",
    "loras": "a rocket in space<lora:child:0.8:0.3> <lora:watercolor:te=0.2:unet=0.7> <lyco:science:1:dyn=2>",
    "lora and recipe": "a (rocket:1.2) in space <lora:child:0.6> <lora:watercolor:0.3>",
    "lora and and": "a rocket in space AND a robot :0.6 <lora:child:0.6>",
    "embedding": "a zorp rocket BREAK (zorp:1.4) in space <lora:bundle:0.6>",
}
NEGATIVES = {
    "round": "(planet:1.5), [star]",
    "long": "planet",
    "comment": "planet # star",
    "lora": "planet <lora:child:1>",
    "and": "planet AND star",
    "edited by step": "[planet:(star:1.3):2]",
    "in turn": "planet, " * 30,
    "break": "planet BREAK star",
}
RECIPES = {
    "lora and recipe": {"loras": [{"name": "child", "schedule": "0.2@0, 0.8@1"}]},
    "and with weights": {"loras": [{"name": "watercolor", "weight": 0.6}]},
    "and": {"compose": "switch", "loras": [{"name": "watercolor", "weight": 0.6}, {"name": "child", "weight": 0.7}]},
}
SUBJECTS = [{"name": "red-striped-rocket", "weight": 1.0, "subject": "rocket"},
            {"name": "yellow-visor-robot", "weight": 1.0, "subject": "robot"}]
OWN_ROWS = {
    "composite": ({"compose": "composite", "loras": SUBJECTS}, "a (rocket:1.2) and a [robot:robot:3] <lora:child:0.5>"),
    "spatial": ({"compose": "spatial", "loras": SUBJECTS}, "a rocket BREAK a robot <lora:watercolor:0.5>"),
    "contrastive": ({"compose": "contrastive", "guidance": {"strength": 0}, "loras": SUBJECTS},
                    "a (rocket:1.2) BREAK a [red:blue:3] (robot) in space"),
    "switch": ({"compose": "switch", "loras": SUBJECTS}, "a rocket AND a robot <lora:watercolor:0.6>"),
}


@pytest.fixture(scope="module")
def loras(tiny_world):
    """The folder of the tiny model's LoRAs, and of `bundle`: `child` with an embedding of two vectors."""
    folder = tiny_world.data / "models" / "Lora"
    vectors = torch.randn(2, 64, generator=torch.Generator().manual_seed(1))
    bundle = folder / "bundle.safetensors"
    save_file({**load_file(folder / "child.safetensors"), "bundle_emb.zorp.string_to_param.*": vectors}, bundle)
    yield folder
    bundle.unlink()
    tiny_world.post("/sdapi/v1/refresh-loras")


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline(MODEL, device="cpu")


def assert_alike(host, pipe, loras, prompt, negative, recipe=None, sampler="Euler"):
    answer = host.txt2img(prompt=prompt, negative_prompt=negative, steps=STEPS, seed=SEED, sampler_name=sampler,
                          cfg_scale=CFG, width=128, height=128, **(with_recipe(recipe) if recipe else {}))
    assert answer.status == 200, answer.text
    recipe = parse_recipe(recipe or {"enabled": False})
    settings = Settings(prompt, negative, steps=STEPS, seed=SEED, sampler=sampler, cfg_scale=CFG)
    picture = generate(pipe, recipe, settings, load_loras(recipe, loras, prompt))
    largest, mean = difference(np.asarray(picture.image), answer.pictures[0])
    assert largest <= MAX_DIFFERENCE, f"largest {largest}, mean {mean:.3f}"
    theirs, ours = (parse_infotext(text) for text in (answer.infotext, picture.infotext))
    assert ours["Prompt"] == theirs["Prompt"] and ours["Negative prompt"] == theirs["Negative prompt"]


@pytest.mark.parametrize("name", PROMPTS)
def test_host_and_standalone_read_a_prompt_alike(tiny_world, pipe, loras, name):
    assert_alike(tiny_world, pipe, loras, PROMPTS[name], NEGATIVES.get(name, "planet"), RECIPES.get(name))


@pytest.mark.parametrize("name", ["edited by step", "in turn", "edited by share"])
def test_edits_go_by_evaluations_of_a_sampler_of_second_order(tiny_world, pipe, loras, name):
    assert_alike(tiny_world, pipe, loras, PROMPTS[name], "planet", sampler="Heun")


@pytest.mark.parametrize("compose", OWN_ROWS)
def test_loras_with_rows_of_their_own_read_it_alike_too(tiny_world, pipe, loras, compose):
    recipe, prompt = OWN_ROWS[compose]
    assert_alike(tiny_world, pipe, loras, prompt, "planet", recipe)


ORACLE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from modules import prompt_parser as parser

def told(text, steps):
    try:
        pieces = parser.parse_prompt_attention(text)
    except ValueError:  # a weight that is no number
        pieces = None
    indexes, texts, _ = parser.get_multicond_prompt_list([text])
    return {"pieces": pieces, "parts": [[texts[i], weight] for i, weight in indexes[0]],
            "texts": parser.get_learned_conditioning_prompt_schedules([text], steps)[0]}

json.dump([told(*one) for one in json.load(sys.stdin)], sys.stdout)
"""
WORDS = ["a", "rocket", "red, ", " ", "x\n", "BREAK", " AND ", r"\(", r"\]", "\\\\", "ü", "3", "0.5", ""]
WHEN = ["3", "0.5", "1", "0", "2.0", ".25", "1.2", "-1", "7", "1e0", " 2 "]


def well_formed(dice: random.Random, depth: int) -> str:
    """A prompt whose brackets all close."""
    def one() -> str:
        inner = [well_formed(dice, depth - 1) for _ in range(3)] if depth else []
        kinds = [lambda: dice.choice(WORDS)] * 3
        if inner:
            kinds += [lambda: f"({inner[0]})", lambda: f"({inner[0]}:{dice.choice(['1.3', ' 2 ', '-1'])})",
                      lambda: f"[{inner[0]}]", lambda: f"[{inner[0]}:{dice.choice(WHEN)}]",
                      lambda: f"[{inner[0]}:{inner[1]}:{dice.choice(WHEN)}]", lambda: f"[{'|'.join(inner)}]"]
        return dice.choice(kinds)()

    return "".join(one() for _ in range(dice.randint(1, 3)))


def wild(dice: random.Random) -> str:
    """What nobody would write."""
    marks = ["a", "b ", "(", ")", "[", "]", ":", "|", "\\", "3", "0.5", "BREAK", "AND", ":1.3)", ":1.2.3)", " "]
    return "".join(dice.choice(marks) for _ in range(dice.randint(1, 14)))


def test_every_text_is_what_the_host_makes_of_the_prompt():
    dice = random.Random(1)
    asked = [(well_formed(dice, 3) if dice.random() < 0.6 else wild(dice), dice.choice([1, 4, 10])) for _ in range(1000)]
    webui = webui_folder()
    done = subprocess.run([str(webui_python(webui)), "-c", ORACLE, str(webui)], input=json.dumps(asked), text=True,
                          capture_output=True, env=clean_environment(), check=True)
    edited = 0
    for (prompt, steps), theirs in zip(asked, json.loads(done.stdout)):
        assert [list(one) for one in texts_of(prompt, steps)] == theirs["texts"], prompt
        assert [list(one) for one in parts_of(prompt)] == theirs["parts"], prompt
        if theirs["pieces"] is not None:
            ours = [["BREAK", -1] if one.is_break else [one.text, one.weight] for one in pieces_of(prompt)]
            assert ours == theirs["pieces"], prompt
        edited += len(theirs["texts"]) > 1
    assert edited > 200
