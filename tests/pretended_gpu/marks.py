"""Why a test of the pretended GPU is skipped."""

from __future__ import annotations

import pytest
import torch

from . import SUPPORTED

needs_pretended_gpu = pytest.mark.skipif(
    not SUPPORTED, reason=f"torch {torch.__version__} has no device types made in Python")
