"""The mixer: carries out gates on a model, by merged weights or by branches, and leaves the model as it was.

The model's parameters are never written. Merged weights are held beside them and presented only while the
bracketing module is called; hooks are kept by their handles and removed on exit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..memory import free, is_out_of_memory
from ..recipe.layer_factors import varying_factors
from .bracket import Bracket
from .branch import branch_of
from .build import build_layers, build_stacks, levels_of
from .cost import CPU, GPU, Matrix, Workload, choose_merged
from .device import is_gpu, total_memory
from .gate_table import GateTable
from .gates import Gates
from .kept import Room
from .layer import Layer
from .masked_layer import MaskedLayer
from .slot import Slot
from .step_rows import StepRows
from .targets import Target
from .token_gates import RowGates, TokenGates

if TYPE_CHECKING:
    from ..lora.file import LoraFile
    from ..recipe.combining import Combination

MERGED_SHARE = 0.25
"""of the memory that a GPU has beside the model and the LoRAs' factors: what merged weights may take there if there is
no limit. The rest is for what the model computes, the other parts of it, and other programs."""
KEPT_BYTES = 2**30
"""of deltas that are kept where rows differ, if there is no limit"""


class Mixer:
    """LoRAs on one part of a model (its UNet, or one text encoder).

    root: the module whose calls take the rows; layers: its layers by canonical name; blocks: per LoRA, factors of
    its layers (`layer_factors`); memory_limit: bytes of merged weights; prime: for hosts that update weights lazily,
    called with each module before its weight is read, once a pass and whenever `primed_for` gives another value;
    device: where the root is computed, if not where its weights lie now; untouched: a weight as it was before the host
    itself changed it; combination: how the LoRAs are joined in a layer, by default linearly; masked: indices of LoRAs
    that have masks (`token_gates`). Use as a context: within it, `set_gates` decides what the next calls of the root
    see.
    """

    def __init__(self, root: nn.Module, layers: Mapping[str, Target], loras: Sequence[LoraFile],
                 blocks: Sequence[Mapping | Sequence[float]] = (), execution: str = "auto",
                 memory_limit: float | None = None, prime: Callable[[nn.Module], None] | None = None,
                 device: torch.device | None = None, untouched: Callable[[Target], torch.Tensor] | None = None,
                 combination: Combination | None = None, primed_for: Callable[[], Hashable] | None = None,
                 masked: Collection[int] = ()):
        self.root = root
        blocks = list(blocks) or [{}] * len(loras)
        varying = varying_factors(blocks)
        self.count = len(loras) + len(varying)
        self.execution = execution
        self.memory_limit = memory_limit
        self.keeps = False
        """whether merged weights and factors stay on a GPU after a pass"""
        self.merges_ahead = False
        """whether the next step's merged weights are made while a step runs; they take memory twice"""
        self.notes: list[str] = []
        """what of the last choice was not the usual"""
        self._prime = prime
        self._primed_for = primed_for
        self._device = device
        self._levels = levels_of(layers)
        self._room = Room(KEPT_BYTES if memory_limit is None else memory_limit)
        self._with_masks = frozenset([*masked, *(len(loras) + i for i, (k, _) in enumerate(varying) if k in masked)])
        """the gates of LoRAs with masks, which no merged weight has in it"""
        every = build_layers(layers, loras, blocks, varying, untouched, combination, self._room, masked)
        self._layers = [layer for layer in every if not isinstance(layer, MaskedLayer)]
        self._masked_layers = [layer for layer in every if isinstance(layer, MaskedLayer)]
        self._stacks = build_stacks(every, self._levels)
        self._table = GateTable(self._stacks)
        self._read_by_masked = {layer.name for layer in self._masked_layers if layer.reads_weight}
        """layers whose weight must be the model's own while they are called"""
        self._slots: dict[tuple[int, str], Slot] = {}
        for layer in self._layers:
            key = (id(layer.target.module), layer.target.parameter)
            self._slots.setdefault(key, Slot(layer.target)).layers.append(layer)
        self._merged_names = {layer.name for layer in self._layers
                              if (execution != "branch" and self._can_merge(layer)) or not layer.target.can_branch}
        self._brackets: list[Bracket] = []
        self._rows_differ = False
        self._handles: list = []
        self._rows = StepRows(self.count)
        self._coming: Gates | None = None
        """of the next step, where it is known and begun ahead"""
        self._spread: Gates | None = None
        """those that lie before the layers"""

    @property
    def layer_names(self) -> list[str]:
        """The layers that the LoRAs reach."""
        return list(dict.fromkeys(layer.name for layer in (*self._layers, *self._masked_layers)))

    @property
    def merged_names(self) -> set[str]:
        """The layers that are merged; the others branch."""
        return self._merged_names

    def merged_bytes(self) -> int:
        """Memory of the merged weights now held."""
        return sum(slot.nbytes for slot in self._slots.values())

    def touched_bytes(self) -> int:
        """Memory that merged weights take where every layer is merged."""
        weights = [slot.target.weight() for slot in self._slots.values()]
        return sum(weight.numel() * weight.element_size() for weight in weights if weight is not None)

    def _can_merge(self, layer: Layer) -> bool:
        return layer.can_merge and layer.name not in self._read_by_masked

    def choose(self, work: Workload) -> None:
        """Decides for each layer, for the coming pass, whether it is merged or branches."""
        self._require_closed()
        self._rows_differ, self.notes = work.rows_differ or bool(self._with_masks), []
        mergeable = [layer for layer in self._layers if self._can_merge(layer)]
        if self.execution == "auto":
            self._merged_names = self._cheapest(mergeable, work)
        elif self.execution == "merge" and not work.rows_differ:
            self._merged_names = {layer.name for layer in mergeable}
        else:
            self._merged_names = set()
        self._merged_names |= {layer.name for layer in self._layers if not layer.target.can_branch}
        self._make_room()

    def _make_room(self) -> None:
        """A limit is for merged weights and for what is kept to make them, together."""
        if self.memory_limit is not None:
            weights = [slot.target.weight() for slot in self._slots.values()
                       if slot.layers[0].name in self._merged_names]
            merged = sum(weight.numel() * weight.element_size() for weight in weights)
            self._room.limit = max(self.memory_limit - merged, 0)
            if self._room.used > self._room.limit:
                for layer in self._layers:
                    layer.release()

    def _cheapest(self, mergeable: Sequence[Layer], work: Workload) -> set[str]:
        device = self._where()
        rates = GPU if device is not None and is_gpu(device) else CPU
        matrices = {layer.name: Matrix(*layer.matrix_shape, layer.target.weight().element_size(), layer.ranks,
                                       layer.is_dense) for layer in mergeable}
        wanted = choose_merged(matrices, work, self._levels, math.inf, rates)
        chosen = choose_merged(matrices, work, self._levels, self._limit(device), rates)
        if self.memory_limit is None and chosen != wanted:
            self.notes.append(f"{len(chosen)} of {len(self._layers)} layers were merged where {len(wanted)} would be "
                              "with more GPU memory; the others branched")
        return chosen

    def set_gates(self, rows: Sequence[Sequence[float]], coming: Sequence[float] | None = None,
                  views: Sequence[int] = ()) -> None:
        """One gate per LoRA and per factor that varies (`layer_factors.varying_factors`), for each row of the coming
        calls in order, or one row for all rows of all calls. coming: those of all rows of the next step, where known;
        views: of each row, which view of `token_gates` it has, where a LoRA with a mask acts.
        """
        self._rows.set(rows, views)
        self._coming = Gates([tuple(coming)]) if coming is not None and self.merges_ahead else None

    @property
    def token_gates(self) -> TokenGates | None:
        """Of the LoRAs with masks, in the views that `set_gates` is told of; needed wherever they act."""
        return self._rows.token_gates

    @token_gates.setter
    def token_gates(self, token_gates: TokenGates) -> None:
        self._rows.token_gates = token_gates

    @property
    def places(self) -> RowGates | None:
        """Where LoRAs with masks act in the rows of the call that runs."""
        return self._rows.places

    @property
    def rows_called(self) -> int:
        """Rows of the last call of the root."""
        return self._rows.called

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Calls in this context are made as if all gates were 0; afterwards the rows go on where they were."""
        coming, self._coming = self._coming, None
        try:
            with self._rows.silent():
                yield
        finally:
            self._coming = coming

    def __enter__(self) -> Mixer:
        self._require_closed()
        self._handles.append(self.root.register_forward_pre_hook(self._before_root, with_kwargs=True))
        self._brackets = self._bracketed([slot for slot in self._slots.values()
                                          if slot.layers[0].name in self._merged_names])
        for bracket in self._brackets:
            bracket.begin()
            module = bracket.module
            self._handles.append(module.register_forward_pre_hook(self._presenter(bracket)))
            self._handles.append(module.register_forward_hook(bracket.restore, always_call=True))
        self._branch(layer for layer in self._layers if layer.name not in self._merged_names)
        for layer in self._masked_layers:
            self._handles.append(layer.target.module.register_forward_hook(self._masked_brancher(layer)))
        return self

    def _bracketed(self, slots: Sequence[Slot]) -> list[Bracket]:
        """The slots by the module during whose calls they are shown; of the others the merged weights are let go."""
        kept = {id(slot) for slot in slots}
        for slot in self._slots.values():
            if id(slot) not in kept:
                slot.release()
        by_module: dict[int, list[Slot]] = {}
        for slot in slots:
            by_module.setdefault(id(slot.target.bracket), []).append(slot)
        before = {bracket.key: bracket for bracket in self._brackets}
        found = [before.pop(frozenset(map(id, own)), None) or Bracket(own, self._table) for own in by_module.values()]
        for bracket in before.values():
            bracket.release()
        return found

    def _branch(self, layers: Iterable[Layer]) -> None:
        for layer in layers:
            self._handles.append(layer.target.module.register_forward_hook(self._brancher(layer)))

    def __exit__(self, *exception) -> None:
        self.close()

    def close(self) -> None:
        """Takes everything back; closing twice is harmless.

        On a CPU the merged weights are kept for the next use: fresh memory costs more there than the merge itself. On a
        GPU nothing stays, unless `keeps` says so.
        """
        for bracket in self._brackets:
            bracket.restore()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._rows.clear()
        self._spread = self._coming = None
        device = self._where()
        if device is not None and is_gpu(device) and not self.keeps:
            self.release()

    def release(self) -> None:
        """Closes, and lets go of the merged weights too, and of all that lies on a GPU."""
        if self._handles:
            self.close()
        for bracket in self._brackets:
            bracket.release()
        self._brackets = []
        for slot in self._slots.values():
            slot.release()
        for layer in (*self._layers, *self._masked_layers):
            layer.release()
        for stack in self._stacks:
            stack.release()
        self._table.release()

    def _before_root(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if torch.is_grad_enabled():
            self._spread = None  # laid out anew: a gradient keeps the gates that it has seen
        self._rows.begin(args[0] if args else next(iter(kwargs.values())), self._rows_differ)

    def _presenter(self, bracket: Bracket) -> Callable:
        def present(module: nn.Module, args: tuple) -> None:
            gates = self._rows.gates and self._rows.gates.without(self._with_masks)
            if gates is None or gates.uniform is None:
                raise RuntimeError("SciArt: merged layers need the same gates in all rows")
            if self._prime is not None:
                bracket.prime(self._prime, self._primed_for() if self._primed_for else None)
            try:
                self._refresh(bracket, gates)
            except RuntimeError as error:
                if self.execution != "auto" or not is_out_of_memory(error):
                    raise
                self._branch_instead()
                self._refresh(bracket, gates)
            if self._coming is not None and module is self.root:
                self._merge_ahead(bracket)
            bracket.present(gates)
        return present

    def _merge_ahead(self, bracket: Bracket) -> None:
        coming, self._coming = self._coming, None
        device = bracket.device()
        if device is None:
            return
        try:
            bracket.merge_ahead(coming.without(self._with_masks), device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            bracket.forget_ahead()
            self.merges_ahead = False
            self.notes.append("out of GPU memory to merge ahead: each step merged its own weights")

    def _refresh(self, bracket: Bracket, gates: Gates) -> None:
        device = bracket.device()
        if device is not None:
            self._lay_out(device)
            bracket.refresh(gates)

    def _branch_instead(self) -> None:
        """The one step that is taken where memory runs out for merged weights: all layers branch that can."""
        merged = [layer for layer in self._layers if layer.name in self._merged_names and layer.target.can_branch]
        self._merged_names -= {layer.name for layer in merged}
        for bracket in self._brackets:
            bracket.drop(self._merged_names)
        free()
        self._branch(merged)
        self.notes.append("out of GPU memory for merged weights: the layers branched instead")

    def _brancher(self, layer: Layer) -> Callable:
        if layer.is_plain:
            add = branch_of(layer, layer.target.module).add

            def branch(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
                if self._spread is not self._rows.gates:
                    self._lay_out(output.device)
                return add(module, args[0], output)

            return branch

        def branch_all(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
            if layer.is_silent(self._rows.gates):
                return None
            self._lay_out(output.device)
            return layer.add_branch(module, args[0], output, self._rows.gates)

        return branch_all

    def _masked_brancher(self, layer: MaskedLayer) -> Callable:
        def branch(module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor | None:
            if layer.is_silent(self._rows.gates):
                return None
            if self._rows.places is None:
                raise RuntimeError("SciArt: a LoRA with a mask acts, and its mask is not known")
            self._lay_out(output.device)
            return layer.add_masked(module, args[0], output, self._rows.gates, self._rows.places)

        return branch

    def _lay_out(self, device: torch.device) -> None:
        """Puts the gates of the call before the layers, where they do not lie there yet."""
        if self._spread is not self._rows.gates:
            self._table.spread(self._rows.gates, device)
            self._spread = self._rows.gates

    def _where(self) -> torch.device | None:
        weights = (layer.target.weight() for layer in (*self._layers, *self._masked_layers))
        return self._device or next((weight.device for weight in weights if weight is not None), None)

    def _limit(self, device: torch.device | None) -> float:
        """Bytes of merged weights: what the recipe says, or else a share of a GPU's whole memory, by the model and the
        LoRAs alone: what else is free at the moment must not change the picture."""
        if self.memory_limit is not None:
            return self.memory_limit / (2 if self.merges_ahead else 1)
        if device is None or not is_gpu(device):
            return math.inf
        if any(layer.target.bracket is not self.root for layer in (*self._layers, *self._masked_layers)):
            return 0  # parts of the model come to the GPU one by one, for there is no room for more
        model = sum(weight.numel() * weight.element_size() for weight in self.root.parameters())
        factors = sum(stack.nbytes for stack in self._stacks)
        return MERGED_SHARE * max(total_memory(device) - model - factors, 0) / (2 if self.merges_ahead else 1)

    def _require_closed(self) -> None:
        if self._handles:
            raise RuntimeError("SciArt: this mixer is in use; leave its context first")
