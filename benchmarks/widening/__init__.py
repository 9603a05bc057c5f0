"""What SciArt takes in beyond its first shape, measured beside who else does it."""
