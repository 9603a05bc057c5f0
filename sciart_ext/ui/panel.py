"""The panel's gradio side: the recipe's textbox, a place for the widgets, and a bridge to ask Python by.

The widgets are drawn by the files in `javascript/`. All they do is edit the recipe's text, which is the script's
one argument. What they need to know (names, presets, the compiled plan) they ask through one hidden bridge:
gradio's own event carries a question as JSON and brings the answer back, so whoever may use the page may use
the panel, with whatever login the host has. What is hidden is hidden by a CSS class: components that are not
visible to gradio are not on the page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import gradio as gr

from ..errors import SciArtError
from ..json_text import check_json, read_json
from ..recipe import INFOTEXT_KEY, Recipe, compile_plan, parse_recipe
from ..recipe.doubtful import in_hires_pass, in_plan
from ..recipe.recipe import MAX_ROLES
from ..recipe.schema import Field, Name, NameOrNothing, Strict, parsed
from ..report.svg import PALETTE
from .notices import help_link

MAX_STEPS = 10_000


@dataclass(frozen=True)
class PanelChoices:
    """What the widgets offer, as plain data."""

    loras: list[dict] = field(default_factory=list)
    """[{"name", "file"?, "kind"?, "rank"?, "base"?, "bytes"?, "fits"?, "fit_note"?, "error"?, "unread"?}]; fits: the
    loaded model, None where that is not known; fit_note: why not, or what of it does not; unread: see `cards`"""
    presets: list[dict] = field(default_factory=list)
    """`pictures.listed_with_pictures`: `Preset.to_json()` of each preset, its "thumbnail" as a data URL or None, and
    "thumbnail_error"; {"name", "builtin", "error"} for a file that is no preset"""
    bindings: dict[str, str] = field(default_factory=dict)
    """role: LoRA name"""
    bindings_error: str = ""
    """what is wrong with the file of bindings; empty where nothing is"""
    suggestions: dict[str, list[str]] = field(default_factory=dict)
    """role: LoRA names that may play it, best first"""
    model: str = ""
    """the loaded model, for which `fits` is told; empty where none is"""


@dataclass(frozen=True)
class PanelActions:
    """What the panel may ask of Python. Each raises `SciArtError` where it cannot."""

    choices: Callable[[], PanelChoices]
    cards: Callable[[], list[dict]]
    """`PanelChoices.loras` again, of which more has been read"""
    preview: Callable[[str, int, int], dict]
    """(recipe as JSON text, steps, hires steps or 0) to what `plan_preview` gives"""
    bind: Callable[[dict[str, str], bool], Any]
    """(role: LoRA name, whether only roles that are not bound yet); see `PresetStore.bind`"""
    save_preset: Callable[[str, dict], Any]
    delete_preset: Callable[[str], Any]
    save_thumbnail: Callable[[str, str | None], Any]
    """(preset, picture as a PNG's data URL or None); see `preset_pictures.save_thumbnail`"""
    refresh: Callable[[], Any] = lambda: None
    """looks for LoRA files again"""


@dataclass(frozen=True)
class Panel:
    """The components a script hands to the host."""

    recipe: gr.Textbox
    infotext_fields: list[tuple[gr.Textbox, str]]
    paste_field_names: list[str]


@dataclass(frozen=True)
class PanelStart:
    """How the panel looks when the page is loaded."""

    is_open: bool = False
    recipe: str = ""
    """JSON text that an empty panel begins with"""
    help: str = ""
    """address of the manual"""


def build_panel(is_img2img: bool, actions: PanelActions, start: PanelStart = PanelStart()) -> Panel:
    """Builds the panel inside the current gradio Blocks. Asks nothing and changes nothing while building."""
    tab = "img2img" if is_img2img else "txt2img"
    with gr.Accordion("SciArt", open=start.is_open, elem_id=f"sciart_{tab}", elem_classes=["sciart-accordion"]):
        # the id is on our own element: gradio would put it on two
        gr.HTML(f'<div class="sciart-panel" id="sciart_{tab}_panel" data-tab="{tab}" '
                f'data-palette="{" ".join(PALETTE)}" data-start="{html.escape(start.recipe)}"></div>'
                f'{help_link(start.help)}')
        with gr.Column(elem_classes=["sciart-hidden"]):
            recipe = gr.Textbox("", label="SciArt recipe", lines=2, interactive=True,
                                elem_id=f"sciart_{tab}_recipe", elem_classes=["sciart-hidden"])
            _build_bridge(tab, actions)
    recipe.change(fn=None, _js=f"(text) => {{ window.sciart?.recipeChanged('{tab}', text); return []; }}",
                  inputs=[recipe], outputs=[])
    return Panel(recipe, [(recipe, INFOTEXT_KEY)], [INFOTEXT_KEY])


def plan_preview(recipe_text: str, steps: int, hires_steps: int, resolve: Callable[[Recipe], Recipe],
                 notes: Callable[[Recipe], Iterable[str]] = lambda recipe: ()) -> dict:
    """What the panel draws: the plan's numbers (`Plan.table`), and notes. `resolve` fills in presets and roles."""
    recipe = resolve(parse_recipe(recipe_text))
    plan = compile_plan(recipe, steps, hires_steps)
    told = [*notes(recipe), *in_plan(plan.first)]
    if plan.hires is not None:
        told += [*in_plan(plan.hires, True), *in_hires_pass(recipe)]
    return {"plan": plan.table(), "notes": told}


def answer(actions: PanelActions, question: str) -> str:
    """The answer to one question of the widgets; both are JSON texts, an answer carries its question's id."""
    number = None
    try:
        data = _read(question)
        number = data.get("id")
        asked = parsed(_Question, data)
        found = _ACTIONS[asked.action](actions, asked)
    except SciArtError as error:
        found = {"error": str(error), "field": error.field}
    text = json.dumps({"id": number, **found}, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # of a file's name that is no Unicode


class _Question(Strict):
    """What the widgets may ask; each action has fields of its own."""

    id: int = 0
    action: Literal["choices", "cards", "preview", "bind", "save_preset", "delete_preset"]
    refresh: bool = False
    recipe: str = ""
    steps: float = 1.0
    hires_steps: float = 0.0
    bindings: dict[Name, NameOrNothing] = Field({}, maxProperties=MAX_ROLES)
    only_unbound: bool = False
    name: NameOrNothing = ""
    preset: dict[str, Any] = {}
    thumbnail: str | None = None


def _read(question: str) -> dict:
    try:
        data = read_json(question)
    except ValueError as error:
        raise SciArtError("question", f"not valid JSON: {error}") from None
    check_json(data, "question")
    if not isinstance(data, dict):
        raise SciArtError("question", f"expected one JSON object, got {type(data).__name__}")
    return data


def _build_bridge(tab: str, actions: PanelActions) -> None:
    question = gr.Textbox("", label="SciArt question", elem_id=f"sciart_{tab}_question")
    send = gr.Button("SciArt ask", elem_id=f"sciart_{tab}_ask")
    reply = gr.Textbox("", label="SciArt answer", elem_id=f"sciart_{tab}_answer", interactive=True)
    for component in (question, send, reply):
        component.do_not_save_to_config = True  # the host keeps values of a page's widgets as their defaults
    # without the queue, so that the panel answers while a picture is being made
    asking = send.click(fn=partial(answer, actions), _js=f"() => window.sciart.question('{tab}')",
                        inputs=[question], outputs=[reply], queue=False, show_progress="hidden")
    # also after an error, when the answer is an old one: the widgets know by its id
    asking.then(fn=None, _js=f"(text) => {{ window.sciart.answered('{tab}', text); return []; }}",
                inputs=[reply], outputs=[])


def _ask_choices(actions: PanelActions, asked: _Question) -> dict:
    if asked.refresh:
        actions.refresh()
    return {"choices": asdict(actions.choices())}


def _ask_cards(actions: PanelActions, asked: _Question) -> dict:
    return {"loras": actions.cards()}


def _ask_preview(actions: PanelActions, asked: _Question) -> dict:
    steps = int(min(max(asked.steps, 1), MAX_STEPS))
    hires_steps = int(min(max(asked.hires_steps, 0), MAX_STEPS))
    return actions.preview(asked.recipe, steps, hires_steps)


def _ask_bind(actions: PanelActions, asked: _Question) -> dict:
    actions.bind(asked.bindings, asked.only_unbound)
    return {"choices": asdict(actions.choices())}


def _ask_save_preset(actions: PanelActions, asked: _Question) -> dict:
    actions.save_preset(asked.name, asked.preset)
    actions.save_thumbnail(asked.name, asked.thumbnail)
    return {"choices": asdict(actions.choices())}


def _ask_delete_preset(actions: PanelActions, asked: _Question) -> dict:
    actions.delete_preset(asked.name)
    return {"choices": asdict(actions.choices())}


_ACTIONS = {"choices": _ask_choices, "cards": _ask_cards, "preview": _ask_preview, "bind": _ask_bind,
            "save_preset": _ask_save_preset, "delete_preset": _ask_delete_preset}
