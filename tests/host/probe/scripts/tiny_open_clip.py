"""Makes the toy OpenCLIP architecture of tiny-sdxl known to the host, before it loads a checkpoint."""

from pathlib import Path

import open_clip

open_clip.add_model_config(
    Path(__file__).resolve().parents[1] / "open_clip_configs" / "sciart-tiny-bigG.json"
)
