"""Where the embedded ksqlDB differs from the recorded one, and what a replay needs that the corpus does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.demo.ksqldb.running import MAP, TOPOLOGY, group_stream, mapping

README = Path(__file__).resolve().parents[3] / "demo" / "ksqldb" / "README.md"

_STREAMS = "There is no Kafka Streams: no topology, execution plan, task or offset to show."
_PROTOBUF = "The protobuf form is not spoken: 406."
_AT_ONCE = "Table changes are shown at once, not folded into one per commit interval of 2 s."
DIFFERENCES: dict[str, str] = {
    "basic/list-all-topics": "Internal topics are listed from the moment of CREATE, not when Kafka Streams makes them.",
    "basic/list-queries-extended": _STREAMS,
    "basic/explain-query": _STREAMS,
    "ddl/prop-threads-describe": _STREAMS,
    "basic/pull-full-query-stream-protobuf": _PROTOBUF,
    "basic/pull-full-query-protobuf": _PROTOBUF,
    "basic/pull-print-delimited": "Records of a group table are in the order of their changes, not of the cache.",
    "push/push-table-fast-changes-none": _AT_ONCE,
    "push/push-table-fast-changes-star": _AT_ONCE,
    "push/push-table-tombstone-vnd-json-cache0": "The history shown includes changes that Kafka's cache had folded.",
    "push/push-table-join-tombstone": "Joins of two tables are refused.",
    "ddl-blocked/cor-twice-list": "A CREATE OR REPLACE that still runs is not listed with its new text.",
    "names/name-dash-unquoted": "The parser lists every word that could follow, ksqlDB's fewer.",
    "limits/cluster-status": "There is no heartbeat, so /clusterStatus is 404, as with ksqlDB's default settings.",
    "topology/topology-describe": "The message counts (clusterStatistics) are those of the events that came here.",
}

# Scenarios that ran on one server, one after the other, with that server's settings.
CHAINS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("basic", "push"), {}),
    (("ddl", "ddl-blocked"), {}),
    (("names",), {}),
    (("parallel", "kafka-down"), {}),
    (("limits",), {"query_limit": 4, "push_limit": 1}),
    (("rate",), {}),
    (("topology", "kafka-short", "leave-group"), {}),
    (("groups",), {}),
    (("restart",), {}),
)

# A command that changes nothing but the sequence number, where the recorded server had run one that is no case.
COMMAND = "DROP STREAM IF EXISTS nothing_there;"
SOURCE_TABLE = (
    "CREATE SOURCE TABLE src_map (asset_uuid VARCHAR PRIMARY KEY, uns_id VARCHAR) "
    "WITH (KAFKA_TOPIC='asset_to_uns_map_topic', VALUE_FORMAT='JSON');"
)
MEMBERS = {
    "G0000": 2, "G0001": 2, "G0002": 2, "SG0": 0, "SG1": 1, "SG2": 1, "SG3": 1, "SG4": 1, "SG5": 1, "SG6": 1,
    "SG7": 1, "SG8": 1, "SG9": 1,
}  # fmt: skip

# Statements that the recorded server had been given, and that are no case of the corpus.
BETWEEN: dict[str, tuple[str, ...]] = {
    "basic/pull-right-after-ctas": (MAP,),
    "basic/create-filter-props": (group_stream("asset_stream_Weld", "Weld"),),
    "ddl-blocked/cor-twice-setup": (
        COMMAND,
        group_stream("asset_stream_Other", "Other"),
        "DROP STREAM `asset_stream_Weld`;",
    ),
    "names/names-setup-4": (MAP,),
    "names/source-table-insert": (
        COMMAND,
        group_stream("asset_stream_csv", "x").replace("'asset_stream_csv'", "'csv'").replace("JSON", "DELIMITED"),
        SOURCE_TABLE,
    ),
    "kafka-down/kdead-health": ("DROP STREAM `same` DELETE TOPIC;",),
    "kafka-down/kdown-before": (mapping("A", "GA"), mapping("B", "GB")),
    "kafka-short/kshort-before": (mapping("K1", "GK1"),),
    "kafka-short/kshort-after": (mapping("K2", "GK2"),),
    "groups/group-count-zero": (
        *TOPOLOGY,
        *(mapping(f"{group}-{number}", group) for group, count in MEMBERS.items() for number in range(count)),
        mapping("gone", "SG0"),
        mapping("gone", "SG1"),
    ),
    "groups/group-positive-only": (mapping("SG2-0", None), mapping("SG3-0", None)),
    "restart/restart-100-query-stream-400-1": TOPOLOGY,
}

# Commands that were still executing before: wait until they are done.
AWAITED = {
    "ddl/drop-source-without-topic-2": "/status/stream/DTR_READER/drop",
    "kafka-short/kshort-create-1": "/status/stream/%60ks1%60/create",
    "ddl-blocked/cor-twice-status-after": "/status/stream/%60cor_F%60/create",
}

# Push queries that were open meanwhile.
MEANWHILE: dict[str, str] = {
    "push/terminate-push": "SELECT * FROM asset_to_uns_map EMIT CHANGES;",
    "limits/limit-push": "SELECT * FROM ofa_groups EMIT CHANGES;",
}

ONCE = {"times": 1}
# Fault switches that make the recorded bad day. Each list begins with the first case it holds for.
BAD_DAYS: dict[str, dict[str, Any]] = {
    "basic/pull-right-after-ctas": {"pull_not_ready": ONCE},
    "ddl/drop-source-without-topic": {"executing": {"value": 0, "times": 1}},
    "ddl/drop-source-without-topic-2": {"blocked_runner": {"value": 0, "times": 1}},
    "ddl-blocked/cor-twice-2": {"executing": {"value": 1.5, "times": 1}},
    "ddl-blocked/cor-twice-other-ddl": {"blocked_runner": 0},
    "ddl-blocked/cor-twice-health-late": {"dead_runner": 0},
    **{
        f"parallel/parallel-{each}": {"fenced": ONCE}
        for each in ("two-0-1", "two-1-1", "two-2-1", "two-3-0", "six-1", "six-0", "six-2", "six-5", "six-3", "same-1")
    },
    "kafka-down/kdown-health": {"kafka_down": 0, "dead_runner": 0},
    "kafka-down/kdown-push": {"hang": {"value": 30, "times": 1}},
    "kafka-down/kdown-list-topics": {"hang": {"value": 30, "times": 1}},
    "kafka-down/kdown-pull-late": {"lost_row": {"table": "OFA_GROUPS", "key": "GB"}},
    "kafka-down/kdown-after-create": {"kafka_down": False, "queued": ONCE},
    "kafka-down/kdead-after-restart-health": {"dead_runner": False},
    "kafka-down/kdead-after-update-groups": {"lost_row": False},
    "kafka-short/kshort-ddl-10s-timeout": {"ddl_timeout": {"value": 1.5, "times": 1}},
    "limits/limit-drop": {"executing": {"value": 3600, "times": 1}},
    "rate/rate-2": {"rate_limited": True},
    "restart/restart-100-query-stream-400-1": {"pull_shutdown": ONCE},
    **{
        f"restart/{each}": {"not_ready": ONCE}
        for each in (
            "restart-100-info-503-2", "restart-100-healthcheck-503-3", "restart-100-ksql-503-4",
            "restart-100-query-stream-503-5", "kill-100-info-503-1", "kill-100-healthcheck-503-2",
            "kill-100-ksql-503-3", "kill-100-query-stream-503-4", "restart-10-info-503-3",
            "restart-10-healthcheck-503-4", "restart-10-ksql-503-5", "restart-10-query-stream-503-6",
        )
    },
    "restart/kill-100-query-stream-400-5": {"pull_not_ready": ONCE},
    "restart/kill-100-pull-empty": {"empty_pull": ONCE},
    "restart/restart-10-query-stream-400-1": {"pull_shutdown": ONCE},
    "restart/restart-10-query-stream-400-2": {"not_queryable": ONCE},
    "restart/restart-10-query-stream-400-7": {"pull_not_ready": ONCE},
    "restart/restart-10-pull-empty": {"empty_pull": ONCE},
}  # fmt: skip


def test_the_readme_lists_the_same_differences() -> None:
    """Every entry of the table stands in the server's README, with its reason."""
    text = README.read_text(encoding="utf-8")
    missing = [name for name, reason in DIFFERENCES.items() if f"`{name}`" not in text or reason not in text]
    assert not missing
