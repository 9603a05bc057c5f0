"""Whether sampled Shapley shares of real pictures contain the exact ones as often as they say.

Of six LoRAs all 64 sets are made on the tiny model, so that the exact shares are known; the same pictures then answer
for many draws of orders, as many orders as a report takes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sciart_ext.influence.measures import shares_of_change
from sciart_ext.influence.runs import Run
from sciart_ext.influence.shapley import exact_shares, sampled_shares, sets_of, spread_orders
from sciart_ext.influence.subsets import ORDERS
from sciart_ext.lora.file import load_lora
from sciart_ext.recipe import parse_recipe
from sciart_ext.report.colour import lab
from sciart_ext.standalone.counterfactuals import run_sets
from sciart_ext.standalone.generate import Settings
from sciart_ext.standalone.models import load_pipeline
from sciart_ext.world import MODEL

WEIGHTS = {"child": 0.65, "watercolor": 0.55, "science": 0.5, "red-striped-rocket": 0.8, "yellow-visor-robot": 0.8,
           "ringed-blue-planet": 0.6}
PROMPT = "a red striped rocket and a yellow visor robot in space"
STEPS, FIRST_SEED = 20, 10_000
EVERY_NTH = 7
"""pixel of each row and column"""


def measure(seeds: int, draws: int, batch: int, steps: int = STEPS) -> dict:
    """Share of the draws whose stated interval, of 95 % or more, holds the exact value: of the LoRAs' parts of the
    change, as a report tells them, and of what each adds to pixels' colours; the parts' mean error and half width of
    their intervals; pictures that a draw takes."""
    torch.set_num_threads(1)
    pipe = load_pipeline(MODEL, device="cpu")
    recipe = parse_recipe({"loras": [{"name": name, "weight": weight} for name, weight in WEIGHTS.items()]})
    loras = [load_lora(MODEL / "loras" / f"{name}.safetensors") for name in WEIGHTS]
    parts, pixels, errors, widths, sets = [], [], [], [], []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        runs: dict[int, Run] = {}
        run_sets(pipe, recipe, Settings(PROMPT, steps=steps, seed=seed, cfg_scale=6.0), loras,
                 range(1 << len(WEIGHTS)), runs, batch)
        colours = {one: torch.from_numpy(lab(run.picture))[::EVERY_NTH, ::EVERY_NTH] for one, run in runs.items()}
        change = colours[len(colours) - 1] - colours[0]
        told = {one: shares_of_change(colour - colours[0], change) for one, colour in colours.items()}
        for draw in range(draws):
            orders = spread_orders(len(WEIGHTS), ORDERS, draw)
            held, error, width = _held(told, orders)
            parts.append(held)
            errors.append(error)
            widths.append(width)
            pixels.append(_held(colours, orders)[0])
            sets.append(len(sets_of(orders)))
        print(f"seed {seed}: parts {_mean(parts):.3f}, pixels {_mean(pixels):.3f}", flush=True)
    return {"loras": len(WEIGHTS), "orders": ORDERS, "draws": len(parts), "seeds": seeds,
            "parts_held": round(_mean(parts), 4), "pixels_held": round(_mean(pixels), 4),
            "error_of_parts": round(_mean(errors), 4), "half_width_of_parts": round(_mean(widths), 4),
            "pictures": round(statistics.mean(sets), 1)}


def _held(values: Mapping[int, Tensor], orders: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """The share of these values whose interval holds the exact one, their mean error, the intervals' mean half width.
    """
    found = sampled_shares(values.__getitem__, orders)
    exact = exact_shares(torch.stack([values[one] for one in range(len(values))]))
    error = (found.shares - exact).abs()
    return (error <= found.errors).double().mean(), error.mean(), found.errors.mean()


def _mean(values: list[Tensor]) -> float:
    return float(torch.stack(values).mean())
