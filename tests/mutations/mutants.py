"""The list of deliberate bugs: one for each rule that keeps something from being lost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug.

    Attributes:
        guard: the rule that it breaks.
        file: of the package, from the project's root.
        old: text that occurs exactly once there.
        new: what stands there instead.
        dies: tests of which at least one must fail.
    """

    guard: str
    file: str
    old: str
    new: str
    dies: tuple[str, ...]


GUARDS = "tests/loop/test_guards.py"
LOOP = "tests/loop/test_convergence.py"
MISHAPS = "tests/loop/test_mishaps.py"
UNPROVEN = "tests/loop/test_unproven.py"
SECOND = "tests/loop/test_second_lines.py"
TEARDOWN = "tests/loop/test_teardown.py"
LEASE = ("tests/unit/test_lease.py", "tests/property/test_one_writer.py", "tests/loop/test_two_operators.py")
STRAYS = "tests/loop/test_strays.py"
FAST = "tests/loop/test_fastpath.py"
LIES = "tests/faults/test_lies.py"
MATRIX = "tests/faults/test_matrix.py"
DELETED = "tests/faults/test_matrix.py::test_whatever_call_is_spoiled_the_end_is_the_same[group deleted]"
LOOKS = "tests/faults/test_catalogue_looks.py"
WRITES = "tests/faults/test_catalogue_writes.py"

_STOPS = (
    Mutant(
        "another cluster is refused",
        "reconciler/guards.py",
        "if other and not overrides.accept_identity:",
        "if False:",
        (GUARDS,),
    ),
    Mutant(
        "an empty map is refused",
        "reconciler/guards.py",
        "if not survey.observed.membership.groups and not overrides.allow_empty:",
        "if False:",
        (SECOND,),
    ),
    Mutant(
        "a guard that stops stops every write",
        "reconciler/plan.py",
        "kept = () if verdict.stopped else _permitted(",
        "kept = _permitted(",
        (GUARDS,),
    ),
    Mutant(
        "a sick server gets no statement",
        "reconciler/plan.py",
        "(action.on_ksqldb and not verdict.ddl)",
        "False",
        (GUARDS,),
    ),
    Mutant(
        "a dead command runner is seen",
        "reconciler/observe.py",
        "if not health.command_runner:",
        "if False:",
        ("tests/faults/test_lies.py::test_10_a_dead_command_runner_gets_no_statement",),
    ),
    Mutant(
        "the server's limit of queries is kept",
        "reconciler/plan.py",
        "if there + new <= facts.query_limit:",
        "if True:",
        (GUARDS,),
    ),
    Mutant("the policy is kept", "reconciler/plan.py", "action.effect not in effects or ", "", (GUARDS,)),
    Mutant(
        "a registry too large is refused",
        "reconciler/registry.py",
        "if len(data) > LIMIT_BYTES:",
        "if False:",
        ("tests/unit/test_registry.py",),
    ),
)

