"""SciArt: mix several LoRAs with weights that change over steps, layers, rows; see README.md."""

__version__ = "0.1.0"
