"""The panel with a Lora folder as people have it: the good LoRAs can be drawn with, the others say what they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from field_folder import copied, lora_folder, write_oddities
from server import ONE_THREAD, HostServer
from test_page import expect, opened

pytestmark = pytest.mark.browser

PATIENCE = 120_000
"""milliseconds; the host's page is large, and the machine may be busy"""


@pytest.fixture(scope="module")
def server(browser, tiny_models) -> Iterator[HostServer]:
    with HostServer(models=tiny_models, env=ONE_THREAD, ui=True, settings={"sciart_panel_open": True}) as server:
        write_oddities(server)
        copied(server, "child", lora_folder(server) / "epoch-9.safetensors", ss_output_name="my child",
               ss_base_model_version="sd_v1")
        assert server.post("/sdapi/v1/refresh-loras").status == 200
        yield server


def test_the_panel_draws_with_the_good_loras_beside_oddities(browser, server: HostServer) -> None:
    with opened(browser, server, patience=PATIENCE) as tab:
        tab.enabled.click()
        tab.add("good-1", weight="0.7")
        tab.add("child", weight="0.4")
        expect(tab.rows.nth(0)).to_contain_text("fits")
        tab.fill()
        assert "good-1" in tab.generate()
        for name, told in (("thing-0", "an embedding (textual inversion); put it into the embeddings folder"),
                           ("bytes-0", "an empty file"), ("adapter_model", "init_lora_weights is pissa")):
            tab.field(1, "name").fill(name)
            expect(tab.rows.nth(1)).to_contain_text("cannot be mixed")
            expect(tab.rows.nth(1)).to_contain_text(told)
        if folder := os.environ.get("SCIART_SCREENSHOTS"):
            tab.rows.nth(1).scroll_into_view_if_needed()
            tab.page.screenshot(path=str(Path(folder) / "field.png"))


def test_a_role_is_kept_by_its_files_name_and_shown_as_the_host_calls_it(browser, server: HostServer) -> None:
    with opened(browser, server, patience=PATIENCE) as tab:
        tab.preset("Science imagination").click()
        tab.bind({"child": "my child"})
    assert server.get("/sciart/v1/roles").json["child"] == "epoch-9"
    with opened(browser, server, patience=PATIENCE) as tab:
        tab.preset("Science imagination").click()
        expect(tab.panel.locator(".sciart-presets [data-role=child]")).to_have_value("my child")
        expect(tab.panel.locator("optgroup[label='bound, but not found']")).to_have_count(0)
