"""Mixing: which layers of a model a LoRA reaches, and the two ways of applying its delta there."""
