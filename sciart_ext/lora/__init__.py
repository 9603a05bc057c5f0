"""LoRA files: reading them safely, their key names, their kinds, and what they contain."""
