"""What SciArt adds to calls of a UNet, counted without a GPU: kernels, launches, waits for the device, bytes.

Two pretended GPUs count (`tests/pretended_gpu`). A hollow one, whose tensors have shapes alone, carries the models at
their full size: what is counted there depends on no number. What may depend on numbers, ways to combine and kinds of
LoRA files, runs on one that computes, at a width that a CPU can do; kernels and waits do not depend on the width.

Every figure is that of a call with LoRAs less that of the same call without. A kernel is an operator that runs on the
device; a launch is a kernel, a part of one that torch cuts up, or a copy between host and device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sciart_ext.lora.file import LoraFile
from sciart_ext.mixer.mixer import Mixer
from tests.lora_kinds import delta_of_kind
from tests.pretended_gpu import Counts, PretendedGpu, moved
from tests.pretended_gpu.hollow import HollowGpu

from ..random_weights import RANK, filled, lora_of, random_lora
from .bench import END, LORAS, PLAIN, SMALL, START, VARIANTS, Bench, Scene, Variant
from .picture import Picture, make
from .stand_ins import combination
from .unet import SD15, UNet

SETTLED = 2
"""calls after which a change of gates costs what every later one does"""
METHODS = ("ties", "dare-linear", "dare-ties", "magnitude-prune", "orthogonal")
KINDS = {"LoHa": "loha", "LoKr": "lokr", "DoRA": "dora by outputs", "OFT": "oft", "GLoRA": "glora", "full": "full"}
"""names of what is counted → `tests/lora_kinds.py`'s"""
NARROW = SD15.narrowed(32, 32)
NARROW_LATENT = 16


def hollow_bench(scene: Scene, rank: int, dtype: torch.dtype = torch.float16,
                 memory_limit: float | None = None) -> Bench:
    """A scene's model in half precision on the hollow GPU, with LoRAs in files of this precision."""
    with torch.device("meta"):
        unet = UNet(scene.topology).half().requires_grad_(False)
    bench = Bench(moved(unet), [], scene.latent, memory_limit)
    bench.loras = [lora_of(str(k), bench.layers, lambda shape, _: torch.zeros(shape, dtype=dtype), rank=rank)
                   for k in range(LORAS)]
    return bench


def count_calls(scene: Scene, report: Callable[[str, object], None]) -> None:
    """Reports each variant's counts at a call whose gates changed, or did not; `first` those of a picture's first."""
    with HollowGpu() as gpu, torch.no_grad():
        bench = hollow_bench(scene, RANK)
        plain = _settled(gpu, bench, PLAIN)[-1]
        first = {}
        for variant in VARIANTS[1:]:
            begins, later = _settled(gpu, bench, variant)
            report(variant.name, _less(later, plain))
            if variant.changing:
                first[variant.name] = {**_less(begins, plain), "crossed_mb": round(begins.crossed / 1e6, 1)}
        report("first_call", first)
        files = hollow_bench(scene, RANK, torch.float32)
        names = ("merge_change", "branch_change", "branch_same", "auto_change")
        report("fp32_files", {variant.name: _less(_settled(gpu, files, variant)[-1], plain)
                              for variant in VARIANTS if variant.name in names})
        report("sets_of_a_step", {name: _counted(gpu, lambda at_once=at_once: bench.sets(1, at_once))
                                  for name, at_once in (("at_once", True), ("one_by_one", False))})
        nothing = _counting(gpu, lambda: make(bench, Picture(0, 1)))
        report("guided_step", {str(count): _less(_counting(gpu, lambda count=count: make(
            bench, Picture(count, 1, boxes=True))), nothing) for count in (2, 3)})
        report("masked_step", {str(count): _less(_counting(gpu, lambda count=count: make(
            bench, Picture(count, 1, boxes=True, compose="masked"))), nothing) for count in (2, 3)})


def count_layers(quick: bool, report: Callable[[str, object], None]) -> None:
    """Reports kernels and waits per layer of a change of gates where all is merged: of each way to combine three LoRAs
    of rank 4, and of one LoRA of each kind, on the layers before the output blocks. quick: of a smaller model. What
    needs a package that is not there says `not_run`."""
    with PretendedGpu() as gpu, torch.no_grad():
        with torch.device("meta"):
            unet = UNet(SMALL["sd15"].topology if quick else NARROW)
        bench = Bench(moved(filled(unet, torch.float16, torch.device("cpu"))), [], NARROW_LATENT)
        layers = {name: target for name, target in bench.layers.items() if "_output_" not in name}
        files = [random_lora(str(k), layers, k, rank=4) for k in range(LORAS)]
        plain = _counting(gpu, bench.call)
        report("combine_per_layer", {method: _per_layer(gpu, bench, plain, files, combination(method))
                                     for method in METHODS})
        kinds = {name: LoraFile(name, files[0].path, name, "SD1", {
            layer: delta_of_kind(kind, delta.shape, number, torch.float16)
            for number, (layer, delta) in enumerate(files[0].layers.items())}) for name, kind in KINDS.items()}
        report("kind_per_layer", {name: _per_layer(gpu, bench, plain, [file]) for name, file in kinds.items()})


def _per_layer(gpu: PretendedGpu, bench: Bench, plain: Counts, files: list[LoraFile],
               combination: object | None = None) -> dict:
    mixer = Mixer(bench.unet, bench.layers, files, execution="merge", combination=combination)
    try:
        mixer.choose(bench.workload(changing=True))
        with mixer:
            for weight in (START, END):
                mixer.set_gates([[weight + 0.1 * k for k in range(len(files))]])
                counts = _counting(gpu, bench.call)
    except ModuleNotFoundError as error:
        return {"not_run": f"needs {error.name}"}
    finally:
        mixer.release()
    count = len(mixer.layer_names)
    return {"kernels": round((counts.kernels.total() - plain.kernels.total()) / count, 2),
            "waits": round((counts.waits.total() - plain.waits.total()) / count, 2),
            "crossed_kb": round(counts.crossed / count / 1e3, 2)}


def _settled(gpu: PretendedGpu, bench: Bench, variant: Variant) -> tuple[Counts, Counts]:
    """Counts of the first call, and of a later one."""
    with bench.acting(variant, SETTLED + 1) as step:
        made = [_counting(gpu, lambda number=number: step(number)) for number in range(SETTLED + 1)]
    return made[0], made[-1]


def _counting(gpu: PretendedGpu, run: Callable[[], object]) -> Counts:
    with gpu.counting() as counts:
        run()
    return counts


def _counted(gpu: PretendedGpu, run: Callable[[], object]) -> dict:
    return _less(_counting(gpu, run), Counts())


def _less(counts: Counts, plain: Counts) -> dict:
    return {"kernels": counts.kernels.total() - plain.kernels.total(), "launches": counts.launches - plain.launches,
            "waits": counts.waits.total() - plain.waits.total(), "gb": round((counts.bytes - plain.bytes) / 1e9, 2)}
