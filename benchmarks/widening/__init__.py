"""How far SciArt reaches: file formats."""