_PATIENCE = (
    Mutant(
        "budget: too many missing groups remove none",
        "reconciler/guards.py",
        "if len(missing) <= allowed:",
        "if True:",
        (GUARDS,),
    ),
    Mutant(
        "budget: its size",
        "reconciler/guards.py",
        "return max(1, int(fraction * owned))",
        "return max(1, owned)",
        (GUARDS,),
    ),
    Mutant(
        "an approval is for exactly one set",
        "reconciler/guards.py",
        "if overrides.approve and overrides.approve == approval_id(survey):",
        "if overrides.approve:",
        (GUARDS,),
    ),
    Mutant(
        "patience: several reads",
        "reconciler/guards.py",
        "absence.reads >= settings.prune_reads and ",
        "",
        (SECOND,),
    ),
    Mutant(
        "patience: over a grace time",
        "reconciler/guards.py",
        " and now - absence.since >= settings.prune_grace",
        "",
        (GUARDS,),
    ),
    Mutant(
        "a failed read starts the counts again",
        "reconciler/controller.py",
        "            except ReconcilerError as error:\n                self.memory = self.memory.distrust()\n",
        "            except ReconcilerError as error:\n",
        (GUARDS,),
    ),
    Mutant(
        "a read that a retry made good starts them again",
        "reconciler/controller.py",
        "if self.world.ksqldb.failures != failures:",
        "if False:",
        (GUARDS,),
    ),
    Mutant(
        "a collapse of rows starts them again",
        "reconciler/guards.py",
        "return before is not None and now < before * (1 - settings.prune_max_fraction)",
        "return False",
        (GUARDS,),
    ),
    Mutant(
        "an unwell server's absence is not believed",
        "reconciler/guards.py",
        "    if survey.observed.source.trouble or ",
        "    if ",
        (GUARDS,),
    ),
    Mutant(
        "a shrinking list of queries starts them again",
        "reconciler/guards.py",
        "_counted({} if shrinks else memory.silent, silent, now)",
        "_counted(memory.silent, silent, now)",
        (SECOND,),
    ),
    Mutant(
        "a silent stream is believed only after patience",
        "reconciler/plan_streams.py",
        "if check.verdict is StreamVerdict.SILENT and names.stream not in verdict.silent:",
        "if False:",
        (LOOP,),
    ),
    Mutant(
        "a direct question has the last word",
        "reconciler/controller.py",
        "if self.world.strategy.has_members(group):",
        "if False:",
        (GUARDS,),
    ),
    Mutant(
        "a count of members proves no absence",
        "reconciler/grouping/unslevel.py",
        "groups=groups, full=False)",
        "groups=groups)",
        (SECOND,),
    ),
    Mutant(
        "a group that the table lacks counts as there until a scan",
        "reconciler/fastpath.py",
        "groups={**counted.groups, **kept}",
        "groups=counted.groups",
        (SECOND,),
    ),
    Mutant(
        "a group that the table lacks leads to a scan",
        "reconciler/fastpath.py",
        "self._doubt = bool(lacking)",
        "self._doubt = False",
        (FAST,),
    ),
    Mutant(
        "a table that lies is found out",
        "reconciler/fastpath.py",
        "self.lying = self._differed >= PATIENCE",
        "self.lying = False",
        (FAST,),
    ),
)

_OWNERSHIP = (
    Mutant(
        "services are ours by their label",
        "reconciler/desired.py",
        "    if live.owner != settings.reconciler_owner or live.spec is None:",
        "    if live.owner is None or live.spec is None:",
        (MATRIX,),
    ),
    Mutant(
        "a service of another owner is a conflict",
        "reconciler/plan_services.py",
        "if live.owner != settings.reconciler_owner:",
        "if False:",
        (MATRIX,),
    ),
    Mutant(
        "streams are ours by lineage",
        "reconciler/survey.py",
        "if definition is None or not topology.is_shared(definition.source):",
        "if definition is None:",
        (LOOP,),
    ),
    Mutant(
        "lineage is asked again before a drop",
        "reconciler/apply.py",
        "if not (self._is_shared(description) or self._reads_shared(description)):",
        "if False:",
        (SECOND,),
    ),
    Mutant(
        "a stream without a query is asked about",
        "reconciler/strays.py",
        "return replace(source, strays=known, unasked=there - known.keys())",
        "return source",
        (STRAYS,),
    ),
    Mutant(
        "nothing is removed while a stream without a query was never asked",
        "reconciler/guards.py",
        "complete = survey.observed.membership.full and not survey.observed.source.unasked",
        "complete = survey.observed.membership.full",
        (STRAYS,),
    ),
    Mutant(
        "a task on a lost node does not run",
        "reconciler/platforms/swarm_state.py",
        'return sum(task["Status"]["State"] == "running" != task["DesiredState"] for task in tasks)',
        "return 0",
        ("tests/unit/platforms/test_swarm_state.py",),
    ),
    Mutant(
        "a shared stream is ours by its form too",
        "reconciler/ksqldb/topology.py",
        "return self.is_shared(name) and self.is_shared_form(text)",
        "return self.is_shared(name)",
        (MATRIX, MISHAPS),
    ),
    Mutant(
        "a table of counts is ours by its form too",
        "reconciler/ksqldb/topology.py",
        "return self.is_groups_table(name) and self.is_groups_form(text)",
        "return self.is_groups_table(name)",
        (MATRIX, MISHAPS),
    ),
    Mutant(
        "a teardown removes nothing of another cluster",
        "reconciler/teardown.py",
        "if other and not accept_identity:",
        "if False:",
        (TEARDOWN,),
    ),
    Mutant(
        "a teardown does not believe a server that is not well",
        "reconciler/teardown.py",
        "if source.trouble:",
        "if False:",
        (TEARDOWN,),
    ),
    Mutant(
        "a teardown keeps the registry while a stream is left",
        "reconciler/teardown.py",
        'left = left or result.outcome != "ok"',
        "left = False",
        (TEARDOWN,),
    ),
    Mutant(
        "a copy of a group's service is none of the group's",
        "reconciler/desired.py",
        "    return name == names_of(group, settings.resource_prefix).service.casefold()",
        "    return True",
        ("tests/loop/test_renaming.py",),
    ),
    Mutant(
        "a table's form is asked again before a drop",
        "reconciler/apply.py",
        "if not self._topology.is_groups_form(description.statement):",
        "if False:",
        (SECOND,),
    ),
    Mutant(
        "no service is made for a stream that is not proven ours",
        "reconciler/plan.py",
        "if not proven and not stream.actions:",
        "if False:",
        (UNPROVEN, LOOP),
    ),
    Mutant(
        "names that differ only in case are one name",
        "reconciler/names.py",
        "holder = taken.setdefault(names.slug.casefold(), group)",
        "holder = taken.setdefault(names.slug, group)",
        (SECOND,),
    ),
    Mutant(
        "a group that is served keeps its names",
        "reconciler/names.py",
        "key=lambda value: (value not in there, value)",
        "key=lambda value: value",
        (MISHAPS,),
    ),
)

