"""Whether LoRAs do on a device what they stand for: that of dense weights in double precision on the CPU.

Each check makes something small, computes it on the device in both executions, and compares. Nothing but torch is
needed; `tests/` says more, where pytest and its libraries are.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.kinds import BIAS
from sciart_ext.mixer.mixer import Mixer
from sciart_ext.mixer.targets import Target
from tests.lora_kinds import MATRICES, bias_delta, delta_of_kind, norm_delta

from ..random_weights import filled, random_lora
from .bench import LORAS, PLAIN, SMALL, Bench, Variant, work
from .layers import LAYERS, NORMS, Sample
from .picture import Picture, make
from .stand_ins import combination
from .unet import UNet

TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""of an output's largest number"""
EXECUTIONS = ("merge", "branch")
GATES = ((0.7, -0.3, 0.5), (0.2, 0.9, 0.0), (0.0, 0.0, 0.0), (0.4, 0.4, 0.4))
"""that follow one another"""
ROW_GATES = (((0.7, -0.3, 0.5), (0.0, 0.0, 0.0)), ((0.2, 0.9, 0.0), (0.6, 0.0, 0.3)))
"""of two rows, that follow one another"""
METHODS = ("ties", "dare-linear", "dare-ties", "magnitude-prune", "orthogonal")


class Wrong(Exception):
    """A check that does not hold."""


def all_checks(device: torch.device, held: Callable[[], int], dtypes: Sequence[torch.dtype] = tuple(TOLERANCES),
               ) -> Iterator[tuple[str, Callable[[], None]]]:
    """(name, check) of each; a check raises `Wrong`. held: the bytes that something holds on the device."""
    for kind in LAYERS:
        for dtype in dtypes:
            yield f"{kind}, {dtype}", partial(_check_layer, device, kind, dtype, partial(delta_of_kind, "thin factors"))
    for delta in MATRICES:
        for kind in ("linear", "3 × 3"):
            for dtype in dtypes:
                check = partial(_check_layer, device, kind, dtype, partial(delta_of_kind, delta), loras=1)
                yield f"{delta}, {kind}, {dtype}", check
    for kind in (*LAYERS, *NORMS):
        for dtype in dtypes:
            yield f"bias, {kind}, {dtype}", partial(_check_vector, device, kind, dtype, bias=True)
            if kind in NORMS:
                yield f"weight, {kind}, {dtype}", partial(_check_vector, device, kind, dtype, bias=False)
    for method in METHODS:
        yield f"combined by {method}", partial(_check_combined, device, method)
    yield "a whole UNet, and nothing left of the LoRAs", partial(_check_unet, device, held)
    yield "pictures with subjects", partial(_check_picture, device)
    yield "sets of LoRAs at once", partial(_check_sets, device)


def _check_layer(device: torch.device, kind: str, dtype: torch.dtype, delta: Callable, loras: int = LORAS) -> None:
    sample = LAYERS[kind]
    shape = sample.layer().weight.shape
    _check(device, sample, dtype, [_file({sample.name: delta(shape, k)}, k) for k in range(loras)])


def _check_vector(device: torch.device, kind: str, dtype: torch.dtype, bias: bool) -> None:
    sample = {**LAYERS, **NORMS}[kind]
    size = len(sample.layer().weight)
    delta, name = (bias_delta, sample.name + BIAS) if bias else (norm_delta, sample.name)
    if bias and sample.layer().bias is None:  # there is no bias to merge into: the layer branches
        _check(device, sample, dtype, [_file({name: delta(size, k)}, k) for k in range(LORAS)], ("branch",))
    else:
        _check(device, sample, dtype, [_file({name: delta(size, k)}, k) for k in range(LORAS)])


