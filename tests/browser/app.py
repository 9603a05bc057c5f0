"""A plain gradio page with the panel of both tabs, the parts of the host that the panel uses, and the tab SciArt, whose
pictures are invented; but no host.

Run it to try them by hand: `python tests/browser/app.py [PORT]`.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import gradio as gr
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

sys.path.insert(0, str(ROOT / "tests" / "influence"))
from invented import invented  # noqa: E402

from sciart_ext.errors import SciArtError  # noqa: E402
from sciart_ext.influence.folder import save_report  # noqa: E402
from sciart_ext.influence.report import Report, report  # noqa: E402
from sciart_ext.influence.subsets import Unfinished, ask  # noqa: E402
from sciart_ext.pipeline.settings import parse_pipeline  # noqa: E402
from sciart_ext.pipeline.stages import Made, Stage  # noqa: E402
from sciart_ext.presets import PresetStore, resolve, suggest  # noqa: E402
from sciart_ext.presets.pictures import listed_with_pictures, save_thumbnail  # noqa: E402
from sciart_ext.ui.panel import PanelActions, PanelChoices, build_panel, plan_preview  # noqa: E402
from sciart_ext.ui.pipeline_tab import PipelineActions  # noqa: E402
from sciart_ext.ui.tab import TabActions, build_tab  # noqa: E402

LORAS = ["child_style", "watercolor-v2", "science_fiction", "수채화", "other <b>&\"quoted\"", "zz last", "science_xl"]
MODEL = "toy"
INFOTEXT = 'a rocket\nSteps: 4, Sampler: Euler a, CFG scale: 6.5, Seed: 7, SciArt: "{}"'
SECONDS_A_STEP = 0.15
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
HOST_SCRIPT = """
var uiLoadedCallbacks = [];
function gradioApp() { return document; }
function onUiLoaded(callback) { uiLoadedCallbacks.push(callback); }
function updateInput(target) {
    let e = new Event("input", {bubbles: true});
    Object.defineProperty(e, "target", {value: target});
    target.dispatchEvent(e);
}
document.addEventListener("DOMContentLoaded", function() {
    let loaded = false;
    new MutationObserver(function() {
        if (loaded || !document.querySelector("#txt2img_prompt")) return;
        loaded = true;
        uiLoadedCallbacks.forEach((callback) => callback());
    }).observe(document, {childList: true, subtree: true});
});
"""
# the rules of the host's style.css that reach into the panel
HOST_STYLE = """
:root, .dark { --section-header-text-size: 12pt; --block-background-fill: transparent; }
.block.padded:not(.gradio-accordion) { padding: 0 !important; }
div.gradio-container { max-width: unset !important; }
div.form { border-width: 0; box-shadow: none; background: transparent; overflow: visible; gap: 0.5em; }
.block.sciart-accordion { border: 1px solid var(--block-border-color) !important;
    border-radius: 8px !important; margin: 2px 0; padding: 8px 8px !important; }
