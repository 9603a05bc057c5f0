"""The contrastive loss against pytorch-metric-learning's NT-Xent, and its gradient against finite differences."""

from __future__ import annotations

import pytest
import torch

from sciart_ext.guidance.loss import contrastive_loss, cosines, pairs_of

GROUPS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2])


def some_maps(images=2, dtype=torch.float32):
    return torch.rand(images, len(GROUPS), 49, generator=torch.Generator().manual_seed(3), dtype=dtype)


def loss_of(maps, groups, temperature=0.5):
    return contrastive_loss(maps, pairs_of(groups.tolist(), maps.device), temperature)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_it_is_nt_xent(temperature):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    maps = some_maps()
    contrast = maps - maps.amin(-1, keepdim=True)
    expected = [losses.NTXentLoss(temperature)(image, GROUPS) for image in contrast]
    assert torch.allclose(loss_of(maps, GROUPS, temperature), torch.stack(expected), atol=1e-5)


def test_its_gradient_is_right():
    maps = some_maps(1, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(x, GROUPS), maps, atol=1e-7)


def test_apart_is_better_than_alike():
    left, right = torch.zeros(2, 64)
    left[:20], right[40:] = 1.0, 1.0
    groups = torch.tensor([0, 0, 1, 1])
    apart = loss_of(torch.stack([left, left, right, right])[None], groups)
    alike = loss_of(torch.stack([left, right, left, right])[None], groups)
    assert apart < 0.3 < 2 < alike


def test_a_constant_map_gives_no_nan():
    maps = some_maps(1)
    maps[0, 3] = 0.25
    maps.requires_grad_()
    loss = loss_of(maps, GROUPS)
    loss.sum().backward()
    assert loss.isfinite().all() and maps.grad.isfinite().all()
    assert not cosines(maps)[0, 3].any()


def test_one_subject_has_nothing_to_be_told_from():
    maps = some_maps(1)[:, :3].requires_grad_()
    loss = loss_of(maps, GROUPS[:3])
    loss.sum().backward()
    assert loss.item() == 0 and not maps.grad.any()


def test_subjects_with_one_map_each_are_refused():
    with pytest.raises(ValueError, match="positive pairs"):
        loss_of(some_maps(1)[:, :2], torch.tensor([0, 1]))


def test_images_do_not_mix():
    maps = some_maps(3)
    assert torch.allclose(loss_of(maps, GROUPS)[1], loss_of(maps[1:2], GROUPS)[0])


def test_maps_may_be_on_another_device_than_the_words_groups():
    """As on a GPU; the meta device, which has no values, refuses what would mix devices just so."""
    maps = torch.rand(2, 5, 9, device="meta", requires_grad=True)
    loss = loss_of(maps, torch.tensor([0, 0, 1, 1, 1]))
    assert loss.device.type == "meta" and loss.shape == (2,)
    assert torch.autograd.grad(loss.sum(), maps)[0].shape == maps.shape
