"""LoRAs compared over all their layers: sums, blocks, conflicts, and what is refused."""

from __future__ import annotations

import html
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from sciart_ext.errors import SciArtError
from sciart_ext.geometry.comparison import compare
from sciart_ext.geometry.page import geometry_page
from sciart_ext.lora.blocks import label_of
from sciart_ext.lora.file import LoraFile, load_lora
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.world import MODEL

STYLES = ("child", "watercolor", "science")


def dense(delta):
    return delta.scale * delta.up.flatten(1).double() @ delta.down.flatten(1).double()


def lora(name, seeds, shape=(12, 10), rank=3):
    """A LoRA whose layers come of these seeds, by name."""
    def delta(seed):
        generator = torch.Generator().manual_seed(seed)
        down, up = (torch.randn(size, generator=generator) for size in ((rank, shape[1]), (shape[0], rank)))
        return LowRank(down, up, 1.0)
    return LoraFile(name, Path(f"{name}.safetensors"), "LoRA", "SD1", {layer: delta(s) for layer, s in seeds.items()})


@pytest.fixture(scope="module")
def styles():
    return [load_lora(MODEL / "loras" / f"{name}.safetensors") for name in STYLES]


def test_the_whole_is_that_of_all_deltas_as_one_vector(styles):
    layers = sorted({name for one in styles for name in one.layers})
    flat = torch.stack([torch.cat([dense(one.layers[name]).flatten() for name in layers]) for one in styles])
    whole = compare(styles).whole()
    torch.testing.assert_close(whole.norms, flat.norm(dim=1), rtol=1e-6, atol=0)
    units = flat / flat.norm(dim=1, keepdim=True)
    torch.testing.assert_close(whole.cosines, units @ units.T, rtol=0, atol=1e-6)
    assert whole.superposition == pytest.approx(float(flat.sum(0).square().sum() / flat.square().sum()), rel=1e-6)


def test_blocks_come_in_the_order_of_depth_and_make_the_whole(styles):
    comparison = compare(styles)
    blocks = comparison.blocks()
    order = list(blocks)
    middle = order.index("M00")
    assert order[0] == "BASE" and all(label.startswith("IN") for label in order[1:middle])
    assert order[1:middle] == sorted(order[1:middle]) and order[middle + 1:] == sorted(order[middle + 1:])
    torch.testing.assert_close(sum(shared.inner for shared in blocks.values()), comparison.whole().inner)
    assert len(comparison.layers) == len({name for one in styles for name in one.layers})


@pytest.mark.parametrize(("layer", "label"), [
    ("te1_text_model_encoder_layers_0_self_attn_q_proj", "BASE"), ("unet_time_embed_0", None),
    ("unet_input_blocks_4_1_transformer_blocks_0_attn2_to_q", "IN04"), ("unet_middle_block_1_proj_in", "M00"),
    ("unet_output_blocks_11_1_proj_out", "OUT11"),
])
def test_blocks_have_the_labels_of_the_field(layer, label):
    assert label_of(layer) == label


def test_a_conflict_tells_where_most_is_shared_and_what_orthogonal_would_take():
    one = lora("one", {"unet_input_blocks_1_1_proj_in": 1, "unet_output_blocks_3_1_proj_in": 2})
    same_there = lora("other", {"unet_input_blocks_1_1_proj_in": 3, "unet_output_blocks_3_1_proj_in": 2})
    first = compare([one, same_there]).conflicts()[0]
    assert (first.block, round(first.removed, 6), round(first.cosine, 6)) == ("OUT03", 1.0, 1.0)
    assert "overlap most in OUT03, the same way (cosine +1.00): orthogonal would remove 100 %" in str(first)


def test_unrelated_loras_have_no_conflict():
    layer = "unet_middle_block_1_proj_in"
    comparison = compare([lora("one", {layer: 1}, (300, 200)), lora("two", {layer: 2}, (300, 200))])
    assert comparison.conflicts() == [] and comparison.whole().removed[0, 1] > 0


def test_layers_that_only_one_reaches_count_for_norms_and_not_for_overlaps():
    one = lora("one", {"unet_input_blocks_1_1_proj_in": 1, "unet_input_blocks_2_1_proj_in": 2})
    two = lora("two", {"unet_input_blocks_1_1_proj_in": 1})
    whole = compare([one, two]).whole()
    assert whole.overlaps[1][0, 1] == pytest.approx(1.0) and 0.4 < whole.cosines[0, 1] < 0.95
    assert whole.ranks.tolist() == [6, 3] and whole.rank_of_sum == 6


