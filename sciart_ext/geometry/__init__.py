"""How LoRAs lie to each other: cosines, subspaces, spectra, from their factors alone."""
