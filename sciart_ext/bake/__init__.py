"""A mixture written into a copy of a checkpoint."""
