"""AUTOMATIC1111's WebUI v1.10.1. `script.py` is where it comes in."""
