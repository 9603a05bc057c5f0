"""Parts of the benchmark `benchmarks.world`: what oracle and tiny model can do."""