_ORDER = (
    Mutant(
        "the stream comes before its service",
        "reconciler/plan.py",
        "actions = stream.actions + _after_stream(stream, service, proven=_is_proven(survey, stream, names))",
        "actions = _after_stream(stream, service, proven=True) + stream.actions",
        (MATRIX,),
    ),
    Mutant(
        "a group is registered only once its task runs",
        "reconciler/plan_registry.py",
        "ready = step.item.serves",
        "ready = True",
        (LOOP, MATRIX),
    ),
    Mutant(
        "a served group stays registered while its service restarts",
        "reconciler/plan_registry.py",
        "if ready or names.group in published:",
        "if ready:",
        (LOOP,),
    ),
    Mutant(
        "a missing group stays registered until it may go",
        "reconciler/plan_registry.py",
        "if group in survey.missing and group not in verdict.retire}",
        "if False}",
        (GUARDS, LOOP),
    ),
    Mutant(
        "the service goes only after the drain time",
        "reconciler/plan.py",
        "if group not in verdict.drained:",
        "if False:",
        (DELETED,),
    ),
    Mutant(
        "the drain time has its length",
        "reconciler/guards.py",
        "return since is not None and now - since >= settings.drain_seconds",
        "return since is not None",
        (DELETED,),
    ),
    Mutant(
        "the drain time begins when the registry was left",
        "reconciler/guards.py",
        "out = {group for group in survey.missing if survey.owned[group].url is None}",
        "out = set(survey.missing)",
        (DELETED,),
    ),
    Mutant(
        "the service goes before its stream",
        "reconciler/plan.py",
        "    if owned.service is not None:\n        if group not in",
        "    if owned.service is not None and owned.stream is None:\n        if group not in",
        (LOOP, MATRIX),
    ),
    Mutant(
        "a mounted document is kept",
        "reconciler/plan_registry.py",
        "if not live.mounted and live.name not in successors]",
        "if live.name not in successors]",
        (LOOP,),
    ),
)

