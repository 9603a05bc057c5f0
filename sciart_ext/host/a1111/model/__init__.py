"""The loaded model, the LoRA files, and what is kept of both between pictures."""
