"""Test-only extension: routes that fingerprint the loaded model and that make one generation fail.

GET  /probe/state   digests of all weights, hooks, and attributes of every module of the loaded checkpoint
POST /probe/fault   {"where": ..., "at": n}: arms one fault, fired once at the n-th call from now (n >= 1)
POST /probe/room    {"rows": n, "gradient": true}: until told otherwise, calls of the UNet with more rows, or with
                    gradient where that is false, run out of memory; {} for as much room as there is
POST /probe/kind    {"cond_stage_key": "edit"}: the loaded model passes for InstructPix2Pix; {} for what it is
POST /probe/unet    {"label": ...}: a replaced UNet of that name, null for none
POST /probe/reset   disarms, clears the interrupt and skip flags and the host's cache of prompt embeddings
"""

from __future__ import annotations

import hashlib
from collections import Counter
from types import SimpleNamespace

import torch
from fastapi import FastAPI, HTTPException
from modules import processing, script_callbacks, sd_unet, shared

PLACES = ("unet", "text_encoder", "callback", "oom", "interrupt", "skip")
HOOKS = {
    "forward": "_forward_hooks",
    "forward_pre": "_forward_pre_hooks",
    "backward": "_backward_hooks",
    "backward_pre": "_backward_pre_hooks",
}


class Fault:
    """One armed fault at most; it takes its own hook away before it fires."""

    def __init__(self):
        self.where = None
        self.left = 0
        self.fired = 0
        self.handle = None

    def arm(self, where: str, at: int) -> None:
        self.disarm()
        self.where, self.left = where, at
        if where != "callback":
            model = shared.sd_model
            target = model.cond_stage_model if where == "text_encoder" else model.model.diffusion_model
            self.handle = target.register_forward_pre_hook(lambda module, args: self.count())

    def disarm(self) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.where, self.left, self.handle = None, 0, None

    def count(self) -> None:
        self.left -= 1
        if self.left > 0:
            return
        where = self.where
        self.disarm()
        self.fired += 1
        if where == "interrupt":
            shared.state.interrupt()
        elif where == "skip":
            shared.state.skip()
        elif where == "oom":
            raise torch.cuda.OutOfMemoryError("probe: out of memory")
        else:
            raise RuntimeError(f"probe: fault in {where}")


class Room:
    """As little memory as a test wants: what would not fit raises torch's own error."""

    def __init__(self):
        self.handle = None

    def limit(self, rows: int | None = None, gradient: bool = True) -> None:
        if self.handle is not None:
            self.handle.remove()
            self.handle = None

        def check(module, args) -> None:
            count = len(args[0])
            if (rows is not None and count > rows) or (torch.is_grad_enabled() and not gradient):
                raise torch.cuda.OutOfMemoryError(f"probe: no room for {count} rows")

        if rows is not None or not gradient:
            first = shared.sd_model.model.diffusion_model.input_blocks[0]
            self.handle = first.register_forward_pre_hook(check)


fault = Fault()
room = Room()


def on_cfg_denoiser(params) -> None:
    if fault.where == "callback":
        fault.count()


def digest_of(tensors: list[tuple[str, torch.Tensor]]) -> str:
    """sha256 over names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.device.type != "meta":
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def tensors_of(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    ]


def state() -> dict:
    model = shared.sd_model
    tensors = tensors_of(model)
    hooks, shadowed, attributes, odd = {}, [], Counter(), []
    for path, module in model.named_modules():
        attributes.update(vars(module).keys())
        counts = {kind: len(getattr(module, name, ())) for kind, name in HOOKS.items()}
        if any(counts.values()):
            hooks[path] = {kind: count for kind, count in counts.items() if count}
        shadowed += [f"{path}.{name}" for name in vars(module) if callable(getattr(type(module), name, None))]
        odd += [
            {"name": f"{path}.{name}", "type": type(value).__name__}
            for name, value in module._parameters.items()
            if value is not None and type(value) is not torch.nn.Parameter
        ]
    parts = sorted({name.split(".", 1)[0] for name, _ in tensors})
    return {
        "checkpoint": model.sd_checkpoint_info.title,
        "is_sdxl": model.is_sdxl,
        "weights": digest_of(tensors),
        "parts": {part: digest_of([t for t in tensors if t[0].split(".", 1)[0] == part]) for part in parts},
        "tensors": len(tensors),
        "hooks": hooks,
        "shadowed_methods": sorted(shadowed),
        "module_attributes": dict(sorted(attributes.items())),
        "odd_parameters": odd,
        "fault": {"where": fault.where, "left": fault.left, "fired": fault.fired},
    }


def arm(payload: dict) -> dict:
    where, at = payload.get("where"), payload.get("at", 1)
    if where is None:
        fault.disarm()
    elif where not in PLACES:
        raise HTTPException(422, f"where: expected one of {', '.join(PLACES)} or null, got {where!r}")
    elif not isinstance(at, int) or at < 1:
        raise HTTPException(422, f"at: expected a whole number from 1, got {at!r}")
    else:
        fault.arm(where, at)
    return {"where": fault.where, "at": fault.left}


def limit(payload: dict) -> dict:
    room.limit(**payload)
    return {}


def reset() -> dict:
    fault.disarm()
    room.limit()
    fault.fired = 0
    shared.state.interrupted = shared.state.skipped = False
    for kind in (
        processing.StableDiffusionProcessing,
        processing.StableDiffusionProcessingTxt2Img,
    ):
        for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if name in vars(kind):
                setattr(kind, name, [None, None])
    return {}


def replace_unet(payload: dict) -> dict:
    """Pretends that an extension (TensorRT, say) has put its own UNet in place of the checkpoint's."""
    option = SimpleNamespace(label=payload["label"]) if payload.get("label") else None
    sd_unet.current_unet = SimpleNamespace(option=option) if option else None
    return {}


def pass_for(payload: dict) -> dict:
    """Pretends that the loaded model reads its conditions as another kind does; on the instance, taken off again."""
    model = shared.sd_model
    if vars(model).get("probed_key") is None:
        model.probed_key = model.cond_stage_key
    model.cond_stage_key = payload.get("cond_stage_key", model.probed_key)
    if not payload:
        del model.probed_key
    return {}


def add_routes(_demo, app: FastAPI) -> None:
    app.add_api_route("/probe/state", state, methods=["GET"])
    app.add_api_route("/probe/fault", arm, methods=["POST"])
    app.add_api_route("/probe/room", limit, methods=["POST"])
    app.add_api_route("/probe/kind", pass_for, methods=["POST"])
    app.add_api_route("/probe/unet", replace_unet, methods=["POST"])
    app.add_api_route("/probe/reset", reset, methods=["POST"])


script_callbacks.on_cfg_denoiser(on_cfg_denoiser)
script_callbacks.on_app_started(add_routes)