def test_weights_change_the_sum_and_not_the_cosines():
    one, two = lora("one", {"unet_middle_block_1_proj_in": 1}), lora("two", {"unet_middle_block_1_proj_in": 1})
    assert compare([one, two]).whole().superposition == pytest.approx(2.0)
    cancelled = compare([one, two], [1.0, -1.0]).whole()
    assert cancelled.superposition == pytest.approx(0.0, abs=1e-9) and cancelled.cosines[0, 1] == pytest.approx(1.0)
    assert cancelled.rank_of_sum == 0


def test_progress_is_told_layer_by_layer(styles):
    told = []
    compare(styles[:2], on_layer=lambda done, of: told.append((done, of)))
    assert [done for done, _ in told] == list(range(1, told[0][1] + 1))


def test_what_cannot_be_compared_is_refused():
    one = lora("one", {"unet_middle_block_1_proj_in": 1})
    with pytest.raises(SciArtError, match="two or more"):
        compare([one])
    with pytest.raises(SciArtError, match="1 weights for 2 LoRAs"):
        compare([one, one], [1.0])
    with pytest.raises(SciArtError, match=r"different models: one \(SD1\), wide \(SD1\)"):
        compare([one, lora("wide", {"unet_middle_block_1_proj_in": 1}, shape=(24, 10))])


def run(*arguments):
    from sciart_ext.cli import main

    return main(["geometry", *map(str, arguments)])


FILES = [MODEL / "loras" / f"{name}.safetensors" for name in STYLES]


def test_the_command_says_it_in_words(capsys):
    assert run(*FILES, "--weights", "0.65,0.55,0.5") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["child and watercolor", "child and science",
                                                          "watercolor and science"]
    assert lines[3].startswith("together they change 1.0") and len(lines) == 4 + 6


def test_the_command_gives_every_layer_as_json(capsys, styles):
    assert run(*FILES, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["loras"] == list(STYLES) and len(data["layers"]) == len(compare(styles).layers)
    layer = data["layers"][5]
    assert len(layer["spectra"]) == 3 and set(layer["angles"]) == {"0-1", "0-2", "1-2"}
    assert data["whole"]["cosines"][0][1] == pytest.approx(float(compare(styles).whole().cosines[0, 1]), abs=1e-6)


def test_the_page_is_whole_and_tells_every_pair_and_block(capsys, tmp_path, styles):
    assert run(*FILES, "--out", tmp_path / "new" / "geometry.html") == 0
    page = (tmp_path / "new" / "geometry.html").read_text(encoding="utf-8")
    comparison = compare(styles)
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.S)]
    cells = [cell.find("{*}title").text for cell in drawings[0].iter("{http://www.w3.org/2000/svg}rect")]
    assert len(drawings) == 5 and len(cells) == 3 * len(comparison.blocks())
    first = next(iter(comparison.blocks().values()))
    assert cells[0] == f"child and watercolor, BASE: {float(first.cosines[0, 1]):.3g}"
    for line in capsys.readouterr().out.splitlines():
        assert html.escape(line) in page
    assert not re.search(r'(src|href)="(?!data:)', page)


def test_a_page_of_loras_with_nothing_in_common_is_whole():
    one = lora("one <b>", {"unet_middle_block_1_proj_in": 1})
    page = geometry_page(compare([one, lora("two", {"unet_input_blocks_1_1_proj_in": 2})]))
    assert "one &lt;b&gt;" in page and "<b>" not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(svg)


@pytest.mark.parametrize(("arguments", "message"), [
    (FILES[:1], "loras: geometry compares LoRAs: give two or more"),
    ([*FILES, "--weights", "1,2"], "weights: 2 weights for 3 LoRAs"),
    ([*FILES, "--weights", "1,much,2"], "weights: cannot read 'much'; expected numbers"),
    ([*FILES, "--weights", "1,1e9,2"], "weights: "),
    ([FILES[0], "nowhere.safetensors"], "nowhere.safetensors: no such file"),
])
def test_the_command_refuses_what_it_cannot_compare(capsys, arguments, message):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
