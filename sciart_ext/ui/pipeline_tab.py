"""A pipeline in the tab: a preset with stages, its pose, which stages to run; the pictures of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL import Image

from ..errors import SciArtError, shown
from ..pipeline.poses import POSES, pose_picture
from ..pipeline.settings import STAGES, Pipeline, parse_pipeline
from ..pipeline.stages import Made
from ..presets import PresetStore
from ..report.html_page import base64_png
from .notices import notice
from .presets_tab import wrong_presets
from .waiting import progress_bar, shown_while

OWN_POSE = "my picture"
TITLES = {"controlnet": "ControlNet (pose)", "adetailer": "ADetailer (faces)", "img2img": "img2img (light)",
          "upscale": "Upscale"}
PHOTOGRAPH_PREPROCESSOR = "openpose_full"
FIGURE = 64, 96
"""pixels of a pose's small picture"""


@dataclass(frozen=True)
class PipelineActions:
    """What its buttons may ask. Each raises `SciArtError` where it cannot."""

    run: Callable[[dict], Made]
    """of a request as `/sciart/v1/pipeline` takes it"""
    progress: Callable[[], tuple[str, float]]
    """what is being made, and which share of it is done"""
    interrupt: Callable[[], Any]


def build_pipeline(actions: PipelineActions, store: PresetStore) -> None:
    """Inside the current gradio Blocks."""
    with gr.Row():
        with gr.Column():
            with gr.Row():
                names, ticked, posed, wrong = _at_first(store)
                first = next(iter(names), None)
                preset = gr.Dropdown(choices=names, value=first, label="Preset", elem_id="sciart_pipeline_preset")
                look = gr.Button("🔄", scale=0, min_width=48, elem_id="sciart_pipeline_list")
            prompt = gr.Textbox(label="Prompt", lines=3, placeholder="the preset's", elem_id="sciart_pipeline_prompt")
            stages = gr.CheckboxGroup([TITLES[name] for name in STAGES], value=ticked, label="Stages beside txt2img",
                                      elem_id="sciart_pipeline_stages")
            pose = gr.Radio([*POSES, OWN_POSE], value=posed, label="Pose", elem_id="sciart_pipeline_pose")
            gr.HTML(_figures(), elem_id="sciart_pipeline_figures")
            with gr.Group(visible=False, elem_id="sciart_pipeline_own") as own:
                picture = gr.Image(type="pil", image_mode="RGB", label="Pose", source="upload",
                                   elem_id="sciart_pipeline_picture")
                photograph = gr.Checkbox(False, label="It is a photograph: find the pose in it",
                                         elem_id="sciart_pipeline_photograph")
            seed = gr.Textbox(label="Seed", placeholder="the preset's; -1: random", elem_id="sciart_pipeline_seed")
            infotext = gr.Textbox(label="Picture (its infotext) in place of the preset's prompt, settings and LoRAs",
                                  lines=2, placeholder="the preset's", elem_id="sciart_pipeline_infotext")
            asked = gr.Button("As txt2img is set now", elem_id="sciart_pipeline_asked")
        with gr.Column():
            with gr.Row():
                run = gr.Button("Generate", variant="primary", elem_id="sciart_pipeline_run")
                cancel = gr.Button("Cancel", elem_id="sciart_pipeline_cancel")
            status = gr.HTML(wrong, elem_id="sciart_pipeline_status")
            gallery = gr.Gallery(label="Pictures", columns=3, preview=True, object_fit="contain",
                                 elem_id="sciart_pipeline_gallery")
            made = gr.Textbox(label="Infotext", lines=3, interactive=False, elem_id="sciart_pipeline_made")

    def generate(*given) -> Iterator[tuple]:
        nothing = gr.update(), gr.update()
        try:
            request = pipeline_request(*given)
            told = yield from shown_while(lambda: actions.run(request),
                                          lambda: (progress_bar(*actions.progress()), *nothing))
        except SciArtError as error:
            yield (notice(error), *nothing)
            return
        pictures = [(stage.picture, f"{stage.name} {stage.picture.width} × {stage.picture.height}")
                    for stage in reversed(told.stages)]
        lines = [*told.notes, *(["Cancelled; these pictures were made"] if told.cancelled else [])]
        yield ("".join(map(notice, lines)), gr.update(value=pictures),
               told.stages[-1].infotext if told.stages else gr.update())

    def listed():
        try:
            return gr.update(choices=with_stages(store)), wrong_presets(store)
        except SciArtError as error:
            return gr.update(), notice(error)

    def chosen(name: str | None):
        try:
            return *settings_of(store, name), ""
        except SciArtError as error:
            return gr.update(), gr.update(), notice(error)

    preset.input(chosen, [preset], [stages, pose, status], queue=False, show_progress="hidden")
    look.click(listed, outputs=[preset, status], queue=False, show_progress="hidden")
    pose.change(lambda one: gr.update(visible=one == OWN_POSE), [pose], [own], queue=False, show_progress="hidden")
    asked.click(None, outputs=[infotext], _js="() => window.sciart.infotextOfTxt2img()")
    run.click(generate, [preset, prompt, stages, pose, picture, photograph, seed, infotext],
              [status, gallery, made], show_progress="hidden")
    cancel.click(lambda: actions.interrupt() and None, queue=False, show_progress="hidden")


