"""What SciArt does beyond plain mixing, measured part by part."""
