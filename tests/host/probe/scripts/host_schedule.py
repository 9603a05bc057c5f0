"""Test-only extension: changes the weights of the host's own `<lora:…>` at every step and UNet call.

The reference for schedules: the host merges anew whenever a multiplier changes, slow but by its own code.

POST /probe/schedule {"per_step": 2, "extra_in_first": 0, "hires": {...}, "weights": {"child": [0.1, 0.5, ...]},
                      "calls": {"child": [1, 0]}}
weights: one multiplier per sampler step; calls: factors of the UNet's calls within one evaluation (prompt parts,
then the negative prompt, where the host does not batch them). `hires`, of the same form, is for the hires pass.
POST /probe/schedule {} ends it.
"""

from __future__ import annotations

import importlib

from fastapi import FastAPI
from modules import script_callbacks, shared


class HostSchedule:
    def __init__(self):
        self.plan = {}
        self.call = 0
        self.step = 0
        self.handle = None
        self.seen_hires = False

    def set(self, plan: dict) -> None:
        self.plan, self.seen_hires = plan, False
        if self.handle is not None:
            self.handle.remove()
            self.handle = None
        if plan:
            unet = shared.sd_model.model.diffusion_model
            self.handle = unet.register_forward_pre_hook(self.before_call)

    def current(self) -> dict:
        return self.plan.get("hires", {}) if self.seen_hires else self.plan

    def before_evaluation(self, params) -> None:
        if not self.plan:
            return
        self.seen_hires = getattr(params.denoiser.p, "is_hr_pass", False)
        plan = self.current()
        self.step = max(params.denoiser.step - plan.get("extra_in_first", 0), 0) // plan.get("per_step", 1)
        self.call = 0

    def before_call(self, module, args) -> None:
        plan = self.current()
        for net in importlib.import_module("networks").loaded_networks:
            weights = plan.get("weights", {}).get(net.name)
            if weights is not None:
                calls = plan.get("calls", {}).get(net.name, [1])
                net.unet_multiplier = weights[min(self.step, len(weights) - 1)] * calls[min(self.call, len(calls) - 1)]
        self.call += 1


schedule = HostSchedule()


def set_schedule(plan: dict) -> dict:
    schedule.set(plan)
    return {}


def add_route(_demo, app: FastAPI) -> None:
    app.add_api_route("/probe/schedule", set_schedule, methods=["POST"])


script_callbacks.on_cfg_denoiser(schedule.before_evaluation)
script_callbacks.on_app_started(add_route)
