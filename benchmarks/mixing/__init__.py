"""Parts of the benchmark `benchmarks.mix`: what mixing LoRAs costs in time and memory."""
