"""The tab in this host: the pictures it makes, its LoRAs, its folders."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from fastapi import HTTPException
from modules import paths, script_callbacks, shared

from ....errors import SciArtError
from ....geometry.page import geometry_page
from ....influence.folder import save_report
from ....influence.report import Report
from ....influence.subsets import Unfinished
from ....pipeline.stages import Made, Progress
from ....recipe.schema import parsed
from ....ui.pipeline_tab import PipelineActions
from ....ui.tab import TabActions, build_tab
from ...webui.bodies import InfluenceRequest, PipelineRequest
from ...webui.routes import compared
from .. import lora_files
from ..routes.influence import explained
from ..routes.pipeline import run_pipeline
from ..routes.styles import add_styles
from ..settings import OwnPresets, help_address

TITLE, ELEMENT = "SciArt", "sciart_tab"


def register_tab() -> None:
    """Adds the tab to the host's page."""
    script_callbacks.on_ui_tabs(lambda: [
        (build_tab(tab_actions(), OwnPresets(), help_address()), TITLE, ELEMENT)])


def tab_actions() -> TabActions:
    """The tab's questions, answered by the host."""
    stopped = threading.Event()

    def interrupt() -> None:
        stopped.set()  # the host forgets an interrupt when the next picture begins
        shared.state.interrupt()

    def influence(request: dict) -> Report | Unfinished:
        stopped.clear()
        return _influence(request, stopped.is_set)

    running = Progress(stopped.is_set)

    def pipeline(request: dict) -> Made:
        stopped.clear()
        return _pipeline(request, running)

    def pipeline_progress() -> tuple[str, float]:
        return f"{running.name} ({running.number} of {running.stages})", _progress()

    return TabActions(last_picture=_last_picture, influence=influence, progress=_progress, interrupt=interrupt,
                      save=_save, loras=lora_files.names, geometry=_geometry, add_styles=add_styles,
                      pipeline=PipelineActions(pipeline, pipeline_progress, interrupt))


def _last_picture() -> str:
    kept = Path(paths.data_path) / "params.txt"
    if not kept.is_file():
        raise SciArtError("picture", "the host has kept none: nothing was made yet, or --no-prompt-history is set")
    return kept.read_text(encoding="utf-8")


def _influence(request: dict, stop: Callable[[], bool]) -> Report | Unfinished:
    with _refusals():
        return explained(parsed(InfluenceRequest, request), stop)


def _pipeline(request: dict, running: Progress) -> Made:
    with _refusals():
        return run_pipeline(shared.demo.app, parsed(PipelineRequest, request), running)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the host's API refuses is refused as ours."""
    try:
        yield
    except HTTPException as error:
        raise SciArtError("", str(error)) from None


def _progress() -> float:
    state = shared.state
    if state.job_count <= 0:  # not begun
        return 0.0
    within = state.sampling_step / state.sampling_steps if state.sampling_steps else 0.0
    return min((max(state.job_no, 0) + within) / state.job_count, 1.0)


def _save(told: Report) -> Path:
    folder = Path(shared.opts.outdir_samples or shared.opts.outdir_txt2img_samples).parent / "sciart-influence"
    return save_report(told, folder / f"{datetime.now():%Y-%m-%d-%H-%M-%S}-{told.made['seed']}")


def _geometry(names: list[str]) -> str:
    return geometry_page(compared(names, lora_files.find))
