"""``why GROUP``: everything that is known about one group."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from openfactory_common.errors import ConfigurationError
from openfactory_common.text import printable_json
from reconciler.cli.output import add_command, add_output_option, complete_groups, echo
from reconciler.cli.running_operator import NoResponse, ask
from reconciler.cli.show import make_reader
from reconciler.control.converge import Exit
from reconciler.report.why import SHARED, WhyDocument, explain_group, find_similar, known_groups, make_context, why_text
from reconciler.settings import Settings

#: Groups that are named when no name is similar.
_NAMED = 10
DIRECT = "direct read, no history"


class UnknownGroup(ConfigurationError):
    """There is no group of this name."""


def add(commands: Any) -> None:
    """Register ``why``."""
    parser = add_command(commands, "why", _why)
    text = f"the group's value in the UNS, spelled exactly; or {', '.join(SHARED)}"
    complete_groups(parser.add_argument("group", metavar="GROUP", help=text))
    add_output_option(parser, "text", "json")


def _why(options: argparse.Namespace, settings: Settings) -> int:
    """Explain one group, or what all share: its state, the reason, and what to do.

    It shows the members, stream, service and tasks of the group, the decision about it, the rule behind it, and the
    next step. The routing layer, the state API, the shared stream and the operator itself are explained too; a group of
    such a name comes first: write service:routing_layer. The running operator answers if it is reachable: it has the
    counters and the objects in backoff. Otherwise the command reads everything itself. It writes nothing.
    """
    document = find_group(options.group, settings)
    echo(printable_json(document.model_dump_json(indent=2)) if options.output == "json" else why_text(document))
    return Exit.OK


def find_group(group: str, settings: Settings) -> WhyDocument:
    """Ask the running operator; without a usable response, read directly and say why.

    Raises:
        UnknownGroup: there is no such group; names those that may be meant.
        ReconcilerError: no operator answered, and a read failed.
    """
    if not group.strip():
        raise UnknownGroup(f"{group!r} is not a group: an empty value at the level names no group")
    response = ask(settings, f"/groups/{quote(group, safe='', errors='surrogatepass')}")
    if isinstance(response, NoResponse):
        return _read_directly(group, settings, response.why)
    if "close" in response.document:
        raise unknown_group(group, response.document["close"], response.document.get("known", ()))
    try:
        return WhyDocument.model_validate({**response.document, "source": f"the operator at {response.url}"})
    except ValidationError:
        reason = response.document.get("detail") or "it has another version"
        return _read_directly(group, settings, f"{response.url} has no answer: {reason}")


def _read_directly(group: str, settings: Settings, reason: str) -> WhyDocument:
    controller = make_reader(settings)
    survey, verdict = controller.observe()
    context = make_context(controller, survey, controller.plan(survey, verdict), controller.clocks.wall())
    document = explain_group(group, context, f"{DIRECT} ({reason})")
    if document is None:
        raise unknown_group(group, find_similar(group, survey), sorted(known_groups(survey)))
    return document


def unknown_group(group: str, similar: Sequence[str], known: Sequence[str]) -> UnknownGroup:
    """Name the groups that may be meant."""
    if similar:
        hint = f"similar names: {', '.join(map(repr, similar))}; `reconciler status` shows all"
    elif not known:
        hint = "there is no group at all; `reconciler plan` says why"
    else:
        hint = f"the groups are {', '.join(map(repr, known[:_NAMED]))}"
        if len(known) > _NAMED:
            hint += f" and {len(known) - _NAMED} more; `reconciler status` shows all"
    return UnknownGroup(f"no group {group!r}; {hint}")
