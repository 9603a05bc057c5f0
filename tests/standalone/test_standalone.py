"""The engine on diffusers, end to end on the tiny model: pictures, gates per step, infotext, errors."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image
from random_model import write_random_model
from safetensors.torch import load_file, save_file

from sciart_ext import __version__
from sciart_ext.cli import main
from sciart_ext.errors import SciArtError
from sciart_ext.lora.blocks import LISTS, label_of
from sciart_ext.lora.file import load_lora
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.recipe import compile_plan, parse_recipe
from sciart_ext.standalone import generate as generate_module
from sciart_ext.standalone.export import export_webui
from sciart_ext.standalone.generate import Settings, find_lora, generate, load_loras
from sciart_ext.standalone.infotext import infotext, parse_infotext, read_picture, save_picture
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.standalone.prompts.encoding import count_chunks, encode
from sciart_ext.standalone.samplers.names import SAMPLERS, steps_run

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = Settings("a rocket", "noise", steps=4, seed=5, cfg_scale=3, width=64, height=64)
MIX = {"loras": [{"name": "child", "schedule": [[0, 0.2], [0.5, 0.65]]}, {"name": "watercolor", "weight": 0.55},
                 {"name": "science", "weight": 0.5, "te_weight": 0.2}]}
OFF = parse_recipe({"enabled": False})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(model folder, LoRA folder)"""
    return write_random_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pipe(tiny):
    return load_pipeline(tiny[0], device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The same of two levels, where it does not matter how many layers make a picture: (pipeline, LoRA folder)"""
    folder, loras = write_random_model(tmp_path_factory.mktemp("small"), levels=2)
    return load_pipeline(folder, device="cpu"), loras


def paint(pipe, folder, recipe, settings=SETTINGS, **options):
    recipe = parse_recipe(recipe)
    return generate(pipe, recipe, settings, load_loras(recipe, folder), **options)


def pixels(picture):
    return np.asarray(picture.image if hasattr(picture, "image") else picture).astype(int)


def mixed(weight, **changes):
    return {"loras": [{**entry, "schedule": None, "te_weight": None, "weight": weight, **changes}
                      for entry in MIX["loras"]]}


@pytest.fixture(scope="module")
def base(pipe):
    return generate(pipe, OFF, SETTINGS, [])


def test_the_tiny_model_is_the_same_each_time(tiny, tmp_path):
    again = write_random_model(tmp_path / "a", tmp_path / "b")
    for folder, other in zip(tiny, again):
        for path in folder.rglob("*.safetensors"):
            if path.relative_to(folder).parts[0] != "loras":
                assert path.read_bytes() == (other / path.relative_to(folder)).read_bytes()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell what is mapped")
def test_no_weight_of_a_loaded_model_is_a_part_of_its_file(tiny, tmp_path):
    """Of one in single precision, whose weights need not be converted; and of a single file."""
    export_webui(tiny[0], tmp_path, "single")
    single = tmp_path / "Stable-diffusion" / "single.safetensors"
    kept = [load_pipeline(tiny[0], device="cpu"), load_pipeline(single, tiny[0], device="cpu")]
    mapped = Path("/proc/self/maps").read_text()
    assert len(kept) == 2 and str(tiny[0]) not in mapped and str(single) not in mapped


def test_the_tiny_loras_reach_unet_and_text_encoder(tiny):
    ranks = {"child": 4, "watercolor": 8, "science": 6}
    for name, rank in ranks.items():
        report = load_lora(tiny[1] / f"{name}.safetensors").report()
        assert report["rank"] == rank and report["unet_layers"] == 192 and report["text_encoder_layers"] == 12


def test_the_base_picture_is_diffusers_own(pipe, base):
    scheduler = pipe.scheduler
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(scheduler.config, timestep_spacing="linspace")
    own = pipe("a rocket", negative_prompt="noise", num_inference_steps=4, guidance_scale=3, width=64, height=64,
               generator=torch.Generator().manual_seed(5)).images[0]
    pipe.scheduler = scheduler
    assert np.abs(pixels(base) - pixels(own)).max() <= 1


def test_zero_weights_give_the_base_picture_exactly(pipe, tiny, base):
    assert np.array_equal(pixels(paint(pipe, tiny[1], mixed(0))), pixels(base))


def test_the_mixture_differs_and_repeats(pipe, tiny, base):
    first, second = (pixels(paint(pipe, tiny[1], MIX)) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.abs(first - pixels(base)).mean() > 5


def test_every_lora_and_the_schedule_matter(small):
    whole = pixels(paint(*small, MIX))
    for i in range(3):
        part = {"loras": MIX["loras"][:i] + MIX["loras"][i + 1:]}
        assert np.abs(pixels(paint(*small, part)) - whole).mean() > 1
    constant = {"loras": [{"name": "child", "weight": 0.65}, *MIX["loras"][1:]]}
    assert np.abs(pixels(paint(*small, constant)) - whole).mean() > 1


NEGATIVE = {"loras": [{"name": "child", "weight": 0.8, "negative": {"schedule": "0@s2, 1@s3", "te_weight": 0.1}},
                      {"name": "science", "weight": 0.5}]}


def test_the_negative_prompt_has_its_own_weights(small):
    """Where they are the prompt's or none, it is the picture that other words of the recipe give."""
    def child(**changes):
        return pixels(paint(*small, {"loras": [{"name": "child", "weight": 0.8, **changes}]}))

    whole, prompt_only = child(), child(apply_to="cond")
    assert np.array_equal(child(negative={"weight": 0.8}), whole)
    assert np.abs(child(negative={"weight": 0}) - prompt_only).max() <= 2
    assert np.abs(whole - prompt_only).mean() > 1
    other = pixels(paint(*small, NEGATIVE))
    for changed in ({"weight": 0.8}, {"schedule": "0@s2, 1@s3", "te_weight": 1}):
        recipe = {"loras": [{**NEGATIVE["loras"][0], "negative": changed}, NEGATIVE["loras"][1]]}
        assert np.abs(pixels(paint(*small, recipe)) - other).mean() > 0.5


def test_the_negative_prompt_s_weights_are_in_the_infotext(small):
    parsed = parse_infotext(paint(*small, NEGATIVE).infotext)
    again = parse_recipe(parsed["SciArt"])
    assert again == parse_recipe(NEGATIVE)
    assert again.loras[0].negative.schedule == [["s2", 0], ["s3", 1]]


@pytest.mark.parametrize("schedule", ["0.2@s3, 0.9@s3", "0.9:start=3", [["s1", 0.2], [1, 0.9]]])
def test_the_unet_is_given_schedules_in_steps(small, monkeypatch, schedule):
    seen = []
    original = Mixer.set_gates
    monkeypatch.setattr(Mixer, "set_gates", lambda self, rows, *more, **views: (seen.append(rows[0][0]),
                                                                       original(self, rows, *more, **views))[1])
    paint(*small, {"loras": [{"name": "child", "schedule": schedule, "te_weight": 0}]})
    plan = compile_plan(parse_recipe({"loras": [{"name": "child", "schedule": schedule}]}), SETTINGS.steps)
    expected = {"0.2@s3, 0.9@s3": [0.2, 0.2, 0.9, 0.9], "0.9:start=3": [0, 0, 0.9, 0.9]}.get(str(schedule))
    assert seen == [plan.first.gates(p)[0] for p in plan.first.progress()]
    assert expected is None or seen == expected


def test_what_does_nothing_is_told(pipe, tiny):
    def notes(changes, **settings):
        recipe = {"loras": [{"name": "child", "weight": 0.5, **changes}]}
        picture = paint(pipe, tiny[1], recipe, replace(SETTINGS, **settings))
        assert not picture.notes or "; ".join(picture.notes) in parse_infotext(picture.infotext)["SciArt notes"]
        return "; ".join(picture.notes)

    told = "no effect at CFG scale 1, where the negative prompt does not count"
    for changes, field in (({"apply_to": "uncond"}, "loras[0].apply_to uncond"),
                           ({"negative": {"weight": 0.1}}, "loras[0].negative")):
        assert notes(changes, cfg_scale=1) == f"{field}: {told}"
        assert notes(changes) == ""
    assert notes({"apply_to": "cond"}, cfg_scale=1) == ""
    listed = notes({"blocks": [1] * 12})
    assert re.match(r"child: \d+ of 192 UNet layers are left out, in blocks that a list of 12 block weights does not "
                    r"have \(IN01, IN02, OUT06, ", listed)
    assert int(listed.split()[1]) == sum(label_of(layer) not in LISTS[12] for layer in load_lora(
        tiny[1] / "child.safetensors").layers if layer.startswith("unet_"))
    assert notes({"blocks": [1] * 26}) == notes({"blocks": {"in": 0}}) == ""
    assert notes({"weight": None, "schedule": "0.5@s1, 1@s9"}) == "child: a step of the schedule is after the last, 4"


def test_merge_and_branch_give_one_picture(pipe, tiny):
    for mix in (MIX, NEGATIVE):
        merged, branched = (pixels(paint(pipe, tiny[1], {**mix, "execution": how})) for how in ("merge", "branch"))
        assert np.abs(merged - branched).max() <= 2


def test_constant_weights_equal_weights_merged_by_hand(tiny):
    recipe = parse_recipe(mixed(0.5))
    by_mixer = pixels(paint(load_pipeline(tiny[0], device="cpu"), tiny[1], recipe))
    pipe = load_pipeline(tiny[0], device="cpu")
    with torch.no_grad():
        layers = generate_module.model_layers(pipe)
        for lora in load_loras(recipe, tiny[1]):
            for name, delta in lora.layers.items():
                weight = layers[name].weight()
                update = delta.scale * delta.up.flatten(1).float() @ delta.down.flatten(1).float()
                weight += 0.5 * update.reshape(weight.shape)
    assert np.abs(by_mixer - pixels(generate(pipe, OFF, SETTINGS, []))).max() <= 2


def without_room(wrong):
    """A hook that runs out of memory where wrong(rows) says so."""
    def check(module, args):
        if wrong(len(args[0])):
            torch.empty(1 << 55, dtype=torch.uint8)
    return check


def test_merged_weights_that_leave_no_room_are_refused_with_what_does(small, monkeypatch):
    mixers, choose = [], Mixer.choose
    monkeypatch.setattr(Mixer, "choose", lambda mixer, work: (mixers.append(mixer), choose(mixer, work)))
    before = pixels(paint(*small, MIX))
    for execution, limit in (("auto", r"memory_limit_mb below \1, "), ("merge", "")):
        check = without_room(lambda rows: rows > 1 and mixers[-1].merged_bytes())
        with small[0].unet.conv_in.register_forward_pre_hook(check), pytest.raises(SciArtError) as refused:
            paint(*small, {**MIX, "execution": execution})
        assert re.fullmatch(r"execution: out of memory: 2 rows at once do not fit beside (\d+) MB of merged weights, 1 "
                            rf"would; accepted: execution branch, {limit}a smaller picture", str(refused.value))
        assert mixers[-1].merged_bytes() == 0
        with small[0].unet.conv_in.register_forward_pre_hook(check):
            branched = paint(*small, {**MIX, "execution": "branch"})  # as it says
        assert np.abs(pixels(branched) - before).max() <= 2
    assert np.array_equal(pixels(paint(*small, MIX)), before)


@pytest.mark.parametrize("execution", ["merge", "branch"])
def test_a_picture_that_does_not_fit_in_memory_is_refused(small, execution):
    check = without_room(lambda rows: True)
    with small[0].unet.conv_in.register_forward_pre_hook(check), pytest.raises(SciArtError) as refused:
        paint(*small, {**MIX, "execution": execution})
    assert re.fullmatch(r"execution: out of memory: 2 rows at once do not fit( beside \d+ MB of merged weights)?, 0 "
                        "would; accepted: a smaller picture", str(refused.value))


def test_a_picture_that_cannot_be_decoded_for_want_of_memory_is_refused(small):
    check = without_room(lambda rows: True)
    with small[0].vae.post_quant_conv.register_forward_pre_hook(check), pytest.raises(SciArtError) as refused:
        paint(*small, MIX)
    assert str(refused.value) == ("width: out of memory in the autoencoder, after the last step; accepted: a smaller "
                                  "picture")


def test_the_pipeline_is_left_as_it_was(pipe, tiny):
    before = {name: tensor.clone() for name, tensor in state(pipe).items()}
    scheduler = pipe.scheduler
    generate(pipe, OFF, SETTINGS, [])  # transformers adds hooks of its own at the first call
    own_hooks = hooks(pipe)
    paint(pipe, tiny[1], MIX)

    def stop(done, steps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        paint(pipe, tiny[1], MIX, on_step=stop)
    assert pipe.scheduler is scheduler
    assert all(torch.equal(tensor, before[name]) for name, tensor in state(pipe).items())
    assert hooks(pipe) == own_hooks


def hooks(pipe):
    return [(name, list(kind)) for model in (pipe.unet, pipe.text_encoder) for name, module in model.named_modules()
            for kind in (module._forward_hooks, module._forward_pre_hooks)]


def state(pipe):
    return {**{f"unet.{k}": v for k, v in pipe.unet.state_dict().items()},
            **{f"te.{k}": v for k, v in pipe.text_encoder.state_dict().items()}}


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_every_evaluation_has_the_gate_of_its_sampler_step(small, sampler, monkeypatch):
    """Two-evaluation samplers use one gate for both evaluations of a step."""
    last, seen, done = [], [], []

    set_gates = Mixer.set_gates

    def record(mixer, rows, **views):
        last[:] = [tuple(row) for row in rows]
        set_gates(mixer, rows, **views)

    monkeypatch.setattr(Mixer, "set_gates", record)
    handle = small[0].unet.register_forward_pre_hook(lambda *_: seen.append(last[0][0]))
    settings = Settings("a", steps=5, sampler=sampler, cfg_scale=3, width=64, height=64)
    try:
        paint(*small, {"loras": [{"name": "child", "schedule": "0@0, 1@1"}]}, settings,
              on_step=lambda step, steps: done.append(step))
    finally:
        handle.remove()
    run = steps_run(SAMPLERS[sampler], 5)
    assert done == list(range(1, run + 1))
    if sampler == "DPM adaptive":  # by log σ, within its steps too
        assert seen[0] == 0 and len(seen) > 5 and max(seen) <= 1
        return
    each = [step / (run - 1) for step in range(run)]
    if SAMPLERS[sampler].pattern.per_step == 2:
        each = [step for step in each for _ in range(2)][:-1]
    assert seen == [0.0] * SAMPLERS[sampler].pattern.extra_in_first + each


@pytest.mark.parametrize("cfg_scale", [3, 1])
def test_a_lora_of_the_prompt_only_has_rows_of_its_own(small, cfg_scale):
    settings = Settings("a rocket", "noise", steps=4, seed=5, cfg_scale=cfg_scale, width=64, height=64)
    base, both, cond, uncond = (pixels(paint(*small, recipe, settings)) for recipe in (
        {"enabled": False}, mixed(0.5), mixed(0.5, apply_to="cond"), mixed(0.5, apply_to="uncond")))
    if cfg_scale == 1:  # there is no negative row: what is for it alone does nothing
        assert np.array_equal(uncond, base)
        assert np.abs(both - cond).max() <= 2
    else:
        assert len({image.tobytes() for image in (base, both, cond, uncond)}) == 4


def test_rows_that_differ_equal_two_runs_of_one_row(pipe, tiny):
    """The gates reach the right rows: noise predictions of a mixed batch equal those of each row alone."""
    from sciart_ext.mixer.cost import Workload
    from sciart_ext.mixer.mixer import Mixer
    from sciart_ext.mixer.targets import diffusers_unet_layers

    lora = load_lora(tiny[1] / "child.safetensors")
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 64)
    with torch.no_grad(), Mixer(pipe.unet, diffusers_unet_layers(pipe.unet), [lora], execution="merge") as mixer:
        singles = []
        for i, gate in enumerate((0.0, 0.8)):
            mixer.set_gates([[gate]])
            singles.append(pipe.unet(sample[i:i + 1], 500, text[i:i + 1]).sample)
    mixer = Mixer(pipe.unet, diffusers_unet_layers(pipe.unet), [lora])
    mixer.choose(Workload(calls=1, changes=1, rows=2, height=8, width=8, rows_differ=True))
    with torch.no_grad(), mixer:
        mixer.set_gates([[0.0], [0.8]])
        both = pipe.unet(sample, 500, text).sample
    assert torch.allclose(both, torch.cat(singles), atol=1e-3, rtol=1e-3)


def test_block_weights_reach_the_blocks(pipe, tiny, base):
    off = {"in": 0, "mid": 0, "out": 0}
    assert np.array_equal(pixels(paint(pipe, tiny[1], mixed(0.5, te_weight=0, blocks=off))), pixels(base))
    halves = [pixels(paint(pipe, tiny[1], mixed(0.5, te_weight=0, blocks={**off, name: 1}))) for name in off]
    assert len({image.tobytes() for image in (*halves, pixels(base))}) == 4


def test_the_infotext_in_the_png_reads_back(pipe, tiny, tmp_path):
    settings = Settings('a "rocket", red:\nand blue', "ugly, bad", steps=2, seed=9, cfg_scale=6, width=64, height=72)
    picture = paint(pipe, tiny[1], MIX, settings, model_name="tiny")
    fields = read_picture(save_picture(picture.image, tmp_path / "x.png", picture.infotext))
    assert fields["Prompt"] == settings.prompt and fields["Negative prompt"] == settings.negative_prompt
    expected = {"Steps": "2", "Sampler": "Euler a", "CFG scale": "6", "Seed": "9", "Size": "64x72", "Model": "tiny"}
    assert {key: fields[key] for key in expected} == expected
    assert parse_recipe(fields["SciArt"]) == parse_recipe(MIX)
    assert fields["SciArt version"] == __version__


def test_without_loras_the_infotext_has_no_recipe(base):
    assert "SciArt" not in parse_infotext(base.infotext)


def test_the_host_s_own_patterns_read_the_infotext():
    """The expressions of the WebUI's infotext_utils.py, v1.10.1."""
    pair = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
    text = infotext("p", "n", {"Steps": 3, "SciArt": '{"loras":[{"name":"a, b","weight":1.0}]}', "Model": None})
    assert [key for key, _ in pair.findall(text.splitlines()[-1])] == ["Steps", "SciArt"]


def test_long_prompts_are_read_in_chunks_of_75(small):
    assert count_chunks(small[0], "") == 1
    assert count_chunks(small[0], "a " * 75) == 1
    assert count_chunks(small[0], "a " * 76) == 2
    long, negative = encode(small[0], "a " * 76, 2).tokens, encode(small[0], "", 2).tokens
    assert long.shape == negative.shape == (1, 154, 64)
    pictures = [pixels(paint(*small, MIX, Settings("rocket " * count, steps=2, width=64, height=64)))
                for count in (12, 40)]
    assert not np.array_equal(*pictures)


def test_clip_skip_changes_the_picture_and_1_is_none(pipe, base):
    same, other = (generate(pipe, OFF, Settings(**{**vars(SETTINGS), "clip_skip": n}), []) for n in (1, 2))
    assert np.array_equal(pixels(same), pixels(base))
    assert not np.array_equal(pixels(other), pixels(base))
    assert parse_infotext(other.infotext)["Clip skip"] == "2"


@pytest.mark.parametrize(("changes", "field"), [
    ({"steps": 0}, "steps"), ({"cfg_scale": -1}, "cfg"), ({"cfg_scale": float("nan")}, "cfg"),
    ({"width": 65}, "width"), ({"height": 32}, "height"), ({"prompt": " "}, "prompt"), ({"seed": -1}, "seed"),
    ({"clip_skip": 3}, "clip-skip"), ({"sampler": "Eular"}, "sampler"), ({"scheduler": "Exp"}, "scheduler"),
    ({"sampler": "Euler a Karas"}, "sampler"), ({"sampler": "UniPC", "steps": 2}, "steps"),
])
def test_wrong_settings_are_refused_naming_the_field(pipe, changes, field):
    with pytest.raises(SciArtError) as caught:
        generate(pipe, OFF, Settings(**{**vars(SETTINGS), **changes}), [])
    assert caught.value.field == field


def test_loras_are_found_by_stem_path_or_subfolder(tmp_path):
    for folder in ("sub", "other"):
        (tmp_path / folder).mkdir()
    for name in ("a.safetensors", "sub/b.safetensors", "sub/a.safetensors", "sub/c.pt", "other/c.safetensors"):
        (tmp_path / name).write_bytes(b"")
    assert find_lora("b", tmp_path) == find_lora("b.safetensors", tmp_path) == tmp_path / "sub" / "b.safetensors"
    assert find_lora("a", tmp_path) == tmp_path / "a.safetensors"
    for name in ("sub/a", "sub/a.safetensors", "sub\\a"):
        assert find_lora(name, tmp_path) == tmp_path / "sub" / "a.safetensors"
    assert find_lora(str(tmp_path / "a.safetensors"), None) == tmp_path / "a.safetensors"
    for name, message in (("c", "'c' is the name of 2 files; name one of them as 'other/c', 'sub/c'"),
                          ("bb", "no LoRA 'bb'; did you mean 'b'"), ("/nowhere/c.safetensors", "no LoRA"),
                          ("../a", "no LoRA"), ("sub/../a", "no LoRA"), ("", "no LoRA"), ("sub", "no LoRA"),
                          ("a" * 300, "no LoRA"), ("가" * 256 + ".pt", "no LoRA"), ("a\0b", "no LoRA"),
                          ("\ud800", "no LoRA")):
        with pytest.raises(SciArtError, match=message):
            find_lora(name, tmp_path)
    with pytest.raises(SciArtError, match="no such folder"):
        find_lora("a", tmp_path / "none")
    with pytest.raises(SciArtError, match="no LoRA 'a'; give its folder, or a path to the file"):
        find_lora("a", None)


def test_loras_are_found_in_folders_that_links_lead_to(tmp_path):
    for folder in ("Lora", "elsewhere/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "linked.safetensors").write_bytes(b"")
    try:
        (tmp_path / "Lora" / "sub").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "Lora")
    except OSError as error:
        pytest.skip(f"no links here: {error}")
    found = tmp_path / "Lora" / "sub" / "deep" / "linked.safetensors"
    assert find_lora("linked", tmp_path / "Lora") == find_lora("sub/deep/linked", tmp_path / "Lora") == found


def test_a_lora_of_another_model_is_refused(pipe, tmp_path):
    from safetensors.torch import save_file
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{stem}.lora_down.weight": torch.ones(4, 768), f"{stem}.lora_up.weight": torch.ones(320, 4)},
              tmp_path / "sd1.safetensors")
    with pytest.raises(SciArtError, match=r"sd1\.safetensors"):
        paint(pipe, tmp_path, {"loras": [{"name": "sd1", "weight": 1}]})


