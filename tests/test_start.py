"""`python -m benchmarks.start` counts what SciArt imports, and nothing twice."""

from __future__ import annotations

from benchmarks.start import ANSWERS, answer, imports, on_command_line
from tests.host.server import SCIART

TOLD = """\
import time:        10 |         10 |     safetensors
import time:        20 |         30 |   sciart_ext.errors
import time:       100 |        130 | sciart_ext
import time:       500 |        500 | gradio
import time:         7 |          7 |   sciart_ext.recipe
import time:        40 |         47 | scripts
"""


def test_what_is_imported_by_ours_counts_once():
    assert imports(TOLD) == {"seconds": (130 + 7) / 1e6, "modules": 3}


def test_the_command_line_is_measured():
    found = on_command_line(SCIART)
    assert found["modules"] > 20 and 0 < found["seconds"] < 100


def test_an_answer_is_measured():
    found = answer(SCIART, ANSWERS["plan"])
    assert 0 < found["processor_seconds"] < 100 and 0 < found["seconds"] < 100
