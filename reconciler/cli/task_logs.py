"""``logs GROUP``: what the tasks of a group's service write."""

from __future__ import annotations

import argparse
from typing import Any

from prometheus_client import CollectorRegistry

from openfactory_common.errors import ConfigurationError
from openfactory_common.text import printable
from reconciler.app import build_platform
from reconciler.cli.output import add_command, add_output_option, complete_groups, echo, make_json
from reconciler.control.converge import Exit
from reconciler.domain import installation
from reconciler.metrics import Metrics
from reconciler.planning.specs import is_ours
from reconciler.platforms.protocol import TaskLogs
from reconciler.settings import Settings

_TAIL = 100
_MOST = 1_000_000


def add(commands: Any) -> None:
    """Register ``logs``."""
    parser = add_command(commands, "logs", _logs)
    complete_groups(parser.add_argument("group", metavar="GROUP", help="the group's value in the UNS, spelled exactly"))
    parser.add_argument("-f", "--follow", action="store_true", help="go on with each new line, until Ctrl-C")
    parser.add_argument("--tail", type=_parse_tail, metavar="N", help=f"the last lines of each task ({_TAIL})")
    add_output_option(parser, "text", "json")


def _parse_tail(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise argparse.ArgumentTypeError(f"{text!a} is not a number of lines from 0 to {_MOST}")
    return int(text)


def _logs(options: argparse.Namespace, settings: Settings) -> int:
    """Show what the tasks of a group's service write.

    Each line has its task in front of it. The platform has the lines, also those of tasks that have ended, as long as
    it keeps them. With -o json, each line is one object.
    """
    platform = build_platform(settings, Metrics(CollectorRegistry()))
    try:
        state = platform.observe()
        if (recorded := installation.parse(state.records.get(installation.RECORD))) is not None:
            state = installation.sift(state, settings.reconciler_owner, recorded)
        found = [
            live
            for live in state.services.values()
            if is_ours(live, settings) and live.spec is not None and live.spec.group == options.group
        ]
        if not found:
            raise ConfigurationError(f"group {options.group!r} has no service of ours; `reconciler status` shows all")
        if not isinstance(platform, TaskLogs):
            raise ConfigurationError(f"DEPLOYMENT_PLATFORM={settings.deployment_platform} cannot show logs of tasks")
        follow = getattr(options, "follow", False)
        for line in platform.task_logs(found[0], getattr(options, "tail", _TAIL), follow=follow):
            if options.output == "json":
                echo(make_json(task=line.task, text=line.text))
            else:
                echo(f"{printable(line.task)} | {printable(line.text, keep=chr(9))}")
    finally:
        platform.close()
    return Exit.OK
