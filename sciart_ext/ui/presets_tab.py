"""Presets in the tab: list, edit, save, delete; all of one's own as one JSON file, and back. What is wrong is told."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from ..errors import SciArtError
from ..json_text import read_json
from ..presets import PresetStore
from ..presets.files import read_text
from ..presets.store import json_text, write_json
from .notices import notice

FILE = "sciart-presets.json"
MOST_BYTES = 64 << 20
"""of a file that is imported"""
REFRESH_STYLES = """() => {
    for (const tab of ["txt2img", "img2img"]) gradioApp().querySelector(`#refresh_${tab}_styles`)?.click();
    return [];
}"""
"""the host's own buttons, so that its lists of styles are new"""


class PresetsActions:
    """What the buttons do. store: the presets; add_styles(): the shipped prompts to the host's styles."""

    def __init__(self, store: PresetStore, add_styles: Callable[[], dict[str, list[str]]]):
        self.store = store
        self.add_styles = add_styles

    def listed(self, selected: str | None = None):
        """The names in the list anew, also of those that are wrong: here they are mended."""
        return gr.update(choices=[preset["name"] for preset in self.store.listed()], value=selected)

    def looked(self) -> tuple:
        """For *List the presets*: (list, status)."""
        try:
            return self.listed(), wrong_presets(self.store)
        except SciArtError as error:
            return gr.update(), notice(error)

    def opened(self, preset: str | None) -> tuple:
        """(name, JSON text, status) of the chosen preset."""
        if not preset:
            return gr.update(), gr.update(), ""
        try:
            found = self.store.read(preset, "name")
        except SciArtError as error:
            return preset, self._as_it_is(preset), notice(error)
        note = " is shipped with SciArt: save it under another name to change it" if found.builtin else ""
        return preset, json_text(found.data), notice(f"{preset}{note}")

    def saved(self, preset: str, data: str) -> tuple:
        """(list, status)."""
        try:
            self.store.save(preset, _json(data))
        except SciArtError as error:
            return gr.update(), notice(error)
        return self.listed(preset), notice(f"{preset} is saved")

    def deleted(self, preset: str) -> tuple:
        """(list, status)."""
        try:
            self.store.delete(preset)
        except SciArtError as error:
            return gr.update(), notice(error)
        return self.listed(), notice(f"{preset} is deleted")

    def exported(self) -> tuple:
        """(file of one's own presets, status)."""
        try:
            own = {preset["name"]: self.store.read(preset["name"]).data for preset in self.store.listed()
                   if not preset["builtin"] and "error" not in preset}
            path = Path(tempfile.mkdtemp(prefix="sciart-")) / FILE
            write_json(path, own)
            told = notice(f"{len(own)} presets") + wrong_presets(self.store)
        except SciArtError as error:
            return gr.update(), notice(error)
        return gr.update(value=str(path), visible=True), told

    def imported(self, upload) -> tuple:
        """(list, status) after taking the presets of a file: all of them, or none where one is wrong."""
        try:
            data = _json(read_text(Path(upload.name), MOST_BYTES, "file"))
            for preset, one in data.items():
                self._check(preset, one)
            for preset, one in data.items():
                self.store.save(preset, one)
        except SciArtError as error:
            return gr.update(), notice(error)
        return self.listed(), notice(f"{len(data)} presets are imported: {', '.join(data)}")

    def _check(self, preset: str, data: object) -> None:
        try:
            self.store.check(preset, data)
        except SciArtError as error:
            raise SciArtError(preset, str(error)) from None

    def _as_it_is(self, preset: str):
        """The text of a file that is no preset, to be mended; of one that is no text nothing."""
        try:
            return self.store.text(preset, "name")
        except SciArtError:  # as is told already
            return ""

    def styled(self) -> str:
        """The status after adding the prompts to the host's styles."""
        told = self.add_styles()
        lines = [f"{title}: {', '.join(names)}" for title, names in (
            ("Added to the WebUI's styles", told["added"]), ("There already", told["kept"])) if names]
        return "".join(map(notice, lines))


def wrong_presets(store: PresetStore) -> str:
    """A line, as HTML, for each file that is no preset, and for roles that cannot be read."""
    wrong = [SciArtError(preset["name"], preset["error"]) for preset in store.listed() if "error" in preset]
    roles = store.listed_bindings()[1]
    return "".join(map(notice, [*wrong, *([SciArtError("", roles)] if roles else [])]))


def build_presets(store: PresetStore, add_styles: Callable[[], dict[str, list[str]]]) -> None:
    """Inside the current gradio Blocks."""
    does = PresetsActions(store, add_styles)
    with gr.Row():
        chosen = gr.Dropdown(choices=[], label="Preset", elem_id="sciart_presets_chosen")
        look = gr.Button("List the presets", elem_id="sciart_presets_list")
    name = gr.Textbox(label="Name", elem_id="sciart_presets_name", placeholder="a-z 0-9 _ -")
    text = gr.Textbox(label="Preset (JSON)", lines=18, elem_id="sciart_presets_text")
    with gr.Row():
        save = gr.Button("Save", variant="primary", elem_id="sciart_presets_save")
        delete = gr.Button("Delete", elem_id="sciart_presets_delete")
        export = gr.Button("Export mine", elem_id="sciart_presets_export")
        given = gr.UploadButton("Import", file_types=[".json"], elem_id="sciart_presets_import")
        styles = gr.Button("Add the prompts as styles", elem_id="sciart_presets_styles")
    file = gr.File(label="Exported", visible=False, elem_id="sciart_presets_file")
    status = gr.HTML(elem_id="sciart_presets_status")

    # without the queue, which gives a page that is busy five seconds and then tells of an errored connection
    at_once = {"queue": False, "show_progress": "hidden"}
    look.click(does.looked, outputs=[chosen, status], **at_once)
    chosen.input(does.opened, [chosen], [name, text, status], **at_once)
    save.click(does.saved, [name, text], [chosen, status], **at_once)
    delete.click(does.deleted, [name], [chosen, status], **at_once)
    styles.click(does.styled, outputs=[status], **at_once).then(None, _js=REFRESH_STYLES)
    export.click(does.exported, outputs=[file, status], **at_once)
    given.upload(does.imported, [given], [chosen, status], **at_once)


def _json(text: str) -> dict:
    try:
        data = read_json(text)
    except ValueError as error:
        raise SciArtError("preset", f"not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise SciArtError("preset", f"expected a JSON object, got {type(data).__name__}")
    return data