"""


def unread(name: str) -> dict:
    """What the panel is told of a LoRA file that has not been read yet."""
    return {"name": name, "file": f"{name}.safetensors", "bytes": 9_543_210}


def card(name: str) -> dict:
    """What the panel is told of a LoRA file: one of another model, one that is none, others that fit."""
    file = unread(name)
    if name == "zz last":
        return {**file, "error": "Flux LoRA is not supported; supported are …"}
    known = {**file, "kind": "LoRA", "rank": 16, "base": "SD1", "fits": True, "fit_note": ""}
    if name == "science_xl":
        return {**known, "base": "SDXL", "fits": False, "fit_note": "fits no layer of toy; it is made for SDXL"}
    return known


class Files:
    """The names of the LoRA files, and which of them have been read."""

    def __init__(self):
        self.loras, self.read = [], set()
        self.as_new()

    def as_new(self) -> None:
        self.loras[:], self.read = LORAS, set(LORAS[:4])

    def find(self) -> None:
        """One more."""
        self.loras.append(f"found {len(self.loras)}")

    def read_one(self) -> None:
        """The next, as in the host where there are many."""
        self.read.update([name for name in self.loras if name not in self.read][:1])


def actions(store: PresetStore, files: Files) -> PanelActions:
    """What the host gives the panel, over a store of presets and its files."""
    loras = files.loras

    def known() -> list[dict]:
        return [card(name) if name in files.read else {**unread(name), "unread": True} for name in loras]

    def cards() -> list[dict]:
        files.read_one()
        return known()

    def choices() -> PanelChoices:
        presets = listed_with_pictures(store)
        roles = {role for preset in presets for role in preset.get("roles", [])}
        return PanelChoices(known(), presets, *store.listed_bindings(), {role: suggest(role, loras) for role in roles},
                            MODEL)

    def find_all(recipe):
        recipe = resolve(recipe, store)
        for i, lora in enumerate(recipe.loras):
            if lora.name == "crash":
                raise RuntimeError("a fault in the server")
            if lora.name not in loras:
                raise SciArtError(f"loras[{i}].name", f"no LoRA {lora.name!r}; accepted: {', '.join(loras)}")
        return recipe

    def notes(recipe):
        return ["a note of <the host>"] if len(recipe.loras) > 3 else []

    def preview(text: str, steps: int, hires_steps: int) -> dict:
        return {**plan_preview(text, steps, hires_steps, find_all, notes), "model": MODEL}

    return PanelActions(choices, cards, preview, store.bind, store.save, store.delete,
                        lambda name, picture: save_thumbnail(store, name, picture),
                        refresh=files.find)


class InventedPictures:
    """What the tab asks, answered by invented runs: each of the pictures takes a moment; one can be cancelled."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.interrupted = threading.Event()
        self.share = 0.0

    def actions(self, loras: list[str]) -> TabActions:
        return TabActions(last_picture=lambda: INFOTEXT, influence=self.influence, progress=lambda: self.share,
                          interrupt=self.interrupted.set, save=lambda told: save_report(told, self.folder / "saved"),
                          loras=lambda: loras, geometry=self.geometry, pipeline=PipelineActions(
                              self.pipeline, lambda: ("img2img (2 of 3)", self.share), self.interrupted.set))

    def pipeline(self, request: dict) -> Made:
        self.interrupted.clear()
        if "adetailer" not in request["without"]:
            raise SciArtError("pipeline", 'ADetailer is not installed. To go on without: "without": ["adetailer"]')
        stages = [Stage("txt2img", Image.new("RGB", (64, 96), "navy"), "a"),
                  Stage("upscale", Image.new("RGB", (128, 192), "teal"), json.dumps(request))]
        for done in range(10):
            if self.interrupted.wait(SECONDS_A_STEP):
                return Made(stages[:1], parse_pipeline({}), cancelled=True)
            self.share = (done + 1) / 10
        return Made(stages, parse_pipeline({}), ["adetailer: nothing to repair in <this>"])

    def influence(self, request: dict) -> Report | Unfinished:
        self.interrupted.clear()
        if "SciArt" not in request["txt2img"]["infotext"] and "recipe" not in request:
            raise SciArtError("recipe", "missing; give one, or the infotext of a picture that was made with one")
        words = request.get("words", ["rocket"])
        question, runs = ask(2, request["subsets"]), invented(2, words=len(words))
        for done in range(20):
            if self.interrupted.wait(SECONDS_A_STEP):
                return Unfinished(done // 5, 4)
            self.share = (done + 1) / 20
        made = {"prompt": "a rocket", "seed": 7, "recipe": request.get("recipe", {}), "summary": ["seed 7"]}
        return report(["child", "other <b>"], question, runs, words, made)

    def geometry(self, names: list[str]) -> str:
        if len(names) < 2:
            raise SciArtError("loras", "geometry compares LoRAs: give two or more")
        return f"<!doctype html><p>{' and '.join(names)}</p>"


def parse_infotext(text: str) -> dict:
    """Prompt, negative prompt and values of an infotext, as the host's paste reads it."""
    *lines, last = text.strip().split("\n")
    if len(PARAMETER.findall(last)) < 3:
        lines, last = [*lines, last], ""
    prompt, negative, rest = [], [], False
    for line in lines:
        rest = rest or line.startswith("Negative prompt:")
        (negative if rest else prompt).append(line.removeprefix("Negative prompt:").strip())
    values = {key: json.loads(value) if value[:1] == '"' else value for key, value in PARAMETER.findall(last)}
    return {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative), **values}


def slider(low: float, high: float, value: float, step: float, label: str, elem_id: str) -> gr.Slider:
    """A slider as the host has them: one that can be moved."""
    return gr.Slider(low, high, value, step=step, label=label, elem_id=elem_id, interactive=True)


