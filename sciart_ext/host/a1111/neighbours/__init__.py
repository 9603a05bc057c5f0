"""Other extensions that act in the same picture."""