def pipeline_request(preset: str | None, prompt: str, stages: list[str], pose: str, picture: Image.Image | None,
                     photograph: bool, seed: str, infotext: str) -> dict:
    """As `/sciart/v1/pipeline` takes it."""
    if not preset:
        raise SciArtError("preset", "none is chosen")
    if pose == OWN_POSE and picture is None and TITLES["controlnet"] in stages:
        raise SciArtError("pipeline.controlnet.pose", f"{OWN_POSE} is chosen, but none is given")
    txt2img: dict = {"infotext": infotext} if infotext.strip() else {}
    if prompt.strip():
        txt2img["prompt"] = prompt
    if seed.strip():
        txt2img["seed"] = _number(seed)
    run: dict = {name: {} for name in STAGES if TITLES[name] in stages}
    if "controlnet" in run:
        run["controlnet"] = _pose(picture, photograph) if pose == OWN_POSE else {"pose": pose}
    return {"preset": preset, "txt2img": txt2img, "pipeline": run, "save_images": True,
            "without": [name for name in STAGES if name not in run]}


def with_stages(store: PresetStore) -> list[str]:
    """Names of the presets that have stages, and can be used."""
    return [preset["name"] for preset in store.listed() if "error" not in preset and preset.get("pipeline")]


def settings_of(store: PresetStore, name: str | None) -> tuple[list[str], str]:
    """What the preset ticks, and its pose."""
    stages = parse_pipeline(store.read(name).data["pipeline"]) if name else Pipeline()
    named = stages.controlnet.pose if stages.controlnet else ""
    return [TITLES[one] for one in stages.stages()], named if named in POSES else next(iter(POSES))


def _at_first(store: PresetStore) -> tuple[list[str], list[str], str, str]:
    """The presets with stages, what the first one ticks, its pose, and what is wrong, as HTML."""
    try:
        names = with_stages(store)
        return names, *settings_of(store, next(iter(names), None)), ""
    except SciArtError as error:  # a folder that the settings name and that is not there: the page comes all the same
        return [], *settings_of(store, None), notice(error)


def _figures() -> str:
    """HTML: the poses, small."""
    return '<div class="sciart-figures">' + "".join(
        f'<img alt="{name}" title="{name}" src="data:image/png;base64,{base64_png(pose_picture(name, *FIGURE))}">'
        for name in POSES) + "</div>"


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SciArtError("txt2img.seed", f"expected a whole number, got {shown(text)}") from None


def _pose(picture: Image.Image, photograph: bool) -> dict:
    found = {"preprocessor": PHOTOGRAPH_PREPROCESSOR} if photograph else {}
    return {"pose": f"data:image/png;base64,{base64_png(picture)}", **found}
