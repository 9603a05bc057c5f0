"""Test-only extension: takes part in the model's evaluation as other people's extensions do, put there for one picture
and taken away when the picture is done. Its argument says how; in most ways it takes the first row for something else.

POST /probe/evaluations   {"calls": …, "rows": …} of the UNet, counted beside `fair` since it was asked last
"""

from __future__ import annotations

import functools
import types

import gradio as gr
import torch
from fastapi import FastAPI
from ldm.modules.attention import CrossAttention
from ldm.modules.diffusionmodules.openaimodel import TimestepEmbedSequential
from modules import prompt_parser, script_callbacks, scripts, shared
from modules.sd_samplers_cfg_denoiser import CFGDenoiser

STRENGTH = 3.0


def first_row_only(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.clone()
    rows[0] *= STRENGTH
    return rows


def first_text_only(text):
    if isinstance(text, dict):  # SDXL's
        return type(text)({name: first_row_only(part) for name, part in text.items()})
    return first_row_only(text)


def every_row(rows: torch.Tensor) -> torch.Tensor:
    return rows * STRENGTH


class Block(TimestepEmbedSequential):
    def forward(self, x, *args, **kwargs):
        return first_row_only(super().forward(x, *args, **kwargs))


class Query(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.weight = inner.weight

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight)


class Stranger(scripts.Script):
    def __init__(self):
        self.kind, self.undo = None, []
        self.rows = []
        """of each call of the UNet"""

    def title(self):
        return "Stranger"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        return [gr.Textbox(visible=False)]

    def process_batch(self, p, kind=None, **kwargs):
        self.kind = kind
        if kind:
            getattr(self, f"put_{kind}", lambda unet: None)(shared.sd_model.model.diffusion_model)

    def postprocess(self, p, processed, *args):
        self.kind = None
        while self.undo:
            self.undo.pop()()

    def replace(self, owner: object, name: str, value: object) -> None:
        is_own, before = name in vars(owner), getattr(owner, name)
        setattr(owner, name, value)
        self.undo.append(lambda: setattr(owner, name, before) if is_own else delattr(owner, name))

    def put_fair(self, unet):
        self.hook(unet, every_row)
        counting = unet.register_forward_pre_hook(lambda module, args: self.rows.append(len(args[0])))
        self.undo.append(counting.remove)

    def put_hook(self, unet):
        self.hook(unet, first_row_only)

    def hook(self, unet, change):
        hook = unet.middle_block.register_forward_hook(lambda module, args, output: change(output))
        self.undo.append(hook.remove)

    def put_in_place(self, unet):
        """Fair, but it writes into what a gradient needs."""
        self.hook(unet, lambda rows: torch.tanh(rows / 1000).mul_(1000))

    def put_without_gradient(self, unet):
        """Fair, but it cuts off the gradient."""
        hook = unet.input_blocks[0].register_forward_hook(lambda module, args, output: output.detach())
        self.undo.append(hook.remove)

    def put_unseen(self, unet):
        """Fair, but it computes the attention's queries by itself."""
        forward = CrossAttention.forward

        def elsewhere(self, x, *args, **kwargs):
            own, self.to_q = self.to_q, Query(self.to_q)
            try:
                return forward(self, x, *args, **kwargs)
            finally:
                self.to_q = own

        self.replace(CrossAttention, "forward", elsewhere)

    def put_error(self, unet):
        def fail(module, args, output):
            raise IndexError("as many rows as I did not expect")

        hook = unet.middle_block.register_forward_hook(fail)
        self.undo.append(hook.remove)

    def put_method(self, unet):
        attention = unet.middle_block[1].transformer_blocks[0].attn1
        forward = attention.forward
        self.replace(attention, "forward", lambda x, *args, **kwargs: first_row_only(forward(x, *args, **kwargs)))

    def put_class(self, unet):
        forward = CrossAttention.forward

        def changed(self, x, *args, **kwargs):
            return first_row_only(forward(self, x, *args, **kwargs))

        self.replace(CrossAttention, "forward", changed)

    def put_module(self, unet):
        block = unet.input_blocks[1]
        unet.input_blocks[1] = Block(*block)
        self.undo.append(lambda: unet.input_blocks.__setitem__(1, block))

    def put_function(self, unet):
        silu = torch.nn.functional.silu
        self.replace(torch.nn.functional, "silu", functools.partial(changed_function, silu))

    def put_model(self, unet):
        model = shared.sd_model
        apply = model.apply_model
        self.replace(model, "apply_model", types.MethodType(
            lambda _, x, *args, **kwargs: first_row_only(apply(x, *args, **kwargs)), model))

    def put_step(self, unet):
        self.replace(CFGDenoiser, "forward", own_step)

    def before_evaluation(self, params) -> None:
        if self.kind == "texts":
            params.text_cond = first_text_only(params.text_cond)
        elif self.kind == "texts_in_place":  # as if none of them were a negative prompt
            text = params.text_cond
            (text["crossattn"] if isinstance(text, dict) else text)[:] *= STRENGTH
        elif self.kind == "latents":
            params.x[:-len(params.text_uncond)] *= STRENGTH
        elif self.kind == "late" and params.sampling_step == 1:
            params.text_cond = first_text_only(params.text_cond)


def changed_function(original, x, *args, **kwargs):
    return first_row_only(original(x, *args, **kwargs)) if x.dim() > 2 else original(x, *args, **kwargs)


def own_step(self, x, sigma, uncond, cond, cond_scale, s_min_uncond, image_cond):
    """A step in the place of the host's, which tells nobody of its rows."""
    parts, texts = prompt_parser.reconstruct_multicond_batch(cond, self.step)
    texts = torch.cat([texts, prompt_parser.reconstruct_cond_batch(uncond, self.step)])
    images = [image for image, rows in enumerate(parts) for _ in rows] + list(range(len(parts)))
    predicted = self.inner_model(x[images], sigma[images],
                                 cond={"c_crossattn": [texts], "c_concat": [image_cond[images]]})
    without = predicted[-len(parts):]
    self.step += 1
    return torch.stack([own + sum(weight * cond_scale * (predicted[row] - own) for row, weight in rows)
                        for own, rows in zip(without, parts)])


def stranger() -> Stranger:
    return next(script for script in scripts.scripts_txt2img.alwayson_scripts if script.title() == "Stranger")


def evaluations() -> dict:
    counted = {"calls": len(stranger().rows), "rows": sum(stranger().rows)}
    stranger().rows.clear()
    return counted


def add_route(_demo, app: FastAPI) -> None:
    app.add_api_route("/probe/evaluations", evaluations, methods=["POST"])


script_callbacks.on_cfg_denoiser(lambda params: stranger().before_evaluation(params))
script_callbacks.on_app_started(add_route)