def _check(device: torch.device, sample: Sample, dtype: torch.dtype, files: list[LoraFile],
           executions: Sequence[str] = EXECUTIONS) -> None:
    """A layer with these LoRAs, as gates change and as rows differ, beside its dense weights."""
    plain, x = sample.made(dtype)
    bench = _Layer(copy.deepcopy(plain).to(device), sample.name, x.to(device), files)
    before = bench.state()
    for execution in executions:
        for gates, found in zip(GATES, bench.outputs(execution, [[one[:len(files)]] for one in GATES])):
            _compare(f"{execution}, gates {gates}", found, _dense(plain, files, gates, x), dtype)
    for rows, found in zip(ROW_GATES, bench.outputs("auto", [[one[:len(files)] for one in two] for two in ROW_GATES])):
        for number, gates in enumerate(rows):
            expected = _dense(plain, files, gates, x[number:number + 1])
            _compare(f"row {number}, gates {gates}", found[number:number + 1], expected, dtype)
    _check_restored(bench.root, before)


def _check_combined(device: torch.device, method: str) -> None:
    """Beside the same on the CPU, in double precision; the files too, so that no entry is on a limit's other side."""
    sample = LAYERS["linear"]
    plain, x = sample.made(torch.float32)
    files = [_file({sample.name: delta_of_kind("thin factors", plain.weight.shape, k, torch.float64)}, k)
             for k in range(LORAS)]
    joined = combination(method)
    here = _Layer(copy.deepcopy(plain).double(), sample.name, x.double(), files, joined)
    there = _Layer(copy.deepcopy(plain).to(device), sample.name, x.to(device), files, joined)
    before = there.state()
    for execution in (*EXECUTIONS, "rows"):
        rows = ROW_GATES if execution == "rows" else [[gates] for gates in GATES]
        for gates, found, expected in zip(rows, there.outputs(execution, rows), here.outputs(execution, rows)):
            _compare(f"{execution}, gates {gates}", found, expected, torch.float32)
    _check_restored(there.root, before)


def _check_unet(device: torch.device, held: Callable[[], int]) -> None:
    bench = _unet_bench(device, torch.float32)
    before = _state(bench.unet)
    plain = bench.call()
    gc.collect()
    held_before = held()
    outputs = {}
    for execution in ("merge", "branch", "auto"):
        with bench.acting(Variant(execution, execution, True), 3) as step:
            outputs[execution] = [step(number).double().cpu() for number in range(3)]
        gc.collect()
        if held() != held_before:
            raise Wrong(f"{execution}: {held() - held_before} bytes are left on the device")
    for execution in ("branch", "auto"):
        for number, (found, expected) in enumerate(zip(outputs[execution], outputs["merge"])):
            _compare(f"{execution}, step {number}", found, expected, torch.float32)
    _check_restored(bench.unet, before)
    with bench.acting(PLAIN, 1) as step:
        if not torch.equal(step(0), plain):
            raise Wrong("without LoRAs the output is not what it was")


def _check_picture(device: torch.device) -> None:
    for compose in ("contrastive", "masked"):
        picture = Picture(2, 3, boxes=True, compose=compose)
        there, here = (make(_unet_bench(one, torch.float32), picture) for one in (device, torch.device("cpu")))
        _compare(f"latents, {compose}", there, here.double(), torch.float16)  # rounding grows from step to step


def _check_sets(device: torch.device) -> None:
    bench = _unet_bench(device, torch.float32)
    _compare("all at once beside one by one", bench.sets(2, True), bench.sets(2, False).double().cpu(), torch.float32)


class _Layer:
    """A layer on a device, in a module that is called, with LoRAs."""

    def __init__(self, layer: nn.Module, name: str, x: Tensor, files: list[LoraFile], combination: object = None):
        self.root = nn.Sequential(layer)
        self.x = x
        self.make = partial(Mixer, self.root, {name: Target(layer, "weight", self.root)}, files,
                            combination=combination)

    def state(self) -> dict:
        return _state(self.root)

    def outputs(self, execution: str, gates: Sequence[Sequence[Sequence[float]]]) -> list[Tensor]:
        """Of calls with these rows of gates, one after the other."""
        differ = any(len(rows) > 1 for rows in gates)
        mixer = self.make(execution=execution if execution in EXECUTIONS else "auto")
        made = []
        try:
            mixer.choose(work(8, 8, True, len(self.x), differ))
            with mixer:
                for rows in gates:
                    mixer.set_gates(rows)
                    made.append(self.root(self.x))
        finally:
            mixer.release()
        return made


