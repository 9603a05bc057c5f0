"""Whether another extension has put something of its own in the place of a method."""

from __future__ import annotations


def is_replaced(owner: object, method: str) -> bool:
    """Whether the object has another one than its class; extensions that are done may leave the class's own there."""
    own = vars(owner).get(method)
    return own is not None and getattr(own, "__func__", own) is not getattr(type(owner), method)
