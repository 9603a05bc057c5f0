"""Hosts: what any must give (`protocols.py`), what is the same in every WebUI (`webui/`), and a folder for each."""
