"""The engine without a WebUI: on diffusers, from a command line. Needs the extra `standalone`."""

from __future__ import annotations

import os
from importlib.util import find_spec

from ..errors import SciArtError

EXTRAS = ("diffusers", "transformers", "accelerate")


def prepare() -> None:
    """To call before importing this package's modules: checks the extras, keeps their libraries quiet and offline.

    Raises `SciArtError` where a package of the extra `standalone` is missing.
    """
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise SciArtError("standalone", f"{', '.join(missing)} not installed; pip install \"sciart[standalone]\"")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # diffusers would look for a checkpoint's configuration online
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
