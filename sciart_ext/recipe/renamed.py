"""A recipe by other names of its LoRAs."""

from __future__ import annotations

from collections.abc import Callable


def renamed(data: dict, rename: Callable[[str], str]) -> dict:
    """A recipe's JSON data, checked, with each LoRA by the name that `rename` gives it; as it is where two of them
    would then have one name, for no recipe may list a name twice."""
    loras = data.get("loras", [])
    names = {lora["name"]: rename(lora["name"]) for lora in loras if lora.get("name")}
    if len(set(names.values())) < len(names):
        return data
    changed = dict(data)
    if loras:
        changed["loras"] = [{**lora, "name": names[lora["name"]]} if lora.get("name") else lora for lora in loras]
    order = (data.get("composition") or {}).get("order")
    if order:
        changed["composition"] = {**data["composition"], "order": [names.get(name, name) for name in order]}
    return changed
