"""LoRAs with masks in one row: what each place of the picture has of them, and what it reads.

Where a subject is, its LoRA acts and the cross-attention reads the prompt about this subject alone, as in a row of its
own (`words.own_prompt`); where none is, the mixture's prompt. In a region that was given its LoRA acts, and the prompt
is read as this LoRA encodes it. The texts lie one after another in the row's context, the mixture's first; each
attention reads them one by one, a subject's at its places alone. For a place that belongs to one subject alone this is
the attention that such a row has there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from ..compose.by_region import region_weights
from ..errors import UnseenAttentionError
from ..mixer.build import levels_of
from ..mixer.cost import place_of
from ..mixer.gates import sent
from ..mixer.token_gates import TokenGates

if TYPE_CHECKING:
    from ..mixer.mixer import Mixer
    from ..mixer.targets import Target
    from ..recipe import PassPlan

CONTEXTS = ("context", "encoder_hidden_states")
"""how the LDM code and diffusers name what a cross-attention reads"""
IN_UNET, IN_ATTENTION = 2, 1
"""its place among the arguments that have no names"""


def token_gates(plan: PassPlan, masks: Tensor) -> TokenGates:
    """Of a batch: masks bool (images, subjects, h, w); its views are the images."""
    return TokenGates(plan.masked, masks, has_texts=True)


def region_gates(plan: PassPlan, feather: float, size: tuple[int, int], device: torch.device) -> TokenGates:
    """Of compose regions in one row, on latents of this size: the same in every view. feather: `region.feathered`'s.

    A place has as much of each LoRA, and of each text, as the predictions of regions with rows of their own count there
    (`ByRegion`): of first order in the LoRAs' weights both are the same where regions are the same all over a picture.
    """
    weights = region_weights([plan.loras[k].region for k in plan.masked], size, feather)
    return TokenGates(plan.masked, sent(weights[None, 1:], device), has_texts=True)


class Watching(Protocol):
    """What records attention, and can be told not to."""

    def looking_away(self) -> AbstractContextManager: ...


class OwnTexts:
    """Has every cross-attention of a UNet read the texts of a row one by one while in context.

    Hooks alone: the UNet is called with the first text, so that what else reads its context, such as a ControlNet, sees
    the mixture's as in any picture; each attention is called once more for each other one, whatever computes it. Enter
    it after the mixer. layers: the UNet's, by canonical name; watching: what records attention, of the mixture's text
    alone. A call of the UNet in which attentions are otherwise called than once, with this text of all rows, ends in an
    `UnseenAttentionError`.
    """

    def __init__(self, mixer: Mixer, layers: Mapping[str, Target], watching: Sequence[Watching] = ()):
        self._mixer = mixer
        self._watching = watching
        self._handles: list = []
        self._others: Tensor | None = None
        """(rows, texts, tokens, width): all but the first, of the call that runs"""
        self._unread: set[nn.Module] = set()
        """attentions that have not been called in the call that runs"""
        levels = levels_of(layers)
        queries = {id(target.module): place_of(name, levels) for name, target in layers.items()
                   if name.endswith("attn2_to_q")}
        self._attentions = {module: queries[id(module.to_q)] for module in mixer.root.modules()
                            if id(getattr(module, "to_q", None)) in queries}
        """with the halvings of the latents' grid that each has"""

    def __enter__(self) -> OwnTexts:
        root = self._mixer.root
        self._handles = [root.register_forward_pre_hook(self._begin, with_kwargs=True),
                         root.register_forward_hook(self._end)]
        for attention in self._attentions:
            self._handles += [attention.register_forward_pre_hook(self._check, with_kwargs=True),
                              attention.register_forward_hook(self._read_others, with_kwargs=True)]
        return self

    def __exit__(self, *exception) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._others, self._unread = None, set()

    def _begin(self, root: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        places, self._others, self._unread = self._mixer.places, None, set()
        if places is None or places.texts == 1:
            return None
        whole = _context_of(args, kwargs, IN_UNET)
        marks = whole.shape[1] % places.texts  # tokens before the first text that an extension knows its rows by
        self._others = whole[:, marks:].unflatten(1, (places.texts, -1))[:, 1:]
        self._unread = set(self._attentions)
        places.read(0)
        return _with_context(args, kwargs, IN_UNET, whole[:, :marks + self._others.shape[2]])

    def _check(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self._others is None:
            return
        context = _context_of(args, kwargs, IN_ATTENTION)
        rows, _, tokens, _ = self._others.shape
        if module not in self._unread or context is None or tuple(context.shape[:2]) != (rows, tokens):
            raise UnseenAttentionError("SciArt: a cross-attention was called twice, or with another text than that of "
                                       "each row; another extension changes what it reads")
        self._unread.discard(module)

    def _read_others(self, module: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor | None:
        if self._others is None:
            return None
        places, place, hidden = self._mixer.places, self._attentions[module], args[0]
        joined = output * places.shares(place, output)[0]
        with ExitStack() as stack:
            stack.callback(places.read, 0)
            for one in self._watching:
                stack.enter_context(one.looking_away())
            for number, text in enumerate(self._others.unbind(1), start=1):
                found = places.readers(number, place, output)
                if found is None:
                    continue
                readers, share = found
                places.read(number, readers)
                at = readers.unsqueeze(2).expand(len(hidden), -1, hidden.shape[2])
                given, named = _with_context((hidden.gather(1, at), *args[1:]), kwargs, IN_ATTENTION, text)
                joined.scatter_add_(1, at, module.forward(*given, **named) * share)
        return joined

    def _end(self, *_) -> None:
        others, self._others = self._others, None
        if others is not None and self._unread:
            raise UnseenAttentionError(f"SciArt: {len(self._unread)} cross-attentions did not read the texts of their "
                                       "rows; another extension computes them elsewhere")


def _context_of(args: tuple, kwargs: dict, place: int) -> Tensor | None:
    named = next((kwargs[name] for name in CONTEXTS if name in kwargs), None)
    return args[place] if len(args) > place else named


def _with_context(args: tuple, kwargs: dict, place: int, context: Tensor) -> tuple[tuple, dict]:
    if len(args) > place:
        return (*args[:place], context, *args[place + 1:]), kwargs
    return args, {**kwargs, next(name for name in CONTEXTS if name in kwargs): context}
