"""Counterfactual runs of which everything is invented."""

from __future__ import annotations

import numpy as np
import torch

from sciart_ext.influence.runs import Run


def invented(count, seed=0, words=0):
    """Runs of all sets of so many LoRAs, from the same noise, without any structure."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((1, 4, 2, 2))
    return {one: Run(torch.from_numpy(np.concatenate([noise, random.standard_normal((6, 4, 2, 2))])),
                      random.integers(0, 256, (8, 8, 3), dtype=np.uint8),
                      torch.from_numpy(random.random((words, 2, 2)))) for one in range(1 << count)}
