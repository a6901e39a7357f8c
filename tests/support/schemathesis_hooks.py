"""What `schemathesis` loads beside its own checks: see tests/server/http/test_schemathesis.py."""

from __future__ import annotations

import json
import os
from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData

NO_KEY_NEEDED = "NO_KEY_NEEDED"
"""In the environment: set where the server asks for no key."""

KEYS = {"Authorization", "X-API-Key"}


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Exception, case: schemathesis.Case[Any], response: schemathesis.Response
) -> bool:
    """Where no key is needed none is read, so what stands in its place may be anything."""
    if not isinstance(failure, AcceptedNegativeData) or NO_KEY_NEEDED not in os.environ or case.meta is None:
        return True
    return not {mutation.parameter for mutation in case.meta.phase.data.mutations} <= KEYS


@schemathesis.check
def no_fault_of_ours(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """As `not_a_server_error`; but a caller who allows no time at all is rightly told that there was too little."""
    if response.status_code < 500:
        return
    asked = {name.lower(): value for name, value in (case.headers or {}).items()}
    code = _code(response.content)
    if response.status_code == 503 and code == "deadline_missed" and "twinlens-deadline" in asked:
        return
    raise AssertionError(f"{response.status_code} {code}")


@schemathesis.check
def one_body_of_errors(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case[Any]
) -> None:
    """Every error has the same members, and the request id that its header has; a HEAD has none."""
    if response.status_code < 400 or case.method == "HEAD":
        return
    body = _body(response.content)
    if not isinstance(body, dict) or {*body} != {"error", "code", "requestId"}:
        raise AssertionError(f"another body than errors have: {response.content[:200]!r}")


def _body(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _code(content: bytes) -> str | None:
    body = _body(content)
    return body.get("code") if isinstance(body, dict) else None
