"""The mixer: carries out gates on a model, by merged weights or by branches, and leaves the model as it was.

The model's parameters are never written. Merged weights are held beside them and presented only while the
bracketing module is called; hooks are kept by their handles and removed on exit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import UnknownRowsError
from ..layer_factors import Factor, LayerFactors, varying_factors
from ..lora.kinds import BIAS
from .combined import combined_layer
from .cost import Workload, choose_merged
from .fit import shape_delta
from .kept import Room
from .layer import Layer, merge
from .slot import Slot
from .targets import Target

if TYPE_CHECKING:
    from ..combine.settings import Combination
    from ..lora.file import LoraFile

FREE_MEMORY_SHARE = 0.25
KEPT_BYTES = 2**30
"""of deltas that are kept where rows differ, if there is no limit"""


class Mixer:
    """LoRAs on one part of a model (its UNet, or one text encoder).

    root: the module whose calls take the rows; layers: its layers by canonical name; blocks: per LoRA, factors of
    its layers (`layer_factors`); memory_limit: bytes of merged weights; prime: called with each module before its
    weight is read, for hosts that update weights lazily; device: where the root is computed, if not where its
    weights lie now; untouched: a weight as it was before the host itself changed it; combination: how the LoRAs are
    joined in a layer, by default linearly. Use as a context: within it, `set_gates` decides what the next calls of the
    root see.
    """

    def __init__(self, root: nn.Module, layers: Mapping[str, Target], loras: Sequence[LoraFile],
                 blocks: Sequence[Mapping | Sequence[float]] = (), execution: str = "auto",
                 memory_limit: float | None = None, prime: Callable[[nn.Module], None] | None = None,
                 device: torch.device | None = None, untouched: Callable[[Target], torch.Tensor] | None = None,
                 combination: Combination | None = None):
        self.root = root
        blocks = list(blocks) or [{}] * len(loras)
        varying = varying_factors(blocks)
        self.count = len(loras) + len(varying)
        self.execution = execution
        self.memory_limit = memory_limit
        self._prime = prime
        self._device = device
        self._levels = _levels(layers)
        self._layers = _build_layers(layers, loras, blocks, varying, untouched, combination,
                                     Room(KEPT_BYTES if memory_limit is None else memory_limit))
        self._slots: dict[tuple[int, str], Slot] = {}
        for layer in self._layers:
            key = (id(layer.target.module), layer.target.parameter)
            self._slots.setdefault(key, Slot(layer.target)).layers.append(layer)
        self._merged_names = {layer.name for layer in self._layers
                              if (execution != "branch" and layer.can_merge) or not layer.target.can_branch}
        self._rows_differ = False
        self._handles: list = []
        self._rows: list[tuple[float, ...]] = []
        self._rows_now: list[tuple[float, ...]] = []
        self._cursor = 0
        self.rows_called = 0
        """rows of the last call of the root"""
        self._uniform: tuple[float, ...] | None = None
        self._weights: torch.Tensor | None = None
        self._told: torch.Tensor | None = None

    @property
    def layer_names(self) -> list[str]:
        """The layers that the LoRAs reach."""
        return [layer.name for layer in self._layers]

    @property
    def merged_names(self) -> set[str]:
        """The layers that are merged; the others branch."""
        return self._merged_names

    def merged_bytes(self) -> int:
        """Memory of the merged weights now held."""
        return sum(slot.merged.numel() * slot.merged.element_size() for slot in self._slots.values()
                   if slot.merged is not None)

    def touched_bytes(self) -> int:
        """Memory that merged weights take where every layer is merged."""
        weights = [slot.target.weight() for slot in self._slots.values()]
        return sum(weight.numel() * weight.element_size() for weight in weights if weight is not None)

    def choose(self, work: Workload) -> None:
        """Decides for each layer, for the coming pass, whether it is merged or branches."""
        self._require_closed()
        self._rows_differ = work.rows_differ
        shapes = {layer.name: (*layer.matrix_shape, layer.target.weight().element_size())
                  for layer in self._layers if layer.can_merge}
        if self.execution == "auto":
            self._merged_names = choose_merged(shapes, work, self._levels, self._limit(),
                                               {layer.name for layer in self._layers if layer.is_dense})
        elif self.execution == "merge" and not work.rows_differ:
            self._merged_names = set(shapes)
        else:
            self._merged_names = set()
        self._merged_names |= {layer.name for layer in self._layers if not layer.target.can_branch}

    def set_gates(self, rows: Sequence[Sequence[float]]) -> None:
        """One gate per LoRA and per factor that varies (`layer_factors.varying_factors`), for each row of the coming
        calls in order, or one row for all rows of all calls."""
        rows = [tuple(float(gate) for gate in row) for row in rows]
        if not rows or any(len(row) != self.count for row in rows):
            raise ValueError(f"expected rows of {self.count} gates, got {rows!r}")
        if any(not math.isfinite(gate) for row in rows for gate in row):
            raise ValueError(f"gates must be finite, got {rows!r}")
        if len(set(rows)) == 1:
            rows = rows[:1]
        self._cursor = 0
        if rows != self._rows:
            self._rows = rows
            self._use(rows[:1] if len(rows) == 1 else [])

    def __enter__(self) -> Mixer:
        self._require_closed()
        self._handles.append(self.root.register_forward_pre_hook(self._before_root, with_kwargs=True))
        brackets: dict[int, tuple[nn.Module, list[Slot]]] = {}
        for slot in self._slots.values():
            if slot.layers[0].name not in self._merged_names:
                slot.release()
            else:
                brackets.setdefault(id(slot.target.bracket), (slot.target.bracket, []))[1].append(slot)
        for module, slots in brackets.values():
            self._handles.append(module.register_forward_pre_hook(self._presenter(slots)))
            self._handles.append(module.register_forward_hook(_restorer(slots), always_call=True))
        for layer in self._layers:
            if layer.name not in self._merged_names:
                self._handles.append(layer.target.module.register_forward_hook(self._brancher(layer)))
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Takes everything back; closing twice is harmless.

        On a CPU the merged weights are kept for the next use: fresh memory costs more there than the merge itself.
        """
        for slot in self._slots.values():
            slot.restore()
            if slot.merged is not None and slot.merged.device.type != "cpu":
                slot.release()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._rows, self._rows_now, self._uniform, self._weights, self._told = [], [], None, None, None

    def release(self) -> None:
        """Closes, and lets go of the merged weights too."""
        self.close()
        for slot in self._slots.values():
            slot.release()
        for layer in self._layers:
            layer.release()

    def _use(self, rows: list[tuple[float, ...]]) -> None:
        if rows == self._rows_now:
            return
        self._rows_now = rows
        self._uniform = rows[0] if len(set(rows)) == 1 else None
        self._weights = self._told = torch.tensor(rows) if rows else None

    def _before_root(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not self._rows:
            raise RuntimeError("SciArt: the model was called before its gates were set")
        count = self.rows_called = len(args[0] if args else next(iter(kwargs.values())))
        if len(self._rows) == 1:
            return
        rows = self._rows[self._cursor:self._cursor + count]
        self._cursor += count
        if len(rows) < count:
            raise UnknownRowsError(f"SciArt: the UNet was called with {self._cursor} rows in a step of "
                                   f"{len(self._rows)}; another extension evaluates it, and whose prompt its rows "
                                   "belong to is not known")
        if not self._rows_differ and len(set(rows)) > 1:
            raise RuntimeError("SciArt: gates differ between rows, which this pass was not prepared for")
        self._use(rows[:1] if len(set(rows)) == 1 else rows)

    def _presenter(self, slots: list[Slot]) -> Callable:
        def present(module: nn.Module, args: tuple) -> None:
            if self._uniform is None:
                raise RuntimeError("SciArt: merged layers need the same gates in all rows")
            active = [slot for slot in slots if slot.active(self._uniform)]
            self._refresh(active)
            for slot in active:
                slot.present()
        return present

    def _brancher(self, layer: Layer) -> Callable:
        def branch(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
            if self._uniform is not None and not any(self._uniform[k] for k in layer.loras):
                return None
            if self._weights.device != output.device:
                self._weights = self._weights.to(output.device)
            return layer.add_branch(module, args[0], output, self._weights, self._told)
        return branch

    @torch.no_grad()
    def _refresh(self, slots: list[Slot]) -> None:
        """Rebuilds the merged weights whose gates, or whose own weight in the model, have changed."""
        stale: dict[tuple, list[Slot]] = {}
        for slot in slots:
            if self._prime is not None:
                self._prime(slot.target.updated_by)
            if not slot.is_current(self._uniform):
                signature = slot.layers[0].signature if slot.target.rows is None else (id(slot),)
                stale.setdefault(signature, []).append(slot)
        for group in stale.values():
            self._rebuild(group)

    def _rebuild(self, slots: list[Slot]) -> None:
        first = slots[0].target.weight()
        dense = any(layer.is_dense for slot in slots for layer in slot.layers)
        weights = torch.tensor([self._uniform], device="cpu" if dense else first.device)
        for slot in slots:
            for layer in slot.layers:
                layer.move(first.device)
            if slot.merged is None or slot.merged.device != first.device or slot.merged.dtype != first.dtype:
                # contiguous also where the host keeps its own weights channels last
                empty = torch.empty_like(slot.target.weight(), memory_format=torch.contiguous_format)
                slot.merged = nn.Parameter(empty, requires_grad=False)
            slot.mark_stale()
        if slots[0].target.rows is not None:
            slot = slots[0]
            slot.merged.copy_(slot.target.weight())
            for layer in slot.layers:
                part = slot.merged[layer.target.rows]
                merge([layer], [part.clone()], part[None], weights)
        else:
            shape = slots[0].layers[0].matrix_shape
            merge([slot.layers[0] for slot in slots], [slot.target.weight() for slot in slots],
                  [slot.merged.view(shape) for slot in slots], weights)
        for slot in slots:
            slot.mark_current(self._uniform)

    def _where(self) -> torch.device | None:
        weights = (layer.target.weight() for layer in self._layers)
        return self._device or next((weight.device for weight in weights if weight is not None), None)

    def _limit(self) -> float:
        if self.memory_limit is not None:
            return self.memory_limit
        device = self._where()
        if device is None or device.type != "cuda":
            return math.inf
        free, _ = torch.cuda.mem_get_info(device)
        return free * FREE_MEMORY_SHARE

    def _require_closed(self) -> None:
        if self._handles:
            raise RuntimeError("SciArt: this mixer is in use; leave its context first")


def _restorer(slots: list[Slot]) -> Callable:
    def restore(module: nn.Module, args: tuple, output: object) -> None:
        for slot in slots:
            slot.restore()
    return restore


def _build_layers(targets: Mapping[str, Target], loras: Sequence[LoraFile],
                  blocks: Sequence[Mapping | Sequence[float]], varying: Sequence[tuple[int, Factor]],
                  untouched: Callable[[Target], torch.Tensor] | None, combination: Combination | None,
                  room: Room) -> list[Layer]:
    layers, factors = [], [LayerFactors(one) for one in blocks]
    gates = {(k, factor.schedules): number for number, (k, factor) in enumerate(varying, start=len(loras))}
    for weight_name, weight_target in targets.items():
        for name, target in ((weight_name, weight_target), (weight_name + BIAS, weight_target.bias())):
            deltas, block_factors, stems = {}, {}, {}
            for k, lora in enumerate(loras):
                factor = factors[k].of(weight_name)
                if name in lora.layers and factor.constant:
                    gate = gates.get((k, factor.schedules), k)
                    deltas[gate] = shape_delta(lora.layers[name], target)
                    block_factors[gate], stems[gate] = factor.constant, lora.path.stem
                    if deltas[gate] is None:
                        raise ValueError(f"{lora.path.name}: {name} does not fit; check_fit tells before")
            if deltas and combination is None:
                layers.append(Layer(name, target, deltas, block_factors, untouched))
            elif deltas:
                layers.append(combined_layer(name, target, deltas, block_factors, combination, stems, room, untouched))
    return layers


def _levels(names: Iterable[str]) -> int:
    """How many grid sizes the UNet has, from the highest number among its input blocks."""
    numbers = [int(name.split("_")[3]) for name in names if name.startswith("unet_input_blocks_")]
    return max(numbers, default=0) // 3 + 1
