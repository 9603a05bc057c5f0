"""What may be chosen of how LoRAs become one file; whoever only checks a choice needs no torch."""

SVD = ("exact", "randomised", "auto")
"""of dense results; auto: by the rank"""
PRECISIONS = ("fp16", "fp32")
