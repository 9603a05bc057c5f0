"""Hosts: the only place that imports a host's `modules`. One group of modules per kind of host."""
