"""What `benchmarks.explain` measures."""
