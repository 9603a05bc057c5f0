"""A Lora folder as people have it: forty and more files that are no LoRA, and some that are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from foreign_files import BYTES, THINGS
from safetensors.torch import load_file, save_file
from server import HostServer


def lora_folder(host: HostServer) -> Path:
    return host.data / "models" / "Lora"


def copied(host: HostServer, name: str, to: Path, **metadata: str) -> Path:
    """One of the host's LoRAs in another file, with what else the file says of itself."""
    to.parent.mkdir(parents=True, exist_ok=True)
    save_file(load_file(lora_folder(host) / f"{name}.safetensors"), to, metadata or None)
    return to


def write_oddities(host: HostServer) -> dict[str, str]:
    """What is said of each, by its name, as a pattern; beside them good-1 and good-2, and one that is gone again."""
    folder, told = lora_folder(host), {}
    for number, (tensors, sentence) in enumerate(THINGS.values()):
        told[f"thing-{number}"] = re.escape(sentence)
        save_file(tensors, folder / f"thing-{number}.safetensors")
    for number, (data, sentence) in enumerate(BYTES.values()):
        told[f"bytes-{number}"] = sentence
        (folder / f"bytes-{number}.safetensors").write_bytes(data)
    half = (folder / "child.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(half[:len(half) // 2])
    told["half"] = "half a download|cut short|damaged|incomplete"
    torch.save({"state_dict": {"a": [1]}}, folder / "list.pt")
    told["list"] = "not a tensor"
    peft = folder / "peft"
    peft.mkdir()
    save_file({f"base_model.model.mid_block.attentions.0.proj_in.lora_{side}.weight": torch.ones(4, 4) for side in "AB"},
              peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text(json.dumps({"r": 4, "init_lora_weights": "pissa"}), encoding="utf-8")
    told["adapter_model"] = "init_lora_weights is pissa"
    (folder / "a-folder.safetensors").mkdir()
    try:
        (folder / "broken-link.safetensors").symlink_to(folder / "nowhere.safetensors")
    except OSError:
        pass  # no links here
    for number in (1, 2):
        copied(host, "child", folder / f"good-{number}.safetensors")
    copied(host, "child", folder / "deleted.safetensors")
    assert host.post("/sdapi/v1/refresh-loras").status == 200
    (folder / "deleted.safetensors").unlink()
    assert len(told) >= 40
    return told
