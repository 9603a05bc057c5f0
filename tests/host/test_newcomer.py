"""Someone who never saw SciArt gets from its URL to the first picture and the first heatmap."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("diffusers")

from newcomer import PRESET, empty_webui, repository, walk

from sciart_ext.standalone.export import export_webui
from sciart_ext.world import MODEL

pytestmark = pytest.mark.browser


def test_from_a_url_to_the_first_heatmap(browser, tmp_path):
    models = tmp_path / "models"
    export_webui(MODEL, models, "sciart-tiny")
    with empty_webui(models, "sciart-tiny.safetensors") as server:
        person = walk(browser, server, repository(tmp_path))
        assert (server.data / "extensions" / "sciart" / "scripts" / "sciart.py").is_file()
        names = [one["name"] for one in server.get("/sciart/v1/presets").json["presets"]]
        bound = server.get("/sciart/v1/roles").json
    told = person.told()
    assert PRESET in names
    assert bound == {role: f"sciart-tiny-{role}" for role in ("child", "watercolor", "science")}, (
        "bound by their files' names, which no other file can take from them")
    assert {stage["name"]: stage["clicks"] for stage in told["stages"]} == {
        "install": 3, "restart": 2, "first picture": 4, "first heatmap": 3}