_WRITING = (
    Mutant(
        "a statement of unknown outcome is not repeated at once",
        "reconciler/backoff.py",
        "if isinstance(error, KsqlUnknownOutcome):",
        "if False:",
        (WRITES, "tests/faults/test_lies.py::test_10_what_stood_queued_runs_after_the_restart_and_is_not_sent_twice"),
    ),
    Mutant(
        "what failed waits before it is tried again",
        "reconciler/backoff.py",
        "return failure is not None and now < failure.until",
        "return False",
        ("tests/faults/test_bites.py::test_5_a_blocked_command_runner_is_not_hammered",),
    ),
    Mutant(
        "a failed stream stops its group's service",
        "reconciler/apply.py",
        "broken.add(action.group)",
        "pass",
        (LOOP,),
    ),
    Mutant(
        "one group's failure stops no other",
        "reconciler/apply.py",
        "        except ReconcilerError as error:\n            return Result(action, error)\n",
        "        except ZeroDivisionError:\n            return Result(action)\n",
        (LOOP,),
    ),
    Mutant(
        "a stream over a kept topic starts at its end",
        "reconciler/apply.py",
        'return "latest" if topic in self._topics else "earliest"',
        'return "earliest"',
        (MATRIX, LOOP),
    ),
    Mutant(
        "nothing that is read is dropped",
        "reconciler/apply.py",
        'if readers:\n            raise KsqlRefused(f"stream {name} is read by',
        'if False:\n            raise KsqlRefused(f"stream {name} is read by',
        (LIES,),
    ),
    Mutant(
        "a rebuild drops nothing while a stranger reads",
        "reconciler/apply.py",
        "if not reader.startswith(STREAM_PREFIX) or not self._reads_shared(found) or _readers(found):",
        "if False:",
        (MISHAPS,),
    ),
    Mutant(
        "silence is proven before anything is made anew",
        "reconciler/apply.py",
        "if description.write_queries:\n            raise KsqlConflict",
        "if False:\n            raise KsqlConflict",
        (LIES,),
    ),
    Mutant(
        "a move is proven before a stream is dropped",
        "reconciler/apply.py",
        "if not action.topic_gone and self._is_as_planned(action.names):",
        "if False:",
        (UNPROVEN, MATRIX),
    ),
    Mutant(
        "a missing topic is asked for again",
        "reconciler/apply.py",
        "if action.topic_gone and action.names.topic in self._topics:",
        "if False:",
        (SECOND,),
    ),
    Mutant(
        "a pause holds writes back",
        "reconciler/controller.py",
        "        if self.pause is not None and self.pause.active(self.clocks.wall()):\n            return Hold(",
        "        if False:\n            return Hold(",
        ("tests/loop/test_loop.py",),
    ),
    Mutant(
        "a signal ends the cycle's writes",
        "reconciler/controller.py",
        "return self.stopping() or self.hold() is not None or",
        "return self.hold() is not None or",
        (WRITES,),
    ),
    Mutant(
        "a statement is sent only while the lease is held",
        "reconciler/fence.py",
        "        with self._writing():\n            return self._inner.execute(statement)\n",
        "        return self._inner.execute(statement)\n",
        LEASE,
    ),
    Mutant(
        "a service is created only while the lease is held",
        "reconciler/fence.py",
        "        with self._writing():\n            self._inner.create_service(spec)\n",
        "        self._inner.create_service(spec)\n",
        LEASE,
    ),
    Mutant(
        "a lease is taken only when it is stale",
        "reconciler/lease.py",
        "return self.lease is not None and now - self.since >= self.lease.seconds",
        "return self.lease is not None",
        LEASE,
    ),
    Mutant(
        "a holder stops before another may take over",
        "reconciler/lease.py",
        "WRITE_PART = 2 / 3",
        "WRITE_PART = 3 / 2",
        LEASE,
    ),
    Mutant(
        "a pause ends",
        "reconciler/pause.py",
        "return self.until is not None and now < self.until <= now + timedelta(seconds=LONGEST + _CLOCKS_APART)",
        "return self.until is not None",
        ("tests/loop/test_pause.py", "tests/loop/test_loop.py"),
    ),
    Mutant(
        "a plan is computed without a statement",
        "reconciler/readonly.py",
        "        self._withheld.writes.append(statement.sql)\n        return None\n",
        "        return self._inner.execute(statement)\n",
        (LOOKS,),
    ),
)

MUTANTS = (*_STOPS, *_PATIENCE, *_OWNERSHIP, *_ORDER, *_WRITING)


def table() -> str:
    """Return the list as the README shows it."""
    lines = ["| rule | where | what is broken | tests that die |", "| --- | --- | --- | --- |"]
    for one in MUTANTS:
        cells = (one.guard, f"`{one.file}`", f"{_code(one.old)} → {_code(one.new)}", ", ".join(map(_short, one.dies)))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _code(text: str) -> str:
    flat = " ".join(text.split())
    return f"`{flat if len(flat) <= 60 else flat[:57] + '...'}`" if flat else "(nothing)"


def _short(test: str) -> str:
    return f"`{test.removeprefix('tests/').partition('::')[0]}`"
