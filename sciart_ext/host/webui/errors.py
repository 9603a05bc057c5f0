"""Errors that reach the user: as status 422 over the API, as a red line under the picture in the browser."""

from __future__ import annotations

from fastapi import HTTPException

from ...errors import SciArtError


class SciArtRequestError(HTTPException):
    """A refused request: `detail` holds `field` and `message`."""

    def __init__(self, field: str, message: str, status: int = 422):
        super().__init__(status_code=status, detail={"field": field, "message": message})
        self.text = f"{field}: {message}" if field else message

    def __str__(self) -> str:
        return self.text


def as_request_error(error: SciArtError) -> SciArtRequestError:
    """The same refusal in the host's own form."""
    return SciArtRequestError(error.field, error.message)
