"""The host's script: always visible in txt2img and img2img; hands every callback to the run of its `p`."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

from modules import scripts

from ...errors import SciArtError
from ...recipe import INFOTEXT_KEY, NOISE_KEY, NOTES_KEY, VERSION_KEY, is_off
from ...ui.panel import build_panel
from ..webui.adetailer import is_repair, not_repaired
from ..webui.errors import as_request_error
from ..webui.watched import Asked
from .model.session import session
from .neighbours.done import take_back
from .page.panel import panel_actions, panel_start
from .picture.run import LOSS_KEY, Run

_RUN = "_sciart_run"


class SciArtScript(scripts.Script):
    """Mixes LoRAs as one JSON object, the recipe, says; our own routes give it an `Asked` with a recipe in it."""

    _whole: weakref.ref | None = None
    """the run that began last, of a whole picture"""

    def title(self):
        return "SciArt"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        panel = build_panel(is_img2img, panel_actions(), panel_start())
        self.infotext_fields = panel.infotext_fields
        self.paste_field_names = panel.paste_field_names
        return [panel.recipe]

    def process(self, p, recipe=None, *_):
        _detach(p)
        whole = self._whole() if is_repair(p) and self._whole is not None else None
        asked = recipe if isinstance(recipe, Asked) else None
        if asked and whole is not None:
            asked = asked.of_image(whole.p.batch_index)
        recipe = asked.recipe if asked else recipe
        for key in (INFOTEXT_KEY, VERSION_KEY, NOISE_KEY, NOTES_KEY, LOSS_KEY):
            p.extra_generation_params.pop(key, None)
        if is_off(recipe):
            session.clear()
            return
        end = functools.partial(take_back, p, batch=False)
        try:
            run = Run(p, recipe, asked, whole)
            run.prompts.attach()
        except SciArtError as error:
            if whole is not None:
                whole.note(not_repaired(error))
            _fail_at(p, "init", as_request_error(error), end)
            return
        except Exception as error:
            _fail_at(p, "init", error, end)
            raise
        setattr(p, _RUN, run)
        if not is_repair(p):
            self._whole = weakref.ref(run)

    def before_process_batch(self, p, *_, **__):
        run = getattr(p, _RUN, None)
        if run is not None:
            run.prompts.read_others()

    def process_batch(self, p, *_, **__):
        run = getattr(p, _RUN, None)
        if run is not None:
            run.check_prompt()

    def process_before_every_sampling(self, p, *_, x=None, **__):
        run = getattr(p, _RUN, None)
        if run is None:
            return
        try:
            run.before_sampling(x)
        except Exception as error:
            _fail_at(p.sampler, "launch_sampling", error, run.end)
            raise

    def postprocess(self, p, processed, *_):
        run = getattr(p, _RUN, None)
        if run is not None:
            run.finish(processed)


def _detach(p) -> None:
    """Ends an earlier run of the same or a copied `p` (loopback, X/Y/Z plot)."""
    run = vars(p).pop(_RUN, None)
    if run is not None:
        run.prompts.detach()


def _fail_at(owner: object, method: str, error: Exception, end: Callable[[], None]) -> None:
    """The host swallows this callback's error: raise it again at its next own step, after `end`."""
    def fail(*_, **__):
        end()
        raise error

    setattr(owner, method, fail)
