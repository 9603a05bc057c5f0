"""The routes under /sciart/v1/ that ask nothing of a WebUI but its LoRA files: presets, roles, plans, geometry."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import SciArtError
from ...geometry.comparison import Comparison, compare
from ...geometry.page import geometry_page
from ...geometry.report import as_data
from ...lora.file import load_lora
from ...presets import PresetStore, resolve
from ...recipe import compile_plan, dump_recipe, parse_recipe
from ...report.plan_plot import plan_png
from .bodies import MAX_WEIGHTS, GeometryRequest, PlanRequest, PresetRequest, RolesRequest
from .serving import Asking, Route

MOST_WITH_MASKS = 16 << 20
"""bytes of a request with a recipe"""


class CommonRoutes:
    """store(): the presets, where the settings say; find(name, field): a LoRA's file, or `SciArtError`."""

    def __init__(self, store: Callable[[], PresetStore], find: Callable[[str, str], Path]):
        self._store, self._find = store, find

    def all(self) -> list[Route]:
        """The routes."""
        return [
            Route("GET", "/presets", self.list_presets), Route("GET", "/presets/{name}", self.read_preset),
            Route("POST", "/presets", self.save_preset, PresetRequest, MOST_WITH_MASKS),
            Route("DELETE", "/presets/{name}", self.delete_preset),
            Route("GET", "/roles", self.read_roles), Route("POST", "/roles", self.bind_roles, RolesRequest),
            Route("POST", "/plan", self.plan, PlanRequest, MOST_WITH_MASKS),
            Route("POST", "/geometry", self.geometry, GeometryRequest, long=True),
        ]

    def list_presets(self, asking: Asking) -> dict:
        """All presets with their roles, and which LoRA is bound to which role; a file that is wrong has its error."""
        store = self._store()
        bindings, error = store.listed_bindings()
        return {"presets": store.listed(), "bindings": bindings, **({"bindings_error": error} if error else {})}

    def read_preset(self, asking: Asking) -> dict:
        """One preset."""
        return self._store().read(asking.parameters["name"], "name").to_json()

    def save_preset(self, asking: Asking) -> dict:
        """Keeps a preset in the extension's own folder."""
        return self._store().save(asking.body.name, asking.body.preset).to_json()

    def delete_preset(self, asking: Asking) -> dict:
        """Deletes one of the user's own presets."""
        self._store().delete(asking.parameters["name"])
        return {"deleted": asking.parameters["name"]}

    def read_roles(self, asking: Asking) -> dict:
        """Which LoRA is bound to which role."""
        return self._store().bindings()

    def bind_roles(self, asking: Asking) -> dict:
        """Binds roles to LoRA names; an empty name unbinds."""
        bindings = dict(asking.body.__root__)
        for role, name in bindings.items():
            if name:
                self._find(name, role)
        return self._store().bind(bindings)

    def plan(self, asking: Asking) -> dict:
        """What a recipe compiles to: the weight of each LoRA at each step, as numbers and as a picture."""
        body = asking.body
        recipe = resolve(parse_recipe(body.recipe), self._store())
        weights = (body.steps + body.hires_steps) * len(recipe.loras)
        if weights > MAX_WEIGHTS:
            raise SciArtError("steps", f"a plan of {weights} weights; at most {MAX_WEIGHTS} are accepted")
        compiled = compile_plan(recipe, body.steps, body.hires_steps)
        asking.check_wanted()
        png = base64.b64encode(plan_png(compiled)).decode("ascii") if body.picture else None
        return {"recipe": dump_recipe(recipe), "plan": compiled.table(), "png": png}

    def geometry(self, asking: Asking) -> dict:
        """What LoRAs have in common, layer by layer, by block and in all, and where they conflict."""
        comparison = compared(asking.body.loras, self._find, asking.body.weights, asking.check_wanted)
        return {**as_data(comparison), "page": geometry_page(comparison) if asking.body.page else None}


def compared(names: Sequence[str], find: Callable[[str, str], Path], weights: Sequence[float] | None = None,
             progress: Callable[..., None] = lambda *_: None) -> Comparison:
    """The geometry of LoRAs by name or alias. Raises `SciArtError` where one is not found or cannot be compared."""
    loras = []
    for name, path in [(name, find(name, f"loras[{i}]")) for i, name in enumerate(names)]:
        progress()
        loras.append(load_lora(path, name))
    return compare(loras, weights, progress)
