"""Presets in the tab: list, edit, save, delete; all of one's own as one JSON file, and back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from ..errors import SciArtError
from ..presets import PresetStore
from ..presets.store import write_json
from .notices import notice

FILE = "sciart-presets.json"
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
        """The names in the list anew."""
        return gr.update(choices=self.store.names(), value=selected)

    def looked(self) -> tuple:
        """For *List the presets*: (list, status)."""
        try:
            return self.listed(), ""
        except SciArtError as error:
            return gr.update(), notice(error)

    def opened(self, preset: str | None) -> tuple:
        """(name, JSON text, status) of the chosen preset."""
        if not preset:
            return gr.update(), gr.update(), ""
        try:
            found = self.store.read(preset, "name")
        except SciArtError as error:
            return gr.update(), gr.update(), notice(error)
        note = " is shipped with SciArt: save it under another name to change it" if found.builtin else ""
        return preset, json.dumps(found.data, ensure_ascii=False, indent=2), notice(f"{preset}{note}")

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
            own = [self.store.read(preset) for preset in self.store.names()]
            data = {preset.name: preset.data for preset in own if not preset.builtin}
            path = Path(tempfile.mkdtemp(prefix="sciart-")) / FILE
            write_json(path, data)
        except SciArtError as error:
            return gr.update(), notice(error)
        return gr.update(value=str(path), visible=True), notice(f"{len(data)} presets")

    def imported(self, upload) -> tuple:
        """(list, status) after taking the presets of a file."""
        try:
            data = _json(Path(upload.name).read_text(encoding="utf-8"))
            for preset, one in data.items():
                self.store.save(preset, one)
        except (SciArtError, UnicodeDecodeError) as error:
            return gr.update(), notice(error if isinstance(error, SciArtError) else SciArtError("file", "not text"))
        return self.listed(), notice(f"{len(data)} presets are imported: {', '.join(data)}")

    def styled(self) -> str:
        """The status after adding the prompts to the host's styles."""
        told = self.add_styles()
        lines = [f"{title}: {', '.join(names)}" for title, names in (
            ("Added to the WebUI's styles", told["added"]), ("There already", told["kept"])) if names]
        return "".join(map(notice, lines))


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
        data = json.loads(text)
    except ValueError as error:
        raise SciArtError("preset", f"not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise SciArtError("preset", f"expected a JSON object, got {type(data).__name__}")
    return data
