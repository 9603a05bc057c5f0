"""How LoRAs share a picture besides being merged: which says what where, and how their predictions become one."""
