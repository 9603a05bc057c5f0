"""Against PEFT's `add_weighted_adapter`: the same where it combines products, and where it combines factors, why not.

What the papers write is about the change of a weight, ΔW (TIES: a task vector τ; DARE: delta parameters), so about the
product. PEFT's linear, ties, dare_linear, dare_ties and magnitude_prune combine all A and all B on their own instead:
(Σ√λ A)(Σ√λ B) has cross terms B_i A_j that no LoRA ever trained (huggingface/peft issue 3004).
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("peft", minversion="0.20", reason="older ones apply the scale twice in their svd variants")

import peft

from sciart_ext.combine import masks
from sciart_ext.combine.files import combine_files
from sciart_ext.combine.orthogonal import Product
from sciart_ext.combine.reduction import reduce_dense, reduce_products
from sciart_ext.combine.sparse import SparseCombination, dense
from sciart_ext.lora.file import LoraFile
from sciart_ext.lora.low_rank import LowRank
from sciart_ext.recipe import parse_recipe
from sciart_ext.recipe.combining import Combination, CombiningSettings

LORAS, WEIGHTS, DENSITY, RANK = ("child", "watercolor", "science"), [0.65, 0.55, 0.5], 0.4, 4
FULL = {"linear": 20, "conv": 8, "pointwise": 10}
LAYERS = tuple(FULL)
NEAR = {"rtol": 1e-4, "atol": 1e-4}


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.conv, self.pointwise = nn.Linear(20, 24), nn.Conv2d(3, 8, 3), nn.Conv2d(12, 10, 1)


class PeftLayer:
    """Three LoRAs on one layer of a model of PEFT's."""

    def __init__(self, layer):
        torch.manual_seed(0)
        self.name, self.full = layer, FULL[layer]
        configs = {name: peft.LoraConfig(r=RANK, lora_alpha=2 + i, target_modules=[layer])
                   for i, name in enumerate(LORAS)}
        self.model = peft.get_peft_model(Toy(), configs[LORAS[0]], adapter_name=LORAS[0])
        for name in LORAS[1:]:
            self.model.add_adapter(name, configs[name])
        self.module = getattr(self.model.base_model.model, layer)
        for parameter in self.module.parameters():
            nn.init.normal_(parameter)
        self.deltas = {k: LowRank(self.module.lora_A[name].weight.detach(), self.module.lora_B[name].weight.detach(),
                                  self.module.scaling[name]) for k, name in enumerate(LORAS)}

    @property
    def products(self):
        return [Product(delta.scale * weight * delta.up.flatten(1), delta.down.flatten(1))
                for delta, weight in zip(self.deltas.values(), WEIGHTS)]

    def combined(self, how, **options):
        """PEFT's ΔW, flattened."""
        name = f"combined{len(self.model.peft_config)}"
        self.model.add_weighted_adapter(list(LORAS), WEIGHTS, name, how, **options)
        return self.module.get_delta_weight(name).detach().flatten(1)

    def ours(self, method, density=DENSITY):
        combining = SparseCombination(Combination(method, CombiningSettings(density=density, seed=9)), self.name,
                                      dict(enumerate(LORAS)))
        return combining({k: dense(delta) for k, delta in self.deltas.items()}, dict(enumerate(WEIGHTS)))


@pytest.fixture
def layer(request):
    return PeftLayer(getattr(request, "param", "linear"))


every_layer = pytest.mark.parametrize("layer", LAYERS, indirect=True)


@every_layer
@pytest.mark.parametrize("method", ["ties", "magnitude-prune"])
def test_methods_on_products_give_the_same(layer, method):
    how = f"{method.replace('-', '_')}_svd"
    full = layer.combined(how, density=DENSITY, svd_rank=layer.full)
    torch.testing.assert_close(layer.ours(method), full, **NEAR)
    low = layer.combined(how, density=DENSITY, svd_rank=RANK)
    reduced = reduce_dense(layer.ours(method), RANK, "exact")
    torch.testing.assert_close(reduced.up @ reduced.down, low, **NEAR)
    assert float((full - low).norm()) > 0.05 * float(full.norm())


@every_layer
@pytest.mark.parametrize("method", ["dare-linear", "dare-ties"])
def test_random_methods_on_products_give_the_same_where_the_same_is_dropped(layer, method, monkeypatch):
    loras = iter(LORAS)

    def bernoulli(tensor):
        flat = tensor.flatten(1)
        return masks.at_random(flat.shape, DENSITY, 9, layer.name, next(loras)).view(tensor.shape).to(tensor)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    combined = layer.combined(f"{method.replace('-', '_')}_svd", density=DENSITY, svd_rank=layer.full)
    torch.testing.assert_close(layer.ours(method), combined, **NEAR)
    assert next(loras, None) is None


@every_layer
def test_linear_is_pefts_cat_and_svd(layer):
    reduced = reduce_products(layer.products, 3 * RANK)
    for combined in (layer.combined("cat"), layer.combined("svd", svd_rank=layer.full)):
        torch.testing.assert_close(reduced.up @ reduced.down, combined, **NEAR)
    reduced = reduce_products(layer.products, 5)
    torch.testing.assert_close(reduced.up @ reduced.down, layer.combined("svd", svd_rank=5), **NEAR)


def test_pefts_linear_of_factors_is_not_the_sum_but_has_cross_terms(layer):
    own = list(layer.deltas.values())
    root = [(weight * delta.scale) ** 0.5 for weight, delta in zip(WEIGHTS, own)]
    wanted = sum(up @ down for up, down in layer.products)
    cross = sum(root[i] * root[j] * own[i].up @ own[j].down for i in range(3) for j in range(3) if i != j)
    torch.testing.assert_close(layer.combined("linear"), wanted + cross, **NEAR)
    assert float(cross.norm()) > 0.5 * float(wanted.norm())
    torch.testing.assert_close(layer.combined("svd", svd_rank=layer.full), wanted, **NEAR)


@pytest.mark.parametrize("how", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_pefts_other_methods_of_factors_are_not_what_the_papers_write_either(layer, how):
    """At density 1 nothing is thinned: dare and pruning must give the plain sum, ties the mean of what agrees."""
    paper = layer.ours(how.replace("_", "-"), density=1.0)
    if "ties" not in how:
        torch.testing.assert_close(paper, sum(up @ down for up, down in layer.products), **NEAR)
    apart = layer.combined(how, density=1.0)
    assert float((apart - paper).norm()) > 0.5 * float(paper.norm())
    torch.testing.assert_close(layer.combined(f"{how}_svd", density=1.0, svd_rank=layer.full), paper, **NEAR)


@pytest.mark.parametrize(("method", "how", "options"), [
    ("linear", "cat", {}), ("ties", "ties_svd", {"density": DENSITY, "svd_rank": 20}),
    ("magnitude-prune", "magnitude_prune_svd", {"density": DENSITY, "svd_rank": 20})])
def test_combined_files_of_the_same_factors_give_the_same(layer, method, how, options, tmp_path):
    name = "unet_middle_block_1_proj_in"
    files = [LoraFile(lora, tmp_path / f"{lora}.safetensors", "LoRA", "unknown", {name: layer.deltas[k]})
             for k, lora in enumerate(LORAS)]
    recipe = parse_recipe({"loras": [{"name": lora, "weight": weight} for lora, weight in zip(LORAS, WEIGHTS)],
                           "combine": method, "combining": {"density": DENSITY}})
    combined = combine_files(files, recipe, rank=20).layers[name].reduced
    torch.testing.assert_close((combined.up @ combined.down).float(), layer.combined(how, **options), **NEAR)
