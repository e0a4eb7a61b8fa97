"""The conformance tests of platforms find what is wrong: one broken platform for each rule that matters most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from openfactory_common.errors import PlatformConflict
from reconciler.domain.services import LiveRegistry, LiveService, PlatformState, Record, ServiceSpec
from reconciler.testing.platform import PlatformBench, PlatformConformance
from tests.harness.fakes import FakePlatform
from tests.integration.conformance.test_fake_platform import in_memory

RULES = PlatformConformance()


class Overwriting(FakePlatform):
    """Creates over what is there, and updates whatever it finds."""

    def create_service(self, spec: ServiceSpec) -> None:
        """Replace what has the name."""
        self.services.pop(spec.name.casefold(), None)
        super().create_service(spec)

    def update_service(self, live: LiveService, spec: ServiceSpec, *marks: str) -> None:
        """Forget what was read."""
        super().update_service(self.services.get(live.name.casefold(), live), spec, *marks)


class Resentful(FakePlatform):
    """Keeps what failed for ever."""

    def update_service(self, live: LiveService, spec: ServiceSpec, failed: str = "", failure: str = "") -> None:
        """Replace it, and never clear it."""
        super().update_service(live, spec, failed or live.failed, failure or live.failure)


class Forgetful(FakePlatform):
    """Reads a spec back without its limit, and never says that a document is mounted."""

    def observe(self) -> PlatformState:
        """Leave things out."""
        state = super().observe()
        services = {
            name: replace(live, spec=live.spec and replace(live.spec, cpu_limit=0.0))
            for name, live in state.services.items()
        }
        return replace(state, services=services, registries=tuple(replace(r, mounted=False) for r in state.registries))


class Blind(FakePlatform):
    """Neither refuses constraints nor reads them back."""

    def observe(self) -> PlatformState:
        """Leave them out."""
        state = super().observe()
        specs = {name: live.spec and replace(live.spec, constraints=()) for name, live in state.services.items()}
        return replace(state, services={name: replace(live, spec=specs[name]) for name, live in state.services.items()})


class ByName(FakePlatform):
    """Removes whatever has the name now."""

    def remove_service(self, live: LiveService) -> None:
        """Look at the name only."""
        self.services.pop(live.name.casefold(), None)


class Backwards(FakePlatform):
    """Lists documents oldest first, and keeps one for each publication."""

    def observe(self) -> PlatformState:
        """Turn the list round."""
        state = super().observe()
        return replace(state, registries=state.registries[::-1])


class Restless(FakePlatform):
    """Changes something at each look."""

    def observe(self) -> PlatformState:
        """Look, and write by the way."""
        for name in self.services:
            self.touch(name)
        return super().observe()


class LastWins(FakePlatform):
    """Writes records without comparing."""

    def write_record(self, name: str, fields: Any, before: Record | None) -> None:  # noqa: ARG002 - that is what is wrong with it
        """Take whatever is there for what was read."""
        super().write_record(name, fields, self.records().get(name))


class Strict(FakePlatform):
    """Takes a second removal for an error."""

    def remove_service(self, live: LiveService) -> None:
        """Insist."""
        if live.name.casefold() not in self.services:
            raise PlatformConflict("not there")
        super().remove_service(live)

    def remove_registry(self, registry: LiveRegistry) -> None:
        """Insist."""
        if registry.name not in self.registries:
            raise PlatformConflict("not there")
        super().remove_registry(registry)


@pytest.mark.parametrize(
    ("platform", "rule"),
    [
        (Overwriting, RULES.test_a_taken_name_is_a_conflict),
        (Overwriting, RULES.test_a_write_on_what_has_changed_since_is_a_conflict),
        (Resentful, RULES.test_what_failed_is_kept_until_the_next_update_or_not_at_all),
        (Forgetful, RULES.test_what_was_created_is_read_back_as_it_was_asked_for),
        (Forgetful, RULES.test_every_field_comes_back),
        (Forgetful, RULES.test_a_mounted_document_is_kept),
        (Blind, RULES.test_an_option_comes_back_or_is_refused_in_words),
        (ByName, RULES.test_removing_is_final_and_can_be_repeated),
        (Backwards, RULES.test_documents_are_published_newest_first),
        (Restless, RULES.test_observing_changes_nothing),
        (LastWins, RULES.test_a_record_is_written_by_compare_and_swap),
        (LastWins, RULES.test_a_removed_record_can_be_written_again),
        (Strict, RULES.test_removing_is_final_and_can_be_repeated),
        (Strict, RULES.test_a_document_is_removed_once),
    ],
)
def test_a_broken_platform_breaks_its_rule(platform: type[FakePlatform], rule: Callable[[PlatformBench], None]) -> None:
    """The rule fails for it, whatever else holds, and holds for the one that conforms."""
    broken = platform()
    bench = replace(in_memory(), platform=broken, disturb=lambda name: broken.touch(name, env={}), patience=0.3)
    with pytest.raises((AssertionError, PlatformConflict, pytest.fail.Exception)):
        rule(bench)
    rule(in_memory())
