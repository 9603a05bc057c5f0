"""The tiny world: a program that draws science-imagination scenes, an oracle that reads them, and the tiny model."""

from pathlib import Path

MODEL = Path(__file__).with_name("sciart-tiny")
"""the tiny Stable Diffusion, a diffusers folder; its LoRAs are in `loras`"""
