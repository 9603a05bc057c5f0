"""The tab *SciArt*: what each LoRA did to a picture, how LoRAs lie to each other, pipelines, and the presets."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import SciArtError
from ..influence.page import report_page
from ..influence.report import Report
from ..influence.subsets import Unfinished
from ..json_text import read_json
from ..presets import PresetStore
from .notices import help_link, notice
from .pipeline_tab import PipelineActions, build_pipeline
from .presets_tab import build_presets
from .waiting import progress_bar, shown_while

SUBSETS = {"all there is to tell": "all", "each LoRA alone": "solo", "each LoRA left out": "left-out"}


@dataclass(frozen=True)
class TabActions:
    """What the tab may ask of Python. Each raises `SciArtError` where it cannot."""

    last_picture: Callable[[], str]
    """the infotext of the picture that was made last"""
    influence: Callable[[dict], Report | Unfinished]
    """of a request as `/sciart/v1/influence` takes it"""
    progress: Callable[[], float]
    """0 to 1, of what is being made"""
    interrupt: Callable[[], Any]
    save: Callable[[Report], Path]
    """as a folder: the path of its page"""
    loras: Callable[[], list[str]]
    geometry: Callable[[list[str]], str]
    """of LoRAs by name: a page"""
    pipeline: PipelineActions
    add_styles: Callable[[], dict[str, list[str]]] = lambda: {"added": [], "kept": []}
    """the shipped prompts to the host's styles: names `added` and `kept`"""


def build_tab(actions: TabActions, store: PresetStore, help_address: str = "") -> gr.Blocks:
    """The tab's content. Asks nothing and changes nothing while building."""
    with gr.Blocks(analytics_enabled=False) as blocks:
        if help_address:
            gr.HTML(help_link(help_address))
        _build_tabs(actions, store)
    for component in blocks.blocks.values():
        component.do_not_save_to_config = True  # the host keeps values of a page's widgets as their defaults
    return blocks


def _build_tabs(actions: TabActions, store: PresetStore) -> None:
    with gr.Tabs(elem_id="sciart_tabs"):
        with gr.Tab("Influence", id="sciart_influence"):
            _build_influence(actions)
        with gr.Tab("Geometry", id="sciart_geometry"):
            _build_geometry(actions)
        with gr.Tab("Pipeline", id="sciart_pipeline"):
            build_pipeline(actions.pipeline, store)
        with gr.Tab("Presets", id="sciart_presets"):
            build_presets(store, actions.add_styles)


def _build_influence(actions: TabActions) -> None:
    # as low as can be: the report below is what one looks at
    infotext = gr.Textbox(label="Picture (its infotext)", lines=3, max_lines=3, elem_id="sciart_influence_infotext",
                          placeholder="of a picture that was made with SciArt, or is to be")
    with gr.Row():
        last = gr.Button("The last picture", elem_id="sciart_influence_last")
        asked = gr.Button("As txt2img is set now", elem_id="sciart_influence_asked")
        send = gr.Button("Send to txt2img", elem_id="sciart_influence_send")
    with gr.Row():
        recipe = gr.Textbox(label="Recipe (JSON)", max_lines=6, elem_id="sciart_influence_recipe",
                            placeholder="the picture's own")
        words = gr.Textbox(label="Words", elem_id="sciart_influence_words",
                           placeholder="of the prompt: rocket, robot")
        subsets = gr.Radio(list(SUBSETS), value=next(iter(SUBSETS)), label="Tell", scale=2,
                           elem_id="sciart_influence_subsets")
    with gr.Row():
        run = gr.Button("Explain", variant="primary", elem_id="sciart_influence_run")
        cancel = gr.Button("Cancel", elem_id="sciart_influence_cancel")
        save = gr.Button("Save as a folder", elem_id="sciart_influence_save")
    status = gr.HTML(elem_id="sciart_influence_status")
    shown = gr.HTML(elem_id="sciart_influence_report")
    kept = gr.State(None)

    def explain(infotext: str, recipe: str, subsets: str, words: str) -> Iterator[tuple]:
        try:
            request = _request(infotext, recipe, subsets, words)
            told = yield from shown_while(
                lambda: actions.influence(request),
                lambda: (progress_bar("Making the pictures", actions.progress()), gr.update(), gr.update()))
        except SciArtError as error:
            yield notice(error), gr.update(), gr.update()
            return
        if isinstance(told, Unfinished):
            yield (notice(f"Cancelled after {told.made} of {told.of} pictures; Explain goes on from there."),
                   gr.update(), gr.update())
            return
        yield "", _framed(report_page(told)), told

    def saved(told: Report | None) -> str:
        if told is None:
            return notice(SciArtError("", "nothing to save yet: Explain comes first"))
        try:
            return notice(f"Saved: {actions.save(told)}")
        except SciArtError as error:
            return notice(error)

    def read_last() -> tuple:
        try:
            return actions.last_picture(), ""
        except SciArtError as error:
            return gr.update(), notice(error)

    run.click(explain, [infotext, recipe, subsets, words], [status, shown, kept], show_progress="hidden")
    cancel.click(lambda: actions.interrupt() and None, queue=False, show_progress="hidden")
    save.click(saved, [kept], [status], show_progress="hidden")
    last.click(read_last, outputs=[infotext, status], queue=False, show_progress="hidden")
    asked.click(None, outputs=[infotext], _js="() => window.sciart.infotextOfTxt2img()")
    send.click(None, [infotext], _js="(text) => { window.sciart.sendToTxt2img(text); return []; }")


def _build_geometry(actions: TabActions) -> None:
    names = gr.Dropdown(choices=[], multiselect=True, label="LoRAs", elem_id="sciart_geometry_loras")
    with gr.Row():
        look = gr.Button("List the LoRAs", elem_id="sciart_geometry_list")
        compare = gr.Button("Compare", variant="primary", elem_id="sciart_geometry_run")
    status = gr.HTML(elem_id="sciart_geometry_status")
    shown = gr.HTML(elem_id="sciart_geometry_report")

    def compared(chosen: list[str]) -> tuple:
        try:
            return "", _framed(actions.geometry(chosen or []))
        except SciArtError as error:
            return notice(error), gr.update()

    look.click(lambda: gr.update(choices=actions.loras()), outputs=[names], queue=False, show_progress="hidden")
    compare.click(compared, [names], [status, shown])


def _request(infotext: str, recipe: str, subsets: str, words: str) -> dict:
    """As `/sciart/v1/influence` takes it."""
    if not infotext.strip():
        raise SciArtError("picture", "missing; paste its infotext, or take the last picture")
    request: dict = {"txt2img": {"infotext": infotext}, "subsets": SUBSETS[subsets]}
    if recipe.strip():
        try:
            request["recipe"] = read_json(recipe)
        except ValueError as error:
            raise SciArtError("recipe", f"not valid JSON: {error}") from None
        if not isinstance(request["recipe"], dict):
            raise SciArtError("recipe", f"expected a JSON object, got {type(request['recipe']).__name__}")
    if words.strip():
        request["words"] = [word.strip() for word in words.split(",")]
    return request


def _framed(page: str) -> str:
    """A whole page within the tab, with its own styles, in the theme of the page around it."""
    return ('<iframe class="sciart-report" title="report" onload="window.sciart.reportLoaded(this)" '
            f'srcdoc="{html.escape(page)}"></iframe>')
