"""Each LoRA on its own subject: where it is, contrastive guidance (CLoRA, arXiv 2403.19776), masks in one row."""
