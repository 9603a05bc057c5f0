"""How far SciArt reaches: file formats, ways to combine and to compose, beside who else does it."""
