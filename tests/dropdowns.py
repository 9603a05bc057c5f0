"""Dropdowns of the page, by what a user does."""

from __future__ import annotations

import time

PATIENCE = 30.0  # seconds


def choose(page, dropdown, name, typed=None):
    """Takes a choice of a dropdown that was just sent its choices: the page offers them a moment after they came."""
    entry, offered = page.locator(f"{dropdown} input"), page.locator(f"ul.options li[aria-label='{name}']")
    deadline = time.monotonic() + PATIENCE
    entry.fill(typed or name)
    while not offered.is_visible() and time.monotonic() < deadline:
        page.wait_for_timeout(100)
        entry.fill("")
        entry.fill(typed or name)
    offered.click()
