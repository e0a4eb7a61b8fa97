"""``adopt``: take over objects of an earlier installation, or what a user made under a group's names."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from openfactory_common.text import printable
from reconciler.cli.output import add_command, add_timeout_option, ask_to_go_on, complete_groups, echo, echo_error
from reconciler.cli.run import deploy
from reconciler.cli.show import make_reader
from reconciler.cli.why import unknown_group
from reconciler.control.controller import Controller
from reconciler.control.converge import Exit
from reconciler.domain.installation import find_objects, is_id
from reconciler.domain.services import ServiceSpec
from reconciler.planning.adoption import offer_adoption
from reconciler.planning.survey import Survey
from reconciler.platforms.protocol import Platform
from reconciler.report.why import find_similar, known_groups
from reconciler.settings import Settings


def add(commands: Any) -> None:
    """Register ``adopt``."""
    parser = add_command(commands, "adopt", _adopt)
    text = "a group, spelled exactly; or the id of an installation: 8 hex digits, or 'legacy'"
    complete_groups(parser.add_argument("target", metavar="GROUP|ID", help=text))
    parser.add_argument(
        "--replace", action="store_true", help="also drop a stream that a user made, for the group's own"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_timeout_option(parser)


def _adopt(options: argparse.Namespace, settings: Settings) -> int:
    """Take over a service or stream that a user made, or an earlier installation.

    It shows what has the names of the group and is not ours, whose it is, and what adopting it does; on a terminal it
    then asks, elsewhere --yes does it. After that it does what --once does. What belongs to another owner or another
    installation is refused, and what changed since it was shown is not touched.

    With the id of an installation, all its objects become this one's, as with `deploy --adopt ID`.
    """
    controller = make_reader(settings)
    survey, _ = controller.observe()
    if options.target in known_groups(survey):
        return _adopt_group(options, settings, controller, survey)
    if not is_id(options.target):
        raise unknown_group(options.target, find_similar(options.target, survey), sorted(known_groups(survey)))
    return _adopt_installation(options, settings, controller, survey)


def _adopt_group(options: argparse.Namespace, settings: Settings, controller: Controller, survey: Survey) -> int:
    group = options.target
    deps = controller.deps
    offer = offer_adoption(
        group,
        survey,
        deps.topology,
        settings,
        controller.find_held(survey),
        deps.groups_file.current,
        _read_theirs(group, survey, deps.platform),
    )
    for line in offer.shown:
        echo(printable(line))
    if offer.refusals:
        return _refuse("; ".join(offer.refusals))
    if offer.adoption is None:
        echo(f"nothing to adopt: whatever has the names of group {printable(group)} is ours")
        return Exit.OK
    if offer.adoption.stream and not options.replace:
        return _refuse("the stream would be dropped and created again: --replace says that this is intended")
    options.adoption = offer.adoption
    return _go_on(options, settings, f"Adopt what has the names of group {printable(group)}?")


def _read_theirs(group: str, survey: Survey, platform: Platform) -> ServiceSpec | None:
    """Read the service that has a group's name and is not ours, on a platform that can."""
    names = survey.wanted.get(group)
    live = survey.observed.platform.services.get(names.service.casefold()) if names is not None else None
    read = getattr(platform, "read_foreign", None)  # a dry run's adapter has every method of the one within
    theirs: ServiceSpec | None = read(live) if read is not None and live is not None and live.spec is None else None
    return theirs


def _adopt_installation(options: argparse.Namespace, settings: Settings, controller: Controller, survey: Survey) -> int:
    identity, ours = options.target, controller.deps.topology.installation
    owner = settings.reconciler_owner
    found = find_objects(controller.deps.platform.observe(), survey.observed.source.streams, owner)
    if identity not in found:
        return _refuse(f"nothing of installation {identity} is here; found: {', '.join(found) or 'none at all'}")
    for line in found[identity]:
        echo(printable(line))
    echo(f"all of this is of owner {owner}, installation {identity}; adopt it only if no operator of it runs elsewhere")
    if ours.owns(identity):
        echo("nothing to adopt: it is ours")
        return Exit.OK
    options.adopt = identity
    return _go_on(options, settings, f"Adopt installation {identity}?")


def _go_on(options: argparse.Namespace, settings: Settings, question: str) -> int:
    """Do it, after the question; where it cannot be asked, what was shown is all."""
    if not options.yes and not sys.stdin.isatty():
        echo("nothing was changed; --yes adopts it")
        return Exit.OK
    if not ask_to_go_on(question, yes=options.yes):
        return Exit.OK
    options.no_prune = True  # it waits for no group that leaves
    return deploy(options, settings)


def _refuse(refusal: str) -> Exit:
    echo_error(f"nothing was changed: {printable(refusal)}")
    return Exit.REFUSED
