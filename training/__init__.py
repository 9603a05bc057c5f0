"""How the tiny world's weights were made: `python -m training oracle | autoencoder | base | loras`."""
