"""How long someone who never saw SciArt takes from its URL to the first picture and the first heatmap.

    SCIART_WEBUI=FOLDER python -m benchmarks.newcomer [--screenshots FOLDER]

In a real WebUI with the tiny model, by a browser that clicks as a person would who never stops to think: clicks, texts
typed and seconds of each stage. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from sciart_ext.standalone.export import export_webui
from sciart_ext.world import MODEL
from tests.chromium import launched
from tests.host.newcomer import empty_webui, repository, walk

from . import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the same, but keeps no result")
    parser.add_argument("--screenshots", type=Path, help="a folder for what is seen on the way")
    options = parser.parse_args()
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder) / "models"
        export_webui(MODEL, models, "sciart-tiny")
        with launched() as browser, empty_webui(models, "sciart-tiny.safetensors") as server:
            told = walk(browser, server, repository(Path(folder)), options.screenshots).told()
    told.update(machine=record.machine(), commit=record.commit())
    if not options.quick:
        record.write("newcomer", told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
