"""How far SciArt reaches."""
