"""Block weights in the mixer: layers whose factor is a list's, a kind's, or a schedule's, against dense weights."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from mixer_bench import assert_near, run, wide_copy
from torch import nn

from sciart_ext.mixer.targets import diffusers_unet_layers
from sciart_ext.recipe import Row, compile_plan, parse_recipe
from sciart_ext.recipe.combining import Combination, CombiningSettings
from sciart_ext.recipe.layer_factors import LayerFactors, check_blocks

BLOCKS = [{"in": "0@0, 1@1", "attention": 0.5, "M00": 0.0}, {"feed_forward": "1@0, -1@1", "OUT03": 2},
          ", ".join(str(i / 10) for i in range(17))]


def plan_of(apply_to="both"):
    loras = [{"name": f"n{k}", "weight": 0.4 + 0.1 * k, "blocks": blocks, "apply_to": apply_to if k else "both"}
             for k, blocks in enumerate(BLOCKS)]
    return compile_plan(parse_recipe({"loras": loras}), 5).first


def dense(bench, x, text, loras, gates, progress):
    """The UNet in float64 with Σ λ·f·ΔW, f the factor of the layer at this progress."""
    unet, factors = wide_copy(bench.unet), [LayerFactors(check_blocks(blocks)) for blocks in BLOCKS]
    for name, target in diffusers_unet_layers(unet).items():
        total = bench.layers[name].weight().detach().double()
        for lora, gate, factor in zip(loras, gates, factors):
            if name in lora.layers:
                total = total + gate * factor.of(name).at(progress) * lora.layers[name].of(total)
        target.module.weight = nn.Parameter(total)
    return run(unet, x.double(), text.double(), bench.added)


@pytest.fixture
def loras(bench):
    return [bench.lora(("attn", "ff", "conv"), seed=k, rank=2 + k) for k in range(3)]


@pytest.mark.parametrize("execution", ["merge", "branch", "auto"])
@pytest.mark.parametrize("progress", [0.0, 0.25, 1.0])
def test_layers_have_the_factors_of_their_blocks_and_kinds(bench, snapshot, loras, execution, progress):
    plan, (x, text) = plan_of(), bench.inputs()
    gates = plan.gates(progress)
    assert len(gates) == 3 + 2
    with bench.mixer(loras, execution, blocks=[lora.blocks for lora in plan.loras]) as mixer:
        mixer.set_gates([gates])
        assert_near(bench(x, text), dense(bench, x, text, loras, gates[:3], progress), 2e-5)


def test_only_layers_whose_factor_varies_are_rebuilt(bench, snapshot, loras, rebuilt):
    plan, (x, text) = plan_of(), bench.inputs()
    with bench.mixer(loras, "merge", blocks=[lora.blocks for lora in plan.loras]) as mixer:
        mixer.set_gates([plan.gates(0.1)])
        bench(x, text)
        before = set(rebuilt)
        rebuilt.clear()
        mixer.set_gates([plan.gates(0.6)])
        bench(x, text)
    varying = {name for name in before for lora, blocks in zip(loras, BLOCKS)
               if name in lora.layers and LayerFactors(check_blocks(blocks)).of(name).schedules}
    assert set(rebuilt) == varying and varying < before


def test_rows_may_differ(bench, snapshot, loras):
    plan, (x, text) = plan_of(apply_to="cond"), bench.inputs()
    rows = [plan.gates(0.25, Row()), plan.gates(0.25, Row(uncond=True))]
    with bench.mixer(loras, "branch", blocks=[lora.blocks for lora in plan.loras]) as mixer:
        mixer.set_gates(rows)
        found = bench(x, text)
    for i, gates in enumerate(rows):
        assert_near(found[i:i + 1], dense(bench, x[i:i + 1], text[i:i + 1], loras, gates[:3], 0.25), 2e-5)


def test_they_are_part_of_the_weights_that_are_combined(bench, snapshot, loras):
    plan, (x, text) = plan_of(), bench.inputs()
    outputs = []
    for execution in ("merge", "branch"):
        with bench.mixer(loras, execution, blocks=[lora.blocks for lora in plan.loras],
                         combination=Combination("ties", CombiningSettings(density=0.5))) as mixer:
            mixer.set_gates([plan.gates(0.25)])
            outputs.append(bench(x, text))
    assert_near(*outputs, 5e-5)
    assert (outputs[0] - bench(x, text)).abs().max() > 1e-2
