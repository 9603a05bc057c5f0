"""Contrastive attention guidance: each LoRA acts on its own subject (CLoRA, arXiv 2403.19776)."""
