"""Cross-attention maps of a UNet, taken by hooks: under every attention optimisation, with or without gradient.

Queries and keys are read where they are made, at the outputs of `attn2.to_q` and `attn2.to_k`, which the LDM code and
diffusers name alike; what computes attention from them does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UnseenAttentionError
from ..lora.names import level_of
from ..mixer.product import unrounded
from ..mixer.targets import Target

LEVEL = 2
"""halvings of the latent's grid where maps are taken: 1/32 of the picture's side, 16 × 16 at 512²"""


class EnoughSeen(Exception):
    """Ends a forward of which nothing more is needed."""


@dataclass(frozen=True)
class _Layer:
    attention: nn.Module
    transformer: nn.Module
    """holds the attention; its input has the grid"""


class AttentionMaps:
    """Records cross-attention probabilities while in context; enter it after the mixer, whose deltas it then sees.

    root: the UNet; layers: its layers by canonical name; level: halvings of the latent's grid, or the most that the
    UNet attends at.
    """

    def __init__(self, root: nn.Module, layers: Mapping[str, Target], level: int = LEVEL):
        self.root = root
        self._layers = _attending(root, layers, level)
        self._handles: list = []
        self._grid: tuple[int, int] = (0, 0)
        self._query: Tensor | None = None
        self._sum: Tensor | float = 0.0
        self._calls: list[Tensor] = []
        self._wanted = 0
        self._stop = False

    def __enter__(self) -> AttentionMaps:
        for layer in self._layers:
            self._handles += [
                layer.transformer.register_forward_pre_hook(self._note_grid),
                layer.attention.to_q.register_forward_hook(self._keep_query),
                layer.attention.to_k.register_forward_hook(self._attend(layer)),
            ]
        return self

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.record(0)

    def record(self, rows: int) -> None:
        """Forgets what was recorded, and records the next so many rows, of one call or of several."""
        self._query, self._sum, self._calls, self._wanted = None, 0.0, [], rows

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """Calls in this context are not recorded, nor counted."""
        wanted, self._wanted = self._wanted, 0
        try:
            yield
        finally:
            self._wanted = wanted

    def maps(self) -> Tensor:
        """(rows, h, w, tokens), float32: means over heads and layers."""
        if self._wanted or not self._calls:
            raise self._unseen()
        return torch.cat(self._calls).unflatten(1, self._grid)

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """A forward in this context ends after the last layer that is recorded: what it would return is not needed."""
        self._stop = True
        try:
            yield
        except EnoughSeen:
            pass
        finally:
            self._stop = False

    def _unseen(self) -> UnseenAttentionError:
        return UnseenAttentionError(f"SciArt: cross-attention of {self._wanted} rows was not seen; another extension "
                                    "computes it elsewhere")

    def _note_grid(self, transformer: nn.Module, args: tuple) -> None:
        self._grid = tuple(args[0].shape[-2:])

    def _keep_query(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self._query = output

    def _attend(self, layer: _Layer):
        first, last = layer is self._layers[0], layer is self._layers[-1]

        def attend(module: nn.Module, args: tuple, output: Tensor) -> None:
            if not self._wanted:
                return
            if self._query is None:
                raise self._unseen()
            query, key = self._query[:self._wanted], output[:self._wanted]
            self._query = None  # the next layer's keys need their own
            found = probabilities(query, key, layer.attention.heads, layer.attention.scale)
            self._sum = found if first else self._sum + found
            if last:
                self._calls.append(self._sum / len(self._layers))
                self._wanted -= len(self._sum)
                self._sum = 0.0
                if self._stop and not self._wanted:
                    raise EnoughSeen
        return attend


def probabilities(queries: Tensor, keys: Tensor, heads: int, scale: float) -> Tensor:
    """(rows, pixels, heads × d) and (rows, tokens, heads × d) → (rows, pixels, tokens), float32, mean over heads."""
    with unrounded(queries.device):
        q = queries.float().unflatten(-1, (heads, -1)).transpose(1, 2)
        k = keys.float().unflatten(-1, (heads, -1)).transpose(1, 2)
        return (q @ k.transpose(-1, -2) * scale).softmax(-1).mean(1)


def attention_levels(layers: Mapping[str, Target]) -> tuple[int, ...]:
    """Halvings of the latent's grid at which a UNet has cross-attention. Raises ValueError where it has none."""
    return tuple(sorted(set(_query_levels(layers).values())))


def _query_levels(layers: Mapping[str, Target]) -> dict[str, int]:
    """The level of each cross-attention, by the name of its queries' layer."""
    levels = max((int(number) for name in layers for number in re.findall(r"unet_input_blocks_(\d+)_", name)),
                 default=0) // 3 + 1
    found = {name: level_of(name, levels) for name in layers if name.endswith("attn2_to_q")}
    if not found:
        raise ValueError("the UNet has no cross-attention layers")
    return found


def _attending(root: nn.Module, layers: Mapping[str, Target], level: int) -> list[_Layer]:
    """The cross-attention layers of the level, in the order of their calls."""
    levels = _query_levels(layers)
    level = min(level, max(levels.values()))
    chosen = sorted((name for name, its in levels.items() if its == level), key=_order)
    attentions = {id(module.to_q): module for module in root.modules() if hasattr(module, "to_q")}
    transformers = {id(inner): module for module in root.modules() if hasattr(module, "transformer_blocks")
                    for inner in module.modules()}
    queries = [layers[name].module for name in chosen]
    return [_Layer(attentions[id(query)], transformers[id(query)]) for query in queries]


def _order(name: str) -> tuple[int, ...]:
    """Input blocks, middle, output blocks; by the numbers in the name."""
    side = next(i for i, part in enumerate(("_input_", "_middle_", "_output_")) if part in name)
    return side, *map(int, re.findall(r"\d+", name))
