"""What the parts of the recipe are declared with: pydantic 1.10, which the host installs, or the `v1` of pydantic 2."""

from __future__ import annotations

from typing import Any

try:
    from pydantic.v1 import BaseModel, Field, ValidationError, validator
except ImportError:  # pydantic before 1.10.17 has no v1 namespace: it is version 1
    from pydantic import BaseModel, Field, ValidationError, validator

from .errors import SciArtError

__all__ = ["Field", "Strict", "ValidationError", "check_bool", "validator"]


class Strict(BaseModel):
    """Unknown fields are refused, and what was read is not changed."""

    class Config:
        extra = "forbid"
        allow_mutation = False


def check_bool(value: Any) -> bool:
    """true or false; what pydantic would take for one of them is refused."""
    if not isinstance(value, bool):
        raise SciArtError("", f"expected true or false, got {value!r}")
    return value
