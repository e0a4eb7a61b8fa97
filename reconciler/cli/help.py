"""What ``--help`` says of each command besides its options: what it is for, how it ends, examples, variables.

The pages are data, so that a test can hold every one against the command line and the settings that exist.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

WIDTH = 79

EXITS: Mapping[int, str] = {
    0: "in sync, or applied and converged",
    1: "runtime error: a side did not answer, or a read was not complete",
    2: "usage or configuration; the message names the variable",
    3: "changes are pending (plan --detailed-exitcode)",
    4: "refused by a safety rule; the message says how to go on",
    5: "not converged in time, or a conflict that only a person can solve",
}
"""What each exit code means; they are part of the interface."""


@dataclass(frozen=True)
class Page:
    """The page of one command.

    Attributes:
        text: what it does, in whole sentences; paragraphs are separated by an empty line.
        exits: its exit codes, with what they mean here where that is more exact than in general.
        examples: command lines with what they do.
        variables: the settings that matter most to it.
    """

    text: str
    exits: Mapping[int, str]
    examples: tuple[tuple[str, str], ...] = ()
    variables: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """The text, wrapped."""
        return "\n\n".join(textwrap.fill(" ".join(part.split()), WIDTH) for part in self.text.split("\n\n"))

    @property
    def epilog(self) -> str:
        """What stands below the options."""
        parts = [_section("exit codes", [(str(code), text or EXITS[code]) for code, text in self.exits.items()])]
        if self.examples:
            lines = [f"  {line}\n{_indented(text)}" for line, text in self.examples]
            parts.append("\n".join(["examples:", *lines]))
        if self.variables:
            named = textwrap.fill(", ".join(self.variables), WIDTH, initial_indent="  ", subsequent_indent="  ")
            parts.append(f"variables that matter most (`reconciler settings` shows all):\n{named}")
        return "\n\n".join(parts)


def _section(title: str, pairs: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in pairs)
    lines = [
        textwrap.fill(text, WIDTH, initial_indent=f"  {name:{width}}  ", subsequent_indent=" " * (width + 4))
        for name, text in pairs
    ]
    return "\n".join([f"{title}:", *lines])


def _indented(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)


_CONNECTIONS = ("KSQLDB_URL", "KSQLDB_USERNAME", "KSQLDB_PASSWORD_FILE", "RECONCILER_OWNER", "DEPLOYMENT_PLATFORM")
_LOOKING = {0: "shown", 1: "", 2: ""}
_DOING = {0: "done", 1: "", 2: ""}

MAIN = Page(
    text="""Keeps ksqlDB streams and services equal to the groups that the UNS map names, repairs what drifts, and
    publishes where each group is served.

    Without a command it runs as a loop until SIGTERM, which is what the service in the Swarm does: a cycle every
    RECONCILE_INTERVAL seconds reads everything, decides, and writes what differs. Settings are environment variables
    or lines of a .env file; KAFKA_BROKER and KSQLDB_URL must be set. What was asked for goes to standard output, logs
    and the one-line summary to standard error.

    A command that a signal ends gives back what it holds (the lease, teardown's pause) and ends with 128 + its number:
    143 for SIGTERM, 130 for Ctrl-C. The loop ends with 0.""",
    exits=dict.fromkeys(EXITS, ""),
    examples=(
        ("reconciler", "run the loop"),
        ("reconciler --once --timeout 600", "converge within ten minutes, then exit: for CI"),
        ("reconciler plan --detailed-exitcode", "show what would be done; 3 if there is something"),
        ("reconciler status -o json", "what is, for machines"),
        ("reconciler COMMAND --help", "all about one command"),
    ),
    variables=("KAFKA_BROKER", "KSQLDB_URL", "UNS_FASTAPI_GROUP_GROUPING_LEVEL", "RECONCILE_INTERVAL",
               "RECONCILE_POLICY", "RECONCILER_OWNER"),
)  # fmt: skip

PAGES: Mapping[str, Page] = {
    "plan": Page(
        text="""Reads everything, shows what a cycle would do now, and writes nothing.

        Each line is one group or service that is not as it should be: + create, ~ update, ! repair, - remove, ? wait,
        x conflict. A removal that waits for its grace time here is at its first read,
        unless the operator that runs answers here or at RECONCILER_URL: then its counts are shown. A note names what
        the writes would miss: a network, a secret, a stream or a table that somebody else has to make.""",
        exits={
            0: "shown; with --detailed-exitcode: everything is as it should be",
            1: "",
            2: "",
            3: "--detailed-exitcode: there is something to do, or something on its way",
            4: "",
            5: "--detailed-exitcode: nothing to do, but a group is degraded or in conflict: a person has to look",
        },
        examples=(
            ("reconciler plan", "for a terminal"),
            ("reconciler plan -o markdown --detailed-exitcode", "a comment for a pull request, and whether to post it"),
            ("reconciler plan -o json | jq '.actions'", "every write, in order; docs/schema has the schema"),
        ),
        variables=(*_CONNECTIONS, "PRUNE_MAX_FRACTION"),
    ),
    "status": Page(
        text="""Shows every group and service as it is: condition, members, stream, service, running and wanted tasks,
        URL, and the reason where it is not Ready. Reads everything, writes nothing. A terminal that is too narrow
        leaves out what follows from a group's name; a pipe and -o json have everything. The running operator shows the
        same at http://<manager>:RECONCILER_PORT/ for people and at /status for machines.""",
        exits=_LOOKING,
        examples=(
            ("reconciler status", "a table; on a terminal in colour, in a pipe without"),
            ("reconciler status -o json | jq '.counts'", "how many groups have each condition"),
        ),
        variables=_CONNECTIONS,
    ),
    "why": Page(
        text="""Shows all that is known about one group: its members, stream, service and tasks, what was decided about
        it and by which rule, and what to do. Reads everything, writes nothing.""",
        exits={**_LOOKING, 2: "there is no such group, or usage or configuration; the message names it"},
        examples=(("reconciler why Weld", "why is this group not served?"),),
        variables=_CONNECTIONS,
    ),
    "deploy": Page(
        text="""Converges, then exits: the same as --once. Cycles are run until everything is as it should be or cannot
        become so, and the grace time of removals that are due is waited out, too.""",
        exits={0: "everything is as it should be", 1: "", 2: "", 4: "", 5: ""},
        examples=(
            ("reconciler deploy --timeout 600", "wait at most ten minutes for groups to become ready"),
            ("reconciler deploy --no-prune", "leave groups without assets alone, and do not wait for them"),
            ("reconciler deploy --approve 1a2b3c4d", "let exactly the refused removals with this id through"),
            ("reconciler deploy --adopt legacy", "this is what was made before there were installation ids"),
        ),
        variables=(*_CONNECTIONS, "PRUNE_READS", "PRUNE_GRACE", "PRUNE_MAX_FRACTION"),
    ),
    "pause": Page(
        text="""Holds all writes back for a while, whichever operator of this owner would do them, also over restarts.
        Operators go on reading and showing what they would do. A pause ends by itself.""",
        exits={**_DOING, 5: "written down, but an operator may still be in the middle of a write"},
        examples=(("reconciler pause --for 30m --reason 'Kafka upgrade'", "nothing is changed for half an hour"),),
        variables=("RECONCILER_OWNER", "DEPLOYMENT_PLATFORM"),
    ),
    "resume": Page(
        text="Ends a pause, for every operator of this owner.",
        exits=_DOING,
        examples=(("reconciler resume", "go on now"),),
        variables=("RECONCILER_OWNER", "DEPLOYMENT_PLATFORM"),
    ),
    "teardown": Page(
        text="""Removes all services, streams and configs of this owner, and nothing else: services first, then streams,
        then the registry. On a terminal it asks first. It can be run again wherever it stopped. Topics stay unless
        DELETE_TOPICS=true.

        An operator that still runs is paused for ten minutes, and then makes everything again: end it after the
        teardown and within that time. The last line says until when. Where a signal ends the command in the middle, the
        pause ends with it.

        Nothing at all is removed while another cluster answers than the one in the registry, or while ksqlDB does not
        answer, or is not well.""",
        exits={
            0: "everything is removed, or the question was not answered with yes",
            1: "something is left; everything, if ksqlDB cannot be read or is not well",
            2: "",
            4: "nothing was removed: another cluster answers, the record of the installation is gone, or an operator "
            "that runs does not give its lease up",
            5: "what others built on streams of ours stays, and with it those streams",
        },
        examples=(
            ("reconciler teardown --yes", "without a question"),
            (
                "reconciler teardown --keep-streams",
                "leave the streams: clients of Kafka go on reading; also where ksqlDB is gone for good",
            ),
            ("reconciler teardown --accept-identity", "also the streams of another cluster than the registry's"),
            ("reconciler teardown --adopt 1a2b3c4d", "what this installation made, where its record is gone"),
        ),
        variables=(*_CONNECTIONS, "DELETE_TOPICS"),
    ),
    "runserver": Page(
        text="""Runs the routing layer in this process, on ROUTING_LAYER_PORT, with the published registry as its boot
        copy: for ENVIRONMENT=local and for looking into it. Ends at SIGTERM or Ctrl-C, after a drain.""",
        exits={0: "ended by a signal", 1: "", 2: ""},
        examples=(("ENVIRONMENT=local reconciler runserver", "serve on localhost:5555"),),
        variables=("KSQLDB_URL", "ROUTING_LAYER_PORT", "RECONCILER_URL", "LOG_LEVEL"),
    ),
    "settings": Page(
        text="""Shows every setting by its variable, with the value that is in force and where it comes from. Secrets
        are not shown. Works with bad values, too, and points out variables that look like a typing error.""",
        exits={0: "the operator would start with them", 2: "a value is bad, or one that must be set is not"},
        examples=(("reconciler settings -o markdown", "for a ticket"),),
    ),
    "schema": Page(
        text="""Prints the JSON Schema (2020-12) of a document that another command prints with -o json. The same files
        are in docs/schema. Fields may be added; none is renamed or removed without another schema_version.""",
        exits={0: "printed", 2: ""},
        examples=(("reconciler schema plan > plan.schema.json", "to check documents with"),),
    ),
    "completion": Page(
        text="""Prints a script that lets the shell complete commands and options. It needs no settings.""",
        exits={0: "printed", 2: ""},
        examples=(
            ('eval "$(reconciler completion bash)"', "in this bash, or in ~/.bashrc"),
            ("reconciler completion bash > /etc/bash_completion.d/reconciler", "for everybody"),
            ('reconciler completion zsh > "${fpath[1]}/_reconciler"', "for zsh, before compinit"),
        ),
    ),
    "migrate": Page(
        text="""Comes from the system before this one (services stream-api-group-<name>, serving_layer_router and
        openfactory-state-api; a join for each group), step by step. Without an option it shows what is there of the
        old, what stands beside it, what blocks, and the next step, and changes nothing.

        Every step can be run again, is refused where it is not safe, and can be taken back until --remove-old.
        Nothing is touched that has not exactly the old system's shape. docs/migrate.md tells the whole way.""",
        exits={
            0: "shown, done, or already done",
            1: "",
            2: "",
            4: "a step is refused; the message says what has to come first",
            5: "done, but not ready in time",
        },
        examples=(
            ("reconciler migrate", "what is there, and what comes next"),
            ("reconciler migrate --start", "free the names of the old streams; their topics stay fed"),
            ("reconciler migrate --switch", "give the old router's port to the new one"),
            ("reconciler migrate --back", "give it back, or the streams' names"),
            ("reconciler migrate --remove-old", "remove the old system"),
        ),
        variables=(*_CONNECTIONS, "ROUTING_LAYER_PORT", "ROUTING_LAYER_PUBLISH", "DELETE_TOPICS"),
    ),
}
"""The page of every command."""
