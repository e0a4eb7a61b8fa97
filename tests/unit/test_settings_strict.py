"""What each kind of setting takes: a table of values that are right, and of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from openfactory_common.errors import ConfigurationError
from reconciler.cli import main as cli
from reconciler.settings import Settings, find_unreadable_lines, load

BROKERS = ("KAFKA_BROKER",)
URLS = ("KSQLDB_URL", "KSQLDB_SERVICE_URL", "RECONCILER_URL")
IMAGES = ("ROUTING_LAYER_IMAGE", "FASTAPI_GROUP_IMAGE", "STATE_API_IMAGE")
HOSTS = ("SWARM_NODE_HOST",)
FALLBACK = ("UNS_FALLBACK_GROUP",)
LEVELS = ("UNS_FASTAPI_GROUP_GROUPING_LEVEL",)
CORES = tuple(f"{one}_CPU_{kind}" for one in ("ROUTING_LAYER", "STATE_API") for kind in ("LIMIT", "RESERVATION"))
PORTS = ("RECONCILER_PORT", "ROUTING_LAYER_PORT", "FASTAPI_GROUP_PORT", "FASTAPI_GROUP_PORT_BASE", "STATE_API_PORT")
PERIODS = ("RECONCILE_INTERVAL", "RESYNC_INTERVAL", "ROUTING_LAYER_IDLE_TIMEOUT", "ROUTING_LAYER_HEAD_TIMEOUT")
RETENTIONS = ("SHARED_RETENTION", "GROUP_RETENTION")
COUNTS = ("PRUNE_READS", "REGISTRY_KEEP", "FASTAPI_GROUP_REPLICAS", "ROUTING_LAYER_WORKERS")
ALLOWED = ("RECONCILER_ALLOWED_HOSTS",)
PROXIES = ("ROUTING_LAYER_TRUSTED_PROXIES",)
ORIGINS = ("ROUTING_LAYER_CORS_ORIGINS",)
COOKIES = ("ROUTING_LAYER_AUTH_COOKIE",)
FEW = ("ROUTING_LAYER_MAX_STREAMS", "ROUTING_LAYER_MAX_STREAMS_PER_CLIENT")
SECRETS = ("RECONCILER_TOKEN_SECRET",)

RIGHT = {
    BROKERS: ("b:9092", "b-1.plant.example:9092,b_2:9093", "10.0.0.1:1", "[::1]:9092", "[fd00::1]:9092,k:65535"),
    URLS: ("http://k:8088", "https://k", "http://10.0.0.1:8088/", "http://[::1]:8088", "http://u:p%40s;x@k:8088/base"),
    IMAGES: ("a", "a:1", "host.example:5000/a/b_c:1.2-x", "a/b@sha256:" + "0" * 64, "localhost/a", "reg:5000/a"),
    HOSTS: ("localhost", "10.0.0.1", "node-1.plant.example", "[fd00::1]", "ofa_node"),
    LEVELS: ("workcenter", "area", "area/workcenter", "a/b/c/d/e/f/g/h", "O'Brien's level", "Ebene 1", "溶接"),
    FALLBACK: ("Rest", "no area", "A1/Weld", "übrige"),
    CORES: ("0", "0.01", "1", "4096"),
    PORTS: ("1", "65535"),
    PERIODS: ("1", "500ms", "1d"),
    RETENTIONS: ("1s", "7d", "36500d"),
    COUNTS: ("3", "64"),
    PROXIES: ("10.0.0.1", "10.0.0.0/8, fd00::/8", "::1,127.0.0.1"),
    ORIGINS: ("*", "https://hmi.plant.example", "http://a:8080, https://b"),
    COOKIES: ("openfactory_token", "__Host-token"),
    FEW: ("0", "10000"),
    SECRETS: ("reconciler_token_1",),
    ALLOWED: ("manager.plant.example", ".plant.example, other.example"),
}
WRONG = {
    BROKERS: (
        *('"broker:9092"', "'broker:9092'", "`b:9092`", "broker: 9092", "a:9092, b:9092", " b:9092", "b:9092 "),
        *("http://b:9092", "SASL_SSL://b:9092", "a:9092;b:9092", "broker", "a:9092,b", "b:", ":9092", ",", "a:9092,"),
        *("b:0", "b:65536", "b:-1", "b:x", "b:9092/", "::1:9092", "[::1]", "[::1:9092", "[g]:9092", "b:٣", "-b:9092"),
        *("a..b:9092", "999.1.1.1:9092", "u@b:9092", "nan", "a" * 64 + ":9092"),
    ),
    URLS: (
        *('"http://k:8088"', "'http://k'", "http://k:8088 ", "k:8088", "ftp://k", "http://", "http:///x", "http://k:0"),
        *("http://k:65536", "http://k:x", "http://k:", "http://k?x=1", "http://k#x", "http://a b", "http://k;x:8088"),
        *("http://[::1", "http://1.2.3.4.5", "http://k..l", "http://k\\x", "http://<k>", "http://k:8088:1", "nan"),
    ),
    IMAGES: (
        *("http://a/b", "a b", '"a:1"', "A/b", "a:", ":1", "a::1", "a@sha256:12", "/a", "a/", "a//b", "a:1:2", "-a"),
        *("a;b", "a" * 600),
    ),
    HOSTS: ("http://h", "h:80", "h/x", '"h"', "a b", "999.9.9.9", "[::1", "::1", "a..b", "h;x"),
    FALLBACK: ("'Rest'", " Rest", "Rest ", " ", "x" * 201),
    LEVELS: (
        *("/", "area/", "/area", "area//line", "area/ line", "area /line", "a/b/c/d/e/f/g/h/i"),
        *("'workcenter'", '"workcenter"', " workcenter", "workcenter ", "x" * 201),
    ),
    CORES: ("nan", "inf", "-inf", "-1", "0.001", "5000", "1e400", "one", "1,5"),
    PORTS: ("0", "-1", "65536", "8080.5", "nan", "http", "8080/tcp", "9" * 400),
    PERIODS: ("0", "-1", "nan", "inf", "1e9", "2d", "1 h 3", "soon", "9" * 400),
    RETENTIONS: ("0", "-1", "nan", "inf", "1ms", "9" * 30),
    COUNTS: ("0", "-1", "nan", "inf", "1.5", "9" * 30, "many"),
    PROXIES: ("*", "proxy", "10.0.0.0/8;10.1.1.1", "10.0.0.1,", "10.0.0.0 /8"),
    ORIGINS: ("https://a/", "a.example", "null", "*, https://a", "ftp://a", "https://a/x", "https://u@a", "https://a,"),
    COOKIES: ("a b", "a=b", "a;b", '"a"'),
    FEW: ("-1", "nan", "1.5", "many"),
    SECRETS: ("a/b", "a b", "-a"),
    ALLOWED: ("http://a.example", "a.example:80", "a.example;b.example", "*", "a example", '"a.example"'),
}


def cases(table: dict[tuple[str, ...], tuple[str, ...]]) -> list[tuple[str, str]]:
    """Each value with each variable of its kind."""
    return [(name, value) for names, values in table.items() for value in values for name in names]


@pytest.fixture(autouse=True)
def _required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings that are right, away from any .env file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BROKER", "broker:9092")
    monkeypatch.setenv("KSQLDB_URL", "http://ksqldb:8088")


@pytest.mark.parametrize(("name", "value"), cases(RIGHT))
def test_what_can_be_right_is_taken(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Every form that the other side understands."""
    monkeypatch.setenv(name, value)
    assert isinstance(load(), Settings)


