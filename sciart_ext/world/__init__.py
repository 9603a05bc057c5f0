"""The tiny world: a program that draws science-imagination scenes, and an oracle that reads them."""