def test_models_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.safetensors").write_bytes(b"")
    (tmp_path / "x.txt").write_bytes(b"")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for name, message in (("none", "no such file or folder"), ("empty", "no model_index.json"),
                          ("x.txt", "accepted are"), ("x.safetensors", "damaged|cannot be read"),
                          ("broken", "there is no unet/config.json in it")):
        with pytest.raises(SciArtError, match=message):
            load_pipeline(tmp_path / name)


def test_models_with_whole_numbers_in_them_load(tiny, tmp_path):
    """As SD 1.5 was published: the places of its tokens are among the text encoder's weights."""
    folder = shutil.copytree(tiny[0], tmp_path / "model")
    encoder = folder / "text_encoder" / "model.safetensors"
    places = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file({**load_file(encoder), **places}, encoder, {"format": "pt"})
    weights = [load_pipeline(one, device="cpu").text_encoder.state_dict() for one in (tiny[0], folder)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    save_file({f"cond_stage_model.transformer.{name}": ids for name, ids in places.items()}, tmp_path / "x.safetensors")
    with pytest.raises(SciArtError, match="give a diffusers folder"):  # diffusers' word, not that of the LoRAs' reader
        load_pipeline(tmp_path / "x.safetensors")


def test_the_command_line_generates(tiny, tmp_path, capsys):
    out = tmp_path / "new" / "x.png"
    status = main([
        "generate", "--model", str(tiny[0]), "--lora-dir", str(tiny[1]), "--preset", "science-imagination",
        "--role", "child=child", "--role", "watercolor=watercolor", "--role", "science=science",
        "--prompt", "a rocket", "--steps", "2", "--width", "64", "--height", "64", "--out", str(out), "--quiet"])
    assert status == 0 and str(out) in capsys.readouterr().out
    with Image.open(out) as image:
        assert image.size == (64, 64)
    fields = read_picture(out)
    assert (fields["Seed"], fields["CFG scale"], fields["Steps"]) == ("777", "6", "2")
    assert [lora.weight for lora in parse_recipe(fields["SciArt"]).loras] == [0.65, 0.55, 0.5]


def test_the_command_line_matches_loras_with_a_model(tiny, capsys):
    assert main(["loras", str(tiny[1] / "child.safetensors"), "--model", str(tiny[0])]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  fits"
