"""The simulated factory's pure part: placements, readings and the statements made of them."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from demo.factory.plant import Machine, Placement, Reading, initial_placements
from demo.factory.settings import FactorySettings
from demo.factory.statements import definitions, insert_mapping, insert_reading, read_map
from demo.service import load

NOW = datetime(2025, 1, 1, tzinfo=UTC)


def test_the_default_factory_has_twelve_assets_in_three_workcenters() -> None:
    """Names are unique and tell the workcenter; the first is the README's."""
    settings = FactorySettings()
    placements = initial_placements(settings.workcenters, settings.assets_per_workcenter)
    assert placements[0] == Placement("WELD-ROBOT-01", "Weld")
    assert len({placement.asset for placement in placements}) == 12
    assert {placement.workcenter for placement in placements} == {"Weld", "Paint", "Assembly"}


def test_any_workcenter_name_gives_usable_asset_names() -> None:
    """Names of one's own, without a letter even, are numbered machines."""
    assets = [placement.asset for placement in initial_placements(("CNC 7", "日本"), 2)]
    assert assets == ["CNC-7-MACHINE-01", "CNC-7-MACHINE-02", "UNIT-MACHINE-01", "UNIT-MACHINE-02"]


def test_a_machine_reports_all_its_data_items_in_turn() -> None:
    """After six events the state is complete: availability, execution and three measured values."""
    machine = Machine("WELD-ROBOT-01", random.Random(1))  # noqa: S311 - simulated readings
    readings = [machine.next_reading(NOW) for _ in range(6)]
    assert {reading.data_item for reading in readings} == {"avail", "temperature", "weld_current", "execution", "power"}
    assert {reading.timestamp for reading in readings} == {"2025-01-01T00:00:00.000000Z"}


def test_measured_values_wander_within_their_limits() -> None:
    """Hundreds of samples of a machine tool stay plausible and are not all the same."""
    machine = Machine("LATHE-01", random.Random(2))  # noqa: S311 - simulated readings
    speeds = [
        float(reading.value)
        for reading in (machine.next_reading(NOW) for _ in range(900))
        if reading.data_item == "spindle_speed"
    ]
    assert len(set(speeds)) > 100
    assert all(0 <= speed <= 12_000 for speed in speeds)


def test_a_mapping_carries_all_levels_and_escapes_quotes() -> None:
    """One INSERT of the asset's path, with the levels as a map."""
    assert insert_mapping(FactorySettings(), Placement("O'B-1", "Weld"), NOW) == (
        "INSERT INTO asset_to_uns_map_raw (asset_uuid, uns_id, uns_levels, updated_at) VALUES ('O''B-1', "
        "'acme/plant-1/body-shop/Weld/O''B-1', MAP('enterprise':='acme', 'site':='plant-1', 'area':='body-shop', "
        "'workcenter':='Weld', 'asset':='O''B-1'), '2025-01-01T00:00:00');"
    )


def test_a_reading_is_keyed_by_asset_and_data_item() -> None:
    """The key is what the state table groups by."""
    reading = Reading("A1", "temp", "it's", "Samples", "Temperature", "2025-01-01T00:00:00Z")
    assert insert_reading(FactorySettings(), reading) == (
        "INSERT INTO enriched_assets_stream (key, asset_uuid, id, value, type, tag, timestamp) VALUES "
        "('A1|temp', 'A1', 'temp', 'it''s', 'Samples', 'Temperature', '2025-01-01T00:00:00Z');"
    )


def test_other_names_are_used_throughout() -> None:
    """Names from the environment reach every statement."""
    settings = FactorySettings(ksqldb_assets_stream="s", ksqldb_assets_table="t", ksqldb_uns_map="m")
    names, statements = zip(*definitions(settings), strict=True)
    assert names == ("S", "M_RAW", "M", "T")
    assert "FROM m_raw" in statements[2]
    assert "FROM s GROUP BY" in statements[3]
    assert read_map(settings) == "SELECT asset_uuid, uns_levels FROM m;"


def test_workcenters_come_as_a_comma_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks around names and empty parts do not count."""
    monkeypatch.setenv("WORKCENTERS", " Weld, Final Assembly ,,")
    assert load(FactorySettings).workcenters == ("Weld", "Final Assembly")


@pytest.mark.parametrize(("name", "value"), [("EVENTS_PER_SECOND", "0"), ("KSQLDB_UNS_MAP", "m;"), ("LOG_LEVEL", "x")])
def test_a_bad_setting_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a line with the variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load(FactorySettings)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"{name}: ")
