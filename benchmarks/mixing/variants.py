"""What is compared: one picture, with LoRAs that are carried out in different ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

START, END = 0.2, 0.65
COUNTS = (1, 2, 4, 8, 16)
LIMIT_MB = 200.0


@dataclass(frozen=True)
class Variant:
    """`how`: none, host (`<lora:…>` in the prompt), ours (a recipe), loractl (its own prompt syntax)."""

    name: str
    how: str = "none"
    loras: tuple[str, ...] = ()
    changing: bool = False
    execution: str = "auto"
    memory_limit_mb: float | None = None

    @property
    def weights(self) -> tuple[float, float]:
        """First and last weight of each LoRA; many LoRAs share what three have: pictures stay finite."""
        share = min(1.0, 3 / max(len(self.loras), 1))
        return (round((START if self.changing else END) * share, 4), round(END * share, 4))

    def recipe(self) -> dict:
        """The recipe of a variant of ours."""
        start, end = self.weights
        weights = {"schedule": [[0, start], [1, end]]} if self.changing else {"weight": end}
        recipe = {"loras": [{"name": name, **weights} for name in self.loras], "execution": self.execution}
        if self.memory_limit_mb is not None:
            recipe["memory_limit_mb"] = self.memory_limit_mb
        return recipe

    def prompt_tags(self, steps: int) -> str:
        """What the host's own and loractl's LoRAs add to the prompt of a picture of so many steps.

        loractl takes positions above 1 as steps; as fractions it divides by zero in pictures of two steps. It
        reads the host's count of finished steps, so that the first two steps of its pictures have one weight.
        """
        start, end = self.weights
        if self.how == "host":
            return "".join(f"<lora:{name}:{end}>" for name in self.loras)
        if self.how == "loractl":
            return "".join(f"<lora:{name}:{start}@0,{end}@{max(steps - 1, 2)}>" for name in self.loras)
        return ""


NONE = Variant("none")


def timed_variants(loras: Sequence[str], with_host: bool, with_loractl: bool) -> list[Variant]:
    """The variants of every round; the first, without LoRAs, is what the others are compared to."""
    loras = tuple(loras)
    variants = [NONE]
    if with_host:
        variants.append(Variant("host_constant", "host", loras))
    variants += [Variant("ours_constant", "ours", loras), Variant("ours_changing", "ours", loras, True)]
    if with_loractl:
        variants.append(Variant("loractl_changing", "loractl", loras, True))
    return variants


def counted_variants(names: Sequence[str]) -> list[Variant]:
    """Ours, changing, with ever more LoRAs; `names` are as many as the largest count."""
    return [Variant(f"ours_{count}", "ours", tuple(names[:count]), True) for count in COUNTS]


def memory_variants(loras: Sequence[str], with_host: bool, with_loractl: bool) -> list[Variant]:
    """Ours, changing, in each way of execution, beside the host's own and loractl's."""
    loras = tuple(loras)
    variants = [
        Variant(execution, "ours", loras, True, execution) for execution in ("merge", "branch", "auto")
    ]
    variants.append(Variant(f"auto_{LIMIT_MB:.0f}mb", "ours", loras, True, memory_limit_mb=LIMIT_MB))
    if with_host:
        variants.append(Variant("host_constant", "host", loras))
    if with_loractl:
        variants.append(Variant("loractl_changing", "loractl", loras, True))
    return variants
