"""What pages and pictures of results are made of: plots, colours, HTML. Knows nothing of models."""
