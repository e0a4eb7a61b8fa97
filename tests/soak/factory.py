"""What happens to the world in a soak: assets come, go and move, people change things by hand, settings change."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import timedelta

from reconciler.domain.names import names_of
from reconciler.domain.services import Kind
from reconciler.planning.guards import allowed_removals
from tests.harness.fakes import Stage
from tests.integration.faults.matrix_oracle import OURS, current
from tests.integration.faults.matrix_scenarios import BLOCKED


@dataclass
class Factory:
    """Changes the world, always between two cycles.

    Attributes:
        stage: the world.
        dice: where all chance comes from.
        size: groups that there may be.
        settings_changed: the operator has to be restarted.
    """

    stage: Stage
    dice: random.Random
    size: int
    settings_changed: bool = False
    _asset: int = 0
    _gone: dict[str, str | None] = field(default_factory=dict)

    def begin(self) -> None:
        """Put an asset or more into each of half of the groups."""
        self.stage.ksqldb.assets = dict(BLOCKED)
        for number in range(max(2, self.size // 2)):
            self._add(f"g{number}")

    def change(self) -> str:
        """Change one thing and say what."""
        if self._gone and self.dice.random() < 0.7:
            return self._by_hand()
        if self._gone:
            self.stage.ksqldb.assets |= self._gone
            self._gone = {}
            return "a catastrophe is over"
        weights = {
            self._come: 10,
            self._leave: 5,
            self._move: 5,
            self._by_hand: 5,
            self._settings: 1,
            self._clock: 1,
            self._catastrophe: 1,
        }
        (change,) = self.dice.choices(list(weights), list(weights.values()))
        return change()

    def end(self) -> None:
        """Leave the world so that it can be converged.

        Not more groups are gone than may go at once; and a stream that lost its query after its group had gone, which
        no one can tell for ours, gets it back.
        """
        self.stage.ksqldb.assets |= self._gone
        self.stage.ksqldb.terminated &= {names_of(group).stream for group in self.groups} | {self._shared}
        self._gone = {}
        for group in sorted(self.missing)[self._allowed() :]:
            self._add(group)

    @property
    def groups(self) -> set[str]:
        """Groups with an asset."""
        return {group for group in self.stage.ksqldb.assets.values() if group is not None}

    @property
    def owned(self) -> set[str]:
        """Groups of which anything of ours exists: a service, a stream, an entry in the registry."""
        services, streams = self.stage.platform.services.values(), self.stage.ksqldb.made
        groups = {live.spec.group for live in services if live.owner == OURS and live.spec and live.spec.group}
        document = current(self.stage)
        groups |= set(document.groups) if document else set()
        return groups | {f"g{n}" for n in range(self.size) if names_of(f"g{n}").stream in streams}

    @property
    def missing(self) -> set[str]:
        """Those of them without an asset."""
        return self.owned - self.groups

    @property
    def _shared(self) -> str:
        return self.stage.topology.current(dict.fromkeys(self.stage.ksqldb.made)).shared_name

    def _allowed(self) -> int:
        return allowed_removals(len(self.owned), 0.25)

    def _add(self, group: str) -> None:
        self._asset += 1
        self.stage.ksqldb.assets[f"m{self._asset}"] = group

    def _free(self) -> list[str]:
        """Assets that may change: not those of the groups that cannot be."""
        return sorted(self.stage.ksqldb.assets.keys() - BLOCKED.keys())

    def _come(self) -> str:
        group = f"g{self.dice.randrange(self.size)}"
        self._add(group)
        return f"an asset comes into {group}"

    def _leave(self) -> str:
        served = sorted(self.groups - set(map(str, BLOCKED.values())))
        if len(served) < 3 or len(self.missing) >= self._allowed():
            return "no one leaves"
        group = self.dice.choice(served)
        assets = self.stage.ksqldb.assets
        for asset in [asset for asset, of in assets.items() if of == group]:
            del assets[asset]
        return f"all assets of {group} leave"

    def _move(self) -> str:
        asset = self.dice.choice(self._free())
        old, new = self.stage.ksqldb.assets[asset], f"g{self.dice.randrange(self.size)}"
        alone = sum(group == old for group in self.stage.ksqldb.assets.values()) == 1
        if alone and len(self.missing) >= self._allowed():
            return "no one moves"
        self.stage.ksqldb.assets[asset] = new
        return f"{asset} moves from {old} to {new}"

    def _catastrophe(self) -> str:
        """More groups than may go lose their assets, or all do; it ends before anybody approves of it."""
        assets = self.stage.ksqldb.assets
        lost = list(assets) if self.dice.random() < 0.3 else [one for one in self._free() if self.dice.random() < 0.7]
        self._gone = {asset: assets.pop(asset) for asset in lost}
        return f"{len(lost)} assets vanish at once"

    def _by_hand(self) -> str:
        ours = sorted(
            name
            for name, live in self.stage.platform.services.items()
            if live.owner == OURS and live.spec and live.spec.kind is Kind.GROUP
        )
        streams = sorted(name for name, (_, sql) in self.stage.ksqldb.made.items() if "FROM `OFA_ASSETS" in sql)
        if not ours or not streams:
            return "no one does anything"
        service, stream = self.dice.choice(ours), self.dice.choice(streams)
        match self.dice.randrange(5):
            case 0:
                del self.stage.platform.services[service]
                return f"a user removes {service}"
            case 1:
                self.stage.platform.touch(service, replicas=9)
                return f"a user scales {service}"
            case 2:
                self.stage.ksqldb.paused.add(stream)
                return f"a user pauses {stream}"
            case 3:
                stream = self._shared if self.dice.random() < 0.1 else stream
                self.stage.ksqldb.terminated.add(stream)
                return f"a user terminates {stream}"
        del self.stage.ksqldb.made[stream]
        self.stage.ksqldb.terminated.discard(stream)
        self.stage.ksqldb.paused.discard(stream)
        return f"a user drops {stream}"

    def _settings(self) -> str:
        name, values = self.dice.choice(
            [
                ("fastapi_group_image", ("services:1", "services:2")),
                ("ksqldb_uns_join_table", ("asset_to_uns_map", "asset_to_uns_map_raw")),
                ("log_level", ("info", "debug")),
            ]
        )
        self.stage.options[name] = self.dice.choice(values)
        self.settings_changed = True
        return f"{name} is {self.stage.options[name]}"

    def _clock(self) -> str:
        hours = self.dice.choice((-48, -1, 1, 48))
        self.stage.wall += timedelta(hours=hours)
        return f"the wall clock jumps by {hours} h"
