"""What ``--help`` of each command adds to the docstring of its function: exit codes, examples, variables.

The pages are data, so that a test compares every page with the command line and the settings.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

WIDTH = 79

EXITS: Mapping[int, str] = {
    0: "in sync, or applied and converged",
    1: "runtime error: ksqlDB or Docker did not answer, or a read was incomplete",
    2: "usage or configuration error; the message names the option or variable",
    3: "changes are pending (plan --detailed-exitcode)",
    4: "refused by a safety rule; the message says what to do",
    5: "not converged in time, or a conflict or halted rollout that needs manual intervention",
}
"""What each exit code means; they are part of the interface."""


@dataclass(frozen=True)
class Page:
    """What stands below the options of one command.

    Attributes:
        exits: its exit codes; an empty text stands for the general meaning.
        examples: command lines, each with what it does.
        variables: the settings that matter most.
    """

    exits: Mapping[int, str]
    examples: tuple[tuple[str, str], ...] = ()
    variables: tuple[str, ...] = ()

    @property
    def epilog(self) -> str:
        """The page as text."""
        exits = [_fill(text or EXITS[code], f"  {code}  ", 5) for code, text in self.exits.items()]
        examples = [f"  {line}\n{_fill(text, ' ' * 6, 6)}" for line, text in self.examples]
        parts = ["\n".join(["exit codes:", *exits]), "\n".join(["examples:", *examples])]
        if self.variables:
            names = _fill(", ".join(self.variables), "  ", 2)
            parts.append(f"most important variables (`reconciler settings` shows all):\n{names}")
        return "\n\n".join(parts)


def wrap(text: str) -> str:
    """Wrap paragraphs, which are separated by an empty line."""
    return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in text.split("\n\n"))


def _fill(text: str, first: str, indent: int) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=" " * indent)


_CONNECTIONS = ("KSQLDB_URL", "KSQLDB_USERNAME", "KSQLDB_PASSWORD_FILE", "RECONCILER_OWNER", "DEPLOYMENT_PLATFORM")
_SHOWN = {0: "shown", 1: "", 2: ""}
_DONE = {0: "done", 1: "", 2: ""}
_PRINTED = {0: "printed", 2: ""}

MAIN = Page(
    dict.fromkeys(EXITS, ""),
    (
        ("reconciler", "run the loop"),
        ("reconciler --once --timeout 600", "converge within ten minutes, then exit: for CI"),
        ("reconciler plan --detailed-exitcode", "show the plan; exit with 3 if there is something to do"),
        ("reconciler status -o json", "the current state, for programs"),
        ("reconciler COMMAND --help", "help for one command"),
    ),
    ("KAFKA_BROKER", "KSQLDB_URL", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "RECONCILE_INTERVAL", "RECONCILE_POLICY"),
)

PAGES: Mapping[str, Page] = {
    "plan": Page(
        _SHOWN
        | {
            3: "--detailed-exitcode: changes are pending or in progress",
            4: "",
            5: "--detailed-exitcode: nothing to do, but a degraded group or a conflict needs manual intervention",
        },
        (
            ("reconciler plan", "for a terminal"),
            ("reconciler plan -o markdown --detailed-exitcode", "a comment for a pull request, and whether to post it"),
            ("reconciler plan -o json | jq '.actions'", "every write, in order; docs/schema has the schema"),
        ),
        (*_CONNECTIONS, "PRUNE_MAX_FRACTION"),
    ),
    "status": Page(
        _SHOWN,
        (
            ("reconciler status", "a table, in colour on a terminal"),
            ("reconciler status -w", "shown again when it changes"),
            ("reconciler status -o json | jq '.counts'", "how many groups have each condition"),
        ),
        _CONNECTIONS,
    ),
    "why": Page(
        _SHOWN | {2: "no such group, or a usage or configuration error; the message names it"},
        (
            ("reconciler why Weld", "why is this group not served?"),
            ("reconciler why service:routing_layer", "why is the routing layer not ready?"),
        ),
        _CONNECTIONS,
    ),
    "deploy": Page(
        {0: "in sync", 1: "", 2: "", 4: "", 5: ""},
        (
            ("reconciler deploy --timeout 600", "wait at most ten minutes for groups to become ready"),
            ("reconciler deploy --no-prune", "keep groups without assets, and do not wait for their removal"),
            ("reconciler deploy --approve 1a2b3c4d", "approve exactly the refused removals with this id"),
            ("reconciler deploy --adopt legacy", "adopt objects from before there were installation ids"),
        ),
        (*_CONNECTIONS, "PRUNE_READS", "PRUNE_GRACE", "PRUNE_MAX_FRACTION"),
    ),
    "pause": Page(
        _DONE | {5: "recorded, but an operator may still be in the middle of a write"},
        (
            ("reconciler pause --for 30m --reason 'Kafka upgrade'", "no changes for half an hour"),
            ("reconciler pause Paint --for 7d --reason 'audit'", "Paint must not be touched this week"),
        ),
        ("RECONCILER_OWNER", "DEPLOYMENT_PLATFORM"),
    ),
    "resume": Page(
        _DONE,
        (("reconciler resume", "end the pause now"), ("reconciler resume Paint", "end that of one group")),
        ("RECONCILER_OWNER", "DEPLOYMENT_PLATFORM"),
    ),
    "delete": Page(
        {
            0: "it is gone, or the answer to the question was no",
            1: "",
            2: "no such group, or a usage or configuration error; the message names it",
            4: "nothing is removed: it has assets or is paused, or a safety rule refuses; the message says what to do",
            5: "not removed in time; the request stays valid for an hour",
        },
        (("reconciler delete Paint", "its last asset has been moved, and it should go now"),),
        (*_CONNECTIONS, "RECONCILER_URL", "RECONCILE_POLICY"),
    ),
    "adopt": Page(
        {
            0: "shown, nothing to adopt, or adopted and converged",
            1: "",
            2: "no such group or installation, or a usage or configuration error; the message names it",
            4: "it belongs to others, or a safety rule refuses; nothing was changed",
            5: "",
        },
        (
            ("reconciler adopt Paint", "what has Paint's names, whose it is, and what adopting it would do"),
            ("reconciler adopt Paint --replace --yes", "also a stream: it is dropped and created again"),
            ("reconciler adopt 1a2b3c4d --yes", "all objects of an installation whose record is lost"),
        ),
        _CONNECTIONS,
    ),
    "teardown": Page(
        {
            0: "everything is removed, or the answer to the question was no",
            1: "something is left; everything, if ksqlDB cannot be read or is not healthy",
            2: "",
            4: "nothing was removed: another cluster answers, the installation record is missing, or a running "
            "operator does not release its lease",
            5: "objects of others depend on streams of this installation; those streams are kept",
        },
        (
            ("reconciler teardown --yes", "without confirmation"),
            (
                "reconciler teardown --keep-streams",
                "keep the streams: Kafka clients continue to read; also if ksqlDB is permanently lost",
            ),
            ("reconciler teardown --accept-identity", "also on another cluster than the one in the registry"),
            ("reconciler teardown --adopt 1a2b3c4d", "objects of this installation, if its record is missing"),
        ),
        (*_CONNECTIONS, "DELETE_TOPICS"),
    ),
    "runserver": Page(
        {0: "ended by a signal", 1: "", 2: ""},
        (("ENVIRONMENT=local reconciler runserver", "serve on localhost:5555"),),
        ("KSQLDB_URL", "ROUTING_LAYER_PORT", "RECONCILER_URL", "LOG_LEVEL"),
    ),
    "doctor": Page(
        {
            0: "nothing fails; there may be warnings",
            2: "the settings cannot be used",
            4: "something fails; its line says what to do",
        },
        (
            ("reconciler doctor", "before the first deployment"),
            ("reconciler doctor -o json | jq '.findings[] | select(.level == \"fail\")'", "what fails, for programs"),
        ),
        (*_CONNECTIONS, "DOCKER_NETWORK", "UNS_FASTAPI_GROUP_GROUPING_LEVEL"),
    ),
    "settings": Page(
        {0: "the operator would start with these settings", 2: "a value is invalid, or a required one is not set"},
        (("reconciler settings -o markdown", "for a ticket"),),
    ),
    "events": Page(
        _SHOWN | {1: "no running operator answers"},
        (
            ("reconciler events --since 8h", "what happened last night"),
            ("reconciler events Weld -w", "this group, and go on with each new event"),
            ("reconciler events -o json | jq '.events'", "for programs; docs/schema has the schema"),
        ),
        ("RECONCILER_URL", "RECONCILER_PORT", "RECONCILER_OWNER", "RECONCILER_TOKEN_FILE"),
    ),
    "wait": Page(
        {0: "the group has the condition", 1: "", 2: "", 5: "it does not have it in time; the message says why"},
        (
            ("reconciler wait Weld --for Ready --timeout 120", "in a script, after the first asset was mapped"),
            ("reconciler wait Weld --for Gone", "after the last asset was removed from the map"),
        ),
        ("RECONCILER_URL", "RECONCILER_PORT", "RECONCILER_OWNER", "RECONCILER_TOKEN_FILE"),
    ),
    "logs": Page(
        _SHOWN | {2: "no such group, or a usage or configuration error; the message names it"},
        (
            ("reconciler logs Weld", "the last 100 lines of each task"),
            ("reconciler logs Weld -f --tail 0", "only what comes from now on"),
        ),
        ("RECONCILER_OWNER", "DEPLOYMENT_PLATFORM"),
    ),
    "schema": Page(_PRINTED, (("reconciler schema plan > plan.schema.json", "to validate documents"),)),
    "completion": Page(
        _PRINTED,
        (
            ('eval "$(reconciler completion bash)"', "in this bash, or in ~/.bashrc"),
            ("reconciler completion bash > /etc/bash_completion.d/reconciler", "for all users"),
            ('reconciler completion zsh > "${fpath[1]}/_reconciler"', "for zsh, before compinit"),
        ),
    ),
    "migrate": Page(
        _DONE | {4: "a step is refused; the message says what comes first", 5: "done, but not ready in time"},
        (
            ("reconciler migrate", "show the current state and the next step"),
            ("reconciler migrate --start", "free the names of the old streams; their topics keep receiving data"),
            ("reconciler migrate --switch", "move the old router's port to the new one"),
            ("reconciler migrate --back", "move the port back, or give the streams their old names back"),
            ("reconciler migrate --remove-old", "remove the old system"),
        ),
        (*_CONNECTIONS, "ROUTING_LAYER_PORT", "ROUTING_LAYER_PUBLISH", "DELETE_TOPICS"),
    ),
}
"""The page of every command."""
