"""What scripts do when a picture is done, where the host leaves it out: after an error.

What they have put on the model for one picture they take away there, and only there; left out, the next is theirs too.
"""

from __future__ import annotations

import torch
from modules.processing import Processed


def take_back(p, batch: bool) -> None:
    """Has every script end the picture that `p` was to become, as if it had none. batch: whether its batch had begun.
    The host reports what fails in a script."""
    if p.scripts is None:
        return
    if batch:
        p.scripts.postprocess_batch(p, torch.zeros(0, 3, p.height, p.width), batch_number=p.iteration)
    p.scripts.postprocess(p, Processed(p, []))