def _unet_bench(device: torch.device, dtype: torch.dtype) -> Bench:
    with torch.device("meta"):
        unet = UNet(SMALL["sd15"].topology)
    bench = Bench(filled(unet, dtype, torch.device("cpu")).to(device), [], SMALL["sd15"].latent)
    bench.loras = [random_lora(str(k), bench.layers, k, rank=4, dtype=torch.float32) for k in range(LORAS)]
    return bench


def _file(layers: dict, number: int) -> LoraFile:
    return LoraFile(str(number), Path(f"{number}.safetensors"), "any", "unknown", layers)


def _dense(plain: nn.Module, files: Sequence[LoraFile], gates: Sequence[float], x: Tensor) -> Tensor:
    """The output of the layer with dense weights, in double precision."""
    layer = copy.deepcopy(plain).double()
    for gate, file in zip(gates, files):
        for name, delta in file.layers.items():
            parameter = "bias" if name.endswith(BIAS) else "weight"
            own = getattr(plain, parameter)
            if own is None and layer.bias is None:
                layer.bias = nn.Parameter(torch.zeros(len(layer.weight), dtype=torch.float64), requires_grad=False)
            own = torch.zeros_like(layer.bias) if own is None else own.double()
            getattr(layer, parameter).add_(gate * delta.of(own))
    return layer(x.double())


def _compare(what: str, found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    error = float((found.double().cpu() - expected.cpu()).abs().max() / expected.abs().max())
    if not error <= TOLERANCES[dtype]:
        raise Wrong(f"{what}: off by {error:.1e} of the largest number, at most {TOLERANCES[dtype]:.0e} is accepted")


def _state(root: nn.Module) -> dict[str, tuple[nn.Parameter, Tensor]]:
    return {name: (parameter, parameter.detach().cpu().clone()) for name, parameter in root.named_parameters()}


def _check_restored(root: nn.Module, before: Mapping[str, tuple[nn.Parameter, Tensor]]) -> None:
    now = dict(root.named_parameters())
    if now.keys() != before.keys():
        raise Wrong(f"parameters are {', '.join(sorted(now.keys() ^ before.keys()))} more or less than before")
    for name, (parameter, values) in before.items():
        if now[name] is not parameter or not torch.equal(parameter.detach().cpu(), values):
            raise Wrong(f"{name} is not what it was")
    for name, module in root.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            raise Wrong(f"a hook is left on {name or 'the root'}")


@contextmanager
def in_full_precision() -> Iterator[None]:
    """Without TF32, which rounds products of float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@torch.no_grad()
def run(device: torch.device, held: Callable[[], int], quick: bool, report: Callable[[str], None]) -> dict:
    """All checks: how many passed, what failed and why, and what was not run for lack of a package. quick: of layers in
    half precision alone."""
    passed, failed, not_run = 0, {}, {}
    with in_full_precision():
        for name, check in all_checks(device, held, (torch.float16,) if quick else tuple(TOLERANCES)):
            try:
                check()
                passed += 1
            except ModuleNotFoundError as error:
                not_run[name] = f"needs {error.name}"
                report(f"not run: {name}: needs {error.name}")
            except Exception as error:  # whatever is wrong with one, the others are to be looked at too
                failed[name] = f"{type(error).__name__}: {error}"
                report(f"FAILED: {name}: {failed[name]}")
    report(f"{passed} passed, {len(failed)} failed, {len(not_run)} not run")
    return {"passed": passed, "failed": failed, "not_run": not_run}
