"""The document and the headers of each problem."""

from __future__ import annotations

import json

import pytest

from routing_layer.problems import Problem, ProblemType

#: Status, Retry-After, and whether the connection ends: what clients rely on.
_TABLE = [
    (ProblemType.BAD_REQUEST, "bad-request", 400, None, False),
    (ProblemType.UNAUTHORIZED, "unauthorized", 401, None, False),
    (ProblemType.FORBIDDEN, "forbidden", 403, None, False),
    (ProblemType.UNKNOWN_PATH, "unknown-path", 404, None, False),
    (ProblemType.UNKNOWN_ASSET, "unknown-asset", 404, None, False),
    (ProblemType.ASSET_WITHOUT_LEVEL, "asset-without-level", 404, None, False),
    (ProblemType.ASSET_ELSEWHERE, "asset-elsewhere", 404, None, False),
    (ProblemType.UNKNOWN_GROUP, "unknown-group", 404, None, False),
    (ProblemType.WRONG_METHOD, "wrong-method", 405, None, False),
    (ProblemType.LATE_REQUEST, "late-request", 408, None, True),
    (ProblemType.LONG_REQUEST, "long-request", 431, None, True),
    (ProblemType.INTERNAL, "internal", 500, None, False),
    (ProblemType.UPSTREAM_UNREACHABLE, "upstream-unreachable", 502, "2", False),
    (ProblemType.GROUP_NOT_DEPLOYED, "group-not-deployed", 503, "5", False),
    (ProblemType.NOT_READY, "not-ready", 503, "2", False),
    (ProblemType.TOO_MANY_CONNECTIONS, "too-many-connections", 503, "5", True),
    (ProblemType.TOO_MANY_STREAMS, "too-many-streams", 503, "5", False),
    (ProblemType.TOO_MANY_STREAMS_OF_CLIENT, "too-many-streams-of-client", 429, "5", False),
    (ProblemType.UPSTREAM_LATE, "upstream-late", 504, "2", False),
    (ProblemType.UNSUPPORTED_VERSION, "unsupported-version", 505, None, True),
]


@pytest.mark.parametrize(("problem", "kind", "status", "retry_after", "ends"), _TABLE, ids=str)
def test_a_problem_has_its_status_and_headers(
    problem: ProblemType, kind: str, status: int, retry_after: str | None, ends: bool
) -> None:
    """Each type as the page for clients lists it."""
    response = Problem(problem, "why").response()
    assert (response.status, response.headers.get("Retry-After")) == (status, retry_after)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"
    assert ("Allow" in response.headers) == (status == 405)
    assert "WWW-Authenticate" not in response.headers
    assert problem.ends_connection is ends
    document = json.loads(Problem(problem, "why").document())
    assert (document["type"], document["status"]) == (f"urn:openfactory:routing-layer:{kind}", status)
    assert document["detail"] == "why"


def test_a_problem_of_credentials_says_which_are_needed() -> None:
    """In the header of RFC 9110."""
    response = Problem(ProblemType.UNAUTHORIZED, "why", challenge='Bearer realm="x"').response()
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="x"'


def test_every_type_is_in_the_table() -> None:
    """And none twice."""
    assert [row[0] for row in _TABLE] == list(ProblemType)


@pytest.mark.parametrize(
    ("problem", "given", "transient"),
    [
        (ProblemType.NOT_READY, False, True),
        (ProblemType.UPSTREAM_UNREACHABLE, True, True),
        (ProblemType.UPSTREAM_UNREACHABLE, False, False),
        (ProblemType.UNKNOWN_ASSET, False, False),
        (ProblemType.GROUP_NOT_DEPLOYED, False, False),
        (ProblemType.TOO_MANY_STREAMS, False, False),
        (ProblemType.TOO_MANY_STREAMS_OF_CLIENT, False, False),
    ],
)
def test_event_sources_are_held_for_transient_problems(problem: ProblemType, given: bool, transient: bool) -> None:
    """A proxy that starts, and a service that is being replaced; not what another attempt does not change."""
    assert Problem(problem, "why", transient=given).transient is transient


def test_the_cause_is_for_the_log_alone() -> None:
    """The document has the detail, with control characters and marks of direction escaped; the text has the cause."""
    problem = Problem(ProblemType.UPSTREAM_UNREACHABLE, "a\x1b\u202e\ud800b", cause="10.0.0.7 refuses")
    assert str(problem) == "10.0.0.7 refuses"
    assert str(Problem(ProblemType.UNKNOWN_ASSET, "why")) == "why"
    document = problem.document()
    assert b"10.0.0.7" not in document
    assert json.loads(document)["detail"] == "a\\x1b\\u202e\\ud800b"
