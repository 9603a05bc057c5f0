"""What the parts of the recipe are declared with: pydantic 1.10, which the host installs, or the `v1` of pydantic 2."""

from __future__ import annotations

from typing import Any

try:
    from pydantic.v1 import BaseModel, Field, ValidationError, constr, validator
    from pydantic.v1.errors import DictError
    from pydantic.v1.fields import SHAPE_DICT, SHAPE_SINGLETON, ModelField
except ImportError:  # pydantic before 1.10.17 has no v1 namespace: it is version 1
    from pydantic import BaseModel, Field, ValidationError, constr, validator
    from pydantic.errors import DictError
    from pydantic.fields import SHAPE_DICT, SHAPE_SINGLETON, ModelField

from ..errors import SciArtError, did_you_mean, shown

__all__ = ["Field", "Name", "NameOrNothing", "Strict", "ValidationError", "Words", "check_bool", "check_count",
           "constr", "parsed", "refused", "validator"]

Name = constr(strict=True, min_length=1, max_length=256)
"""of a LoRA, a role, a preset, a model"""
NameOrNothing = constr(strict=True, max_length=256)
Words = constr(strict=True, min_length=1, max_length=1000)
"""of a prompt"""


class Strict(BaseModel):
    """Unknown fields are refused, lists of pairs are no objects, and what was read is not changed."""

    @validator("*", pre=True)
    def _object(cls, value, field: ModelField):
        part = field.shape == SHAPE_SINGLETON and isinstance(field.type_, type) and issubclass(field.type_, Strict)
        if (part or field.shape == SHAPE_DICT) and value is not None and not isinstance(value, (dict, BaseModel)):
            raise DictError()
        return value

    class Config:
        extra = "forbid"
        allow_mutation = False


def check_bool(value: Any) -> bool:
    """true or false; what pydantic would take for one of them is refused."""
    if not isinstance(value, bool):
        raise SciArtError("", f"expected true or false, got {shown(value)}")
    return value


def check_count(value: Any, low: int, high: int) -> int:
    """A whole number from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise SciArtError("", f"expected a whole number from {low} to {high}, got {shown(value)}")
    return value


def parsed(model: type[BaseModel], data: Any) -> Any:
    """A `model` of JSON data; what does not fit raises `SciArtError` naming the field."""
    if not isinstance(data, dict):
        raise SciArtError("", f"expected one JSON object, got {type(data).__name__}")
    try:
        return model.parse_obj(data)
    except ValidationError as error:
        raise refused(error, model) from None


def refused(error: ValidationError, model: type[BaseModel]) -> SciArtError:
    """The first reason why a `model` could not be made of its data, as ours."""
    first = error.errors()[0]
    location = first["loc"]
    cause = _cause(error.raw_errors)
    parts = [part for part in location if part not in ("__key__", "__root__")]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" if part else '[""]' for part in parts)
    field = field.removeprefix(".")
    if isinstance(cause, SciArtError):
        joint = "" if not cause.field or cause.field.startswith("[") else "."
        return SciArtError(f"{field}{joint}{cause.field}", cause.message)
    if first["type"] == "value_error.extra":
        return SciArtError(field, f"unknown field; {did_you_mean(str(location[-1]), _fields_at(location, model))}")
    if "permitted" in first.get("ctx", {}):
        accepted = ", ".join(map(repr, first["ctx"]["permitted"]))
        return SciArtError(field, f"unknown value; accepted: {accepted}")
    return SciArtError(field, first["msg"])


def _cause(errors: Any) -> BaseException | None:
    """The exception behind the first error, found through pydantic's nested wrappers."""
    while isinstance(errors, (list, tuple)) and errors:
        errors = errors[0]
    inner = getattr(errors, "exc", None)
    return _cause(inner.raw_errors) if isinstance(inner, ValidationError) else inner


def _fields_at(location: tuple, model: type[BaseModel]) -> list[str]:
    """Names of the fields that are accepted where the unknown field at `location` stands."""
    for part in location[:-1]:
        if part in model.__fields__:
            model = model.__fields__[part].type_
    return list(model.__fields__)
