"""How settings are spelled, in words."""

from __future__ import annotations

import pytest

from group_service.settings import Settings as GroupSettings
from openfactory_common import patterns
from reconciler.settings import Settings as OperatorSettings
from routing_layer.settings import Settings as RoutingSettings
from state_api.settings import Settings as StateSettings

PATTERNS = sorted(
    {
        str(limit.pattern)
        for settings in (OperatorSettings, RoutingSettings, GroupSettings, StateSettings)
        for field in settings.model_fields.values()
        for limit in field.metadata
        if getattr(limit, "pattern", None)
    }
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_person_is_told_in_words(pattern: str) -> None:
    """No one has to read a regular expression to correct a variable."""
    said = patterns.message({"ctx": {"pattern": pattern}, "msg": "String should match pattern"})
    assert "pattern" not in said
    assert " " in said


def test_what_no_pattern_says_is_said_as_it_is() -> None:
    """Other errors have their own words."""
    assert patterns.message({"msg": "Value error, there is no PEM certificate in it"}).startswith("there is")
    assert patterns.message({"ctx": {"gt": 0}, "msg": "Input should be greater than 0"}).endswith("than 0")
