"""The first minutes with SciArt, as someone has them who never saw it: from a WebUI without it to the first heatmap.

Everything is done on the page, by clicks and typing; the one who counts them goes the shortest way that the page offers.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.host.server import ONE_THREAD, SCIART, HostServer

PRESET, PRESET_TITLE = "science-imagination", "Science imagination"
PATIENCE = 300_000
"""milliseconds for what the WebUI has to do itself"""


@dataclass
class Stage:
    """What one stage of the way took: clicks (choosing from a list is one), texts typed, seconds."""

    name: str
    clicks: int = 0
    typed: int = 0
    seconds: float = 0.0


class Newcomer:
    """A person at a browser, and what each stage takes them."""

    def __init__(self, page):
        self.page = page
        self.stages: list[Stage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.stages.append(Stage(name))
        began = time.monotonic()
        yield
        self.stages[-1].seconds = round(time.monotonic() - began, 1)

    def click(self, target) -> None:
        self.stages[-1].clicks += 1
        target.click()

    def type(self, target, text: str) -> None:
        self.stages[-1].typed += 1
        target.fill(text)

    def choose(self, target, value: str) -> None:
        self.stages[-1].clicks += 1
        target.select_option(value)

    def told(self) -> dict:
        """All of it, and the sums."""
        return {"stages": [asdict(stage) for stage in self.stages],
                "clicks": sum(stage.clicks for stage in self.stages),
                "typed": sum(stage.typed for stage in self.stages),
                "seconds": round(sum(stage.seconds for stage in self.stages), 1)}


@contextmanager
def empty_webui(models: Path, checkpoint: str) -> Iterator[HostServer]:
    """A WebUI with a checkpoint and LoRA files and no extension at all."""
    args = ("--enable-insecure-extension-access",)  # a server with a name refuses to install otherwise
    with HostServer(models=models, checkpoint=checkpoint, args=args, env=ONE_THREAD, ui=True, extensions={}) as server:
        yield server


def repository(folder: Path) -> str:
    """The URL of a repository of this project as it is committed."""
    place = folder / "sciart"
    subprocess.run(["git", "clone", "--quiet", "--bare", SCIART.as_uri(), str(place)], check=True)
    return place.as_uri()


def walk(browser, server: HostServer, url: str, screenshots: Path | None = None) -> Newcomer:
    """Installs from the URL, restarts, and goes from the preset to the first picture and its first heatmap."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    person = Newcomer(page)

    def look(name: str) -> None:
        if screenshots:
            page.screenshot(path=screenshots / f"newcomer-{name}.png")

    def opened() -> None:
        page.goto("about:blank")  # the old page would load itself anew at the same moment
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.locator("#txt2img_generate").wait_for(timeout=PATIENCE)

    with person.stage("install"):
        opened()
        person.click(page.locator("#tabs > .tab-nav button", has_text="Extensions"))
        tab = page.locator("#tab_extensions")
        person.click(tab.locator(".tab-nav button", has_text="Install from URL"))
        person.type(tab.get_by_label("URL for extension's git repository"), url)
        person.click(tab.get_by_role("button", name="Install", exact=True))
        tab.get_by_text("Installed into").wait_for(timeout=PATIENCE)
        look("installed")

    with person.stage("restart"):
        person.click(tab.locator(".tab-nav button", has_text="Installed"))
        person.click(tab.get_by_role("button", name=re.compile("Apply and (restart|quit)")))
        server.process.wait(timeout=60)
        server.start()
        opened()

    with person.stage("first picture"):
        person.click(page.locator("#sciart_txt2img .label-wrap .icon").first)
        panel = page.locator("#sciart_txt2img_panel")
        use_preset(person, panel)
        for name in ("width", "height"):  # for the tiny model, which was trained on pictures of this size
            person.type(page.locator(f"#txt2img_{name} input[type=number]").first, "128")
        look("preset")
        person.click(page.locator("#txt2img_generate"))
        page.locator("#html_info_txt2img p").first.wait_for(timeout=PATIENCE)
        look("picture")

    with person.stage("first heatmap"):
        person.click(page.locator("#tabs > .tab-nav button", has_text="SciArt"))
        person.click(page.locator("#sciart_influence_asked"))
        person.click(page.locator("#sciart_influence_run"))
        report = page.frame_locator("#sciart_influence_report iframe")
        report.locator("img").first.wait_for(timeout=PATIENCE)
        look("heatmap")
    context.close()
    return person


def use_preset(person: Newcomer, panel) -> None:
    """Chooses the preset, with the LoRAs that are suggested for its roles, and its prompt and settings."""
    person.click(panel.get_by_role("radio", name=PRESET_TITLE, exact=True))
    roles = panel.locator(".sciart-presets [data-role]")
    for i in range(roles.count()):
        if not roles.nth(i).input_value():
            person.choose(roles.nth(i), roles.nth(i).locator("option:not([value=''])").first.get_attribute("value"))
    person.click(panel.get_by_role("button", name="Prompt & settings too"))
    panel.get_by_role("group", name="LoRA 3", exact=True).wait_for()  # what is typed before would be pasted over
