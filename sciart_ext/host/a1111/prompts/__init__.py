"""Prompts as the host reads, tokenizes and encodes them."""
