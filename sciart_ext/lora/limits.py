"""Limits of what LoRA files may hold; whoever only checks a number needs no torch."""

MAX_RANK = 4096
