"""Parts of the benchmark `benchmarks.gpu`: right, quick and within memory on a GPU, with torch alone beside SciArt."""