def build_host_tab(tab: str, panel_actions: PanelActions) -> None:
    """The host's widgets that the panel reads or writes, under the host's names, and the panel."""
    with gr.Row(elem_id=f"{tab}_toprow"):
        prompt = gr.Textbox(label="Prompt", elem_id=f"{tab}_prompt", lines=3, interactive=True)
        negative = gr.Textbox(label="Negative prompt", elem_id=f"{tab}_neg_prompt", lines=3,
                              interactive=True)
        with gr.Row(elem_id=f"{tab}_tools"):
            paste = gr.Button("↙", elem_id="paste")
    with gr.Row(), gr.Column(elem_id=f"{tab}_settings"):
        with gr.Row():
            sampler = gr.Dropdown(["Euler a", "DPM++ 2M"], value="DPM++ 2M", label="Sampling method",
                                  elem_id=f"{tab}_sampling", interactive=True)
            steps = slider(1, 150, 20, 1, "Sampling steps", f"{tab}_steps")
        with gr.Row():
            width = slider(64, 2048, 640, 8, "Width", f"{tab}_width")
            height = slider(64, 2048, 640, 8, "Height", f"{tab}_height")
        with gr.Row():
            cfg = slider(1, 30, 7, 0.5, "CFG Scale", f"{tab}_cfg_scale")
            seed = gr.Number(-1, label="Seed", elem_id=f"{tab}_seed", interactive=True)
        panel = build_panel(tab == "img2img", panel_actions)
        parsed = gr.JSON(label="Pasted", elem_id=f"{tab}_parsed")
        received = gr.Textbox(label="What the script receives", elem_id=f"{tab}_received")
        generate = gr.Button("Generate", elem_id=f"{tab}_generate")
    generate.click(lambda text: text, [panel.recipe], [received])
    fields = [(prompt, "Prompt"), (negative, "Negative prompt"), (steps, "Steps"), (sampler, "Sampler"),
              (cfg, "CFG scale"), (seed, "Seed"), *panel.infotext_fields]

    def pasted(text):
        values = parse_infotext(text)
        size = [int(side) for side in values["Size"].split("x")] if "Size" in values else [gr.update()] * 2
        numbers = ("Steps", "CFG scale", "Seed")
        return [*(gr.update() if key not in values else float(values[key]) if key in numbers else values[key]
                  for _, key in fields), *size, values]

    paste.click(pasted, [prompt], [*(component for component, _ in fields), width, height, parsed])


def build_app(store: PresetStore, files: Files) -> gr.Blocks:
    """The page. Our scripts and styles are put into its head, as the host does."""
    # fonts by name: none is fetched from the net
    theme = gr.themes.Default(font=["Source Sans Pro", "sans-serif"], font_mono=["monospace"])
    sciart = build_tab(InventedPictures(store.user_dir).actions(files.loras), store)  # before the page, as in the host
    with gr.Blocks(theme=theme, title="SciArt panel") as app, gr.Tabs(elem_id="tabs"):
        for tab in ("txt2img", "img2img"):
            with gr.Tab(tab, id=tab):
                build_host_tab(tab, actions(store, files))
        with gr.Tab("SciArt", id="sciart_tab"):
            sciart.render()
    original = gr.routes.templates.TemplateResponse
    # in the other order than the host's: it must not matter
    files = sorted((ROOT / "javascript").glob("*.js"), reverse=True)
    scripts = "".join(f"<script>{path.read_text(encoding='utf-8')}</script>" for path in files)
    styles = HOST_STYLE + (ROOT / "style.css").read_text(encoding="utf-8")

    def template_response(*args, **kwargs):
        response = original(*args, **kwargs)
        head = f"<script>{HOST_SCRIPT}</script>{scripts}</head>"
        response.body = response.body.replace(b"</head>", head.encode())
        response.body = response.body.replace(b"</body>", f"<style>{styles}</style></body>".encode())
        response.init_headers()
        return response

    gr.routes.templates.TemplateResponse = template_response
    return app


def put(folder: Path, name: str, text: str) -> None:
    """A file into the user's folder, as by hand."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def as_new(folder: Path, files: Files) -> None:
    """What has been saved, bound, found and read is gone."""
    files.as_new()
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        port = int(sys.argv[1]) if len(sys.argv) > 1 else 7861
        files = Files()
        page = build_app(PresetStore(Path(folder)), files).queue(16)
        served, *_ = page.launch(server_name="127.0.0.1", server_port=port, quiet=True, show_api=False,
                                 prevent_thread_lock=True)
        served.add_api_route("/put", lambda name, text: put(Path(folder), name, text))
        served.add_api_route("/as_new", lambda: as_new(Path(folder), files))
        page.block_thread()
