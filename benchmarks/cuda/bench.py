"""What is measured: a UNet of full size, three LoRAs on it, and the ways to have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.cost import Workload
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import ldm_unet_layers

from .unet import SD15, SDXL, Topology

LORAS = 3
ROWS = 2
"""of a plain picture: the prompt's and the negative prompt's"""
TOKENS = 77
START, END = 0.2, 0.65
"""weights between which those that change go"""
STEPS = 20
"""of the pictures for which each layer's way is chosen"""


@dataclass(frozen=True)
class Scene:
    """A model, and the side of the pictures it makes."""

    topology: Topology
    side: int

    @property
    def latent(self) -> int:
        return self.side // 8


SCENES = {"sd15": Scene(SD15, 512), "sdxl": Scene(SDXL, 1024)}
"""by the names that options and results use"""
_FEW = {"multipliers": (1, 2), "depths": (0, 1), "blocks": 1}
SMALL = {"sd15": Scene(replace(SD15.narrowed(32, 32), **_FEW), 128),
         "sdxl": Scene(replace(SDXL.narrowed(32, 32), **_FEW, middle_depth=1), 128)}
"""the same with few and narrow layers, one block at each of two levels, for a short look"""


@dataclass(frozen=True)
class Variant:
    """One way to have the LoRAs. execution: the mixer's, "" for none; changing: whether their weights are others at
    each step; rows_differ: whether they act in the prompt's row alone."""

    name: str
    execution: str = ""
    changing: bool = False
    rows_differ: bool = False

    def gates(self, step: int, steps: int) -> list[list[float]]:
        """Of the rows at a step."""
        weight = START + (END - START) * step / max(steps - 1, 1) if self.changing else END
        return [[weight] * LORAS, [0.0] * LORAS] if self.rows_differ else [[weight] * LORAS]


PLAIN = Variant("plain")
VARIANTS = (
    PLAIN, Variant("merge_same", "merge"), Variant("merge_change", "merge", True), Variant("branch_same", "branch"),
    Variant("branch_change", "branch", True), Variant("auto_same", "auto"), Variant("auto_change", "auto", True),
    Variant("rows_differ", "auto", True, True),
)


def work(latent: int, steps: int, changing: bool, rows: int, rows_differ: bool) -> Workload:
    return Workload(steps, steps if changing else 1, rows, latent, latent, rows_differ=rows_differ)


class Bench:
    """A UNet on its device, LoRAs for it, and inputs of the right shapes. memory_limit: the mixers', in bytes."""

    def __init__(self, unet: nn.Module, loras: Sequence[LoraFile], latent: int, memory_limit: float | None = None):
        weight = next(unet.parameters())
        self.unet, self.loras, self.latent, self.memory_limit = unet, loras, latent, memory_limit
        self.device, self.dtype = weight.device, weight.dtype
        self.layers = ldm_unet_layers(unet)
        generator = torch.Generator().manual_seed(1)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(self.device, self.dtype)

        topology = unet.topology
        self.noise = drawn(1, 4, latent, latent)
        self.text = drawn(ROWS + LORAS, TOKENS, topology.context)
        self.label = drawn(1, topology.label) if topology.label else None
        self.time = torch.full((1,), 500, device=self.device)

    def call(self, rows: int = ROWS) -> Tensor:
        """One evaluation of so many rows."""
        return self.evaluate(self.noise.expand(rows, -1, -1, -1), self.time.expand(rows),
                             self.text[:1].repeat(rows, 1, 1))

    def evaluate(self, x: Tensor, times: Tensor, text: Tensor) -> Tensor:
        label = None if self.label is None else self.label.expand(len(x), -1)
        return self.unet(x, times, text, label)

    def workload(self, steps: int = STEPS, changing: bool = False, rows: int = ROWS, rows_differ: bool = False,
                 ) -> Workload:
        return work(self.latent, steps, changing, rows, rows_differ)

    def mixer(self, execution: str, loras: Sequence[LoraFile] | None = None, masked: Sequence[int] = ()) -> Mixer:
        """masked: indices of the LoRAs that have masks."""
        return Mixer(self.unet, self.layers, self.loras if loras is None else loras, execution=execution,
                     memory_limit=self.memory_limit, masked=masked)

    @contextmanager
    def acting(self, variant: Variant, steps: int) -> Iterator[Callable[[int], Tensor]]:
        """A function that makes step n (from 0) of so many, the LoRAs acting; afterwards nothing is left of them."""
        if not variant.execution:
            yield lambda step: self.call()
            return
        mixer = self.mixer(variant.execution)
        try:
            mixer.choose(self.workload(changing=variant.changing, rows_differ=variant.rows_differ))
            with mixer:
                def make(step: int) -> Tensor:
                    mixer.set_gates(variant.gates(step, steps))
                    return self.call()
                yield make
        finally:
            mixer.release()

    def sets(self, steps: int, at_once: bool) -> Tensor:
        """The counterfactuals of all sets of the LoRAs: pictures of so many steps of all at once, or one by one.
        Returns the last evaluations (sets, 4, h, w) of the prompt's rows."""
        gates = [[END * (one >> k & 1) for k in range(len(self.loras))] for one in range(2**len(self.loras))]
        mixer, made = self.mixer("auto"), []
        try:
            for batch in [gates] if at_once else [[one] for one in gates]:
                rows = batch * ROWS  # all images' prompts, then their negative prompts
                mixer.choose(self.workload(steps, rows=len(rows), rows_differ=len(batch) > 1))
                with mixer:
                    for _ in range(steps):
                        mixer.set_gates(rows)
                        found = self.call(len(rows))
                made.append(found[:len(batch)])
        finally:
            mixer.release()
        return torch.cat(made)
