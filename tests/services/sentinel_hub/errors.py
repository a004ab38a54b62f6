"""What the service answers where it refuses, in the shapes that the real one uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

__all__ = ["Refused", "bad_payload", "unauthorized"]

Json = dict[str, Any]

_NO_TOKEN = (
    "You are not authorized! Please provide a valid access token within the header "
    "[Authorization: Bearer <accessToken>] of your request."
)


@dataclass
class Refused(Exception):  # noqa: N818  # an answer
    """An answer other than 2xx."""

    status: int
    message: str
    code: str = "COMMON_EXCEPTION"
    errors: list[Json] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, *, catalog: bool) -> Json:
        """The error as JSON: the Catalog says it in its own way."""
        if catalog and self.status != 429:
            return {"code": self.status, "description": self.message}
        boom: Json = {
            "status": self.status,
            "reason": HTTPStatus(self.status).phrase,
            "message": self.message,
            "code": self.code,
        }
        if self.errors:
            boom["errors"] = self.errors
        # Rate limiting answers without the wrapper.
        return boom if self.status == 429 else {"error": boom}


def bad_payload(parameter: str, violation: str, value: object = None) -> Refused:
    """400: something of the request is not as the API reference, or this service, demands."""
    error: Json = {"parameter": parameter, "violation": violation}
    if value is not None:
        error["invalidValue"] = value
    return Refused(400, f"{parameter}: {violation}", "COMMON_BAD_PAYLOAD", [error])


def unauthorized() -> Refused:
    """401: no token, or one that is not valid any more."""
    return Refused(401, _NO_TOKEN, "COMMON_UNAUTHORIZED")
