"""Prompts as the WebUI reads them: `syntax` and `loras` need no torch, `encoding` makes embeddings of them."""
