"""A headless Chromium for tests: the one that SCIART_CHROMIUM names, one of the system, or Playwright's own."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright import sync_api

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
NONE = ("no chromium found: install one (`apt-get install chromium`, `playwright install chromium`), or set "
        "SCIART_CHROMIUM to its path")


def find_chromium() -> str | None:
    """Its path; None where there is none."""
    given = os.environ.get("SCIART_CHROMIUM")
    return given or next(filter(None, map(shutil.which, NAMES)), None) or _of_playwright()


def _of_playwright() -> str | None:
    with sync_api.sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).is_file() else None


@contextmanager
def launched() -> Iterator[sync_api.Browser]:
    """A running browser. Raises RuntimeError where there is none to run."""
    path = find_chromium()
    if path is None:
        raise RuntimeError(NONE)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


if __name__ == "__main__":
    found = find_chromium()
    print(found or NONE)
    sys.exit(found is None)
