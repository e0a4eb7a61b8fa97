"""Why a request is not let in. Pure."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """The check that failed; the value is the label of the metric."""

    NO_TOKEN = "no_token"  # noqa: S105 - a label
    SEVERAL_TOKENS = "several_tokens"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    NO_KEYS = "no_keys"
    NOT_GRANTED = "not_granted"


#: What the client is told. Fixed text: nothing of a token is in a response or in a log.
DETAILS = {
    Refusal.NO_TOKEN: "a token is needed: in Authorization as Bearer, or in the cookie",
    Refusal.SEVERAL_TOKENS: "the request has several different tokens",
    Refusal.MALFORMED: "the token is not a signed JSON Web Token",
    Refusal.ALGORITHM: "the algorithm of the token is not one of its key",
    Refusal.UNKNOWN_KEY: "the key of the token is not known",
    Refusal.SIGNATURE: "the signature of the token is wrong",
    Refusal.ISSUER: "the token is of another issuer",
    Refusal.AUDIENCE: "the token is for another audience",
    Refusal.EXPIRED: "the token has expired",
    Refusal.NOT_YET_VALID: "the token is not valid yet",
    Refusal.NO_KEYS: "the key of the token cannot be read now; retry",
    Refusal.NOT_GRANTED: "the token does not grant this",
}