@pytest.mark.parametrize(("name", "value"), cases(WRONG))
def test_what_cannot_be_right_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """In one printable line that begins with the variable."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        load()
    assert str(refused.value).startswith(f"{name}=")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"broker:9092"', "quotes"),
        ("a:9092, b:9092", "blank"),
        ("kafka://b:9092", "scheme"),
        ("a:9092;b:9092", "commas"),
        ("broker", "'broker' has no port"),
        ("[::1]", "has no port"),
        ("b:99999", "1 to 65535"),
    ],
)
def test_the_message_says_what_is_wrong_with_the_brokers(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    """The cause, not only that something is."""
    monkeypatch.setenv("KAFKA_BROKER", value)
    with pytest.raises(ConfigurationError, match=said):
        load()


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize("form", ["http://u:sesame@k:0", "http://u:sesame@k ", "http://u:sesame@k?x", "u:sesame@k"])
def test_no_message_has_a_password(monkeypatch: pytest.MonkeyPatch, name: str, form: str) -> None:
    """Whatever is wrong with a URL that carries one."""
    monkeypatch.setenv(name, form)
    with pytest.raises(ConfigurationError) as refused:
        load()
    assert "sesame" not in str(refused.value)


def test_a_directory_of_the_engine_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A relative one, or a file, is refused."""
    (tmp_path / "file").write_text("")
    for value in ("registry", "~/registry", str(tmp_path / "file")):
        monkeypatch.setenv("REGISTRY_DIR", value)
        with pytest.raises(ConfigurationError, match="REGISTRY_DIR="):
            load()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("LOG_LEVEL=debug\n\n# a comment\nexport DOCKER_NETWORK='a net'\nX=\n", []),
        ('KEY="two\nlines"\nLOG_LEVEL=debug\n', []),
        ("\ufeffLOG_LEVEL=debug\r\nX=1\r\n", []),
        ("LOG_LEVEL debug\n", [1]),
        ("LOG_LEVEL: debug\n", [1]),
        ("X=1\n\n# c\nLOG_LEVEL\n", [4]),
        ("X=1\nexport LOG_LEVEL\n=3\n", [2, 3]),
        ("X='open\nY=1\n", [1]),
        ("X=1\n<<<<<<< sesame\nY=2\n", [2]),
    ],
)
def test_a_line_that_sets_nothing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, lines: list[int]
) -> None:
    """With the file and its number, exit code 2, and without what stands in it; `settings` says the same."""
    file = Path(".env")
    file.write_text(text, newline="")
    said = find_unreadable_lines(file)
    assert [int(line.split()[2]) for line in said] == lines
    if lines:
        for command in ("plan", "settings"):
            assert cli.main([command]) == 2
            printed = capsys.readouterr()
            assert f".env line {lines[0]} cannot be read" in printed.out + printed.err
            assert "sesame" not in printed.out + printed.err
    del tmp_path


def test_a_file_that_cannot_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Not UTF-8, or a directory."""
    Path(".env").write_bytes(b"X=\xff\n")
    assert cli.main(["plan"]) == 2
    assert ".env is no UTF-8 text" in capsys.readouterr().err
    Path(".env").unlink()
    Path(".env").mkdir()
    assert cli.main(["plan"]) == 2
    assert ".env is no file" in capsys.readouterr().err
