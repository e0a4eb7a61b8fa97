"""The status page and its JSON twin over a real socket, without a browser: filters, size, headers, colours."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from reconciler.control.loop import Loop
from reconciler.domain.status import Condition
from reconciler.leadership.pause import start_pause
from reconciler.report.text import status_json
from reconciler.web.status_page import StatusPage
from reconciler.web.status_view import MOST_ROWS, SIGNS, Filter
from tests.harness.fakes import Stage, unreachable
from tests.integration.web.operator import Operator, operating


@pytest.fixture
def operator() -> Iterator[Operator]:
    """An operator with two groups, one of which does not come up, and a third whose names are taken."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld", "b": "Paint", "c": "weld"}
    stage.platform.healthy = lambda name: "Paint" not in name
    with operating(stage) as running:
        yield running


def test_a_filter_and_a_condition_choose_rows_on_the_server(operator: Operator) -> None:
    """What was asked for is shown, typed text stays in its field, counts are of everything."""
    _, _, page = operator.ask("/?q=PAINT")
    assert "ofa_group_Paint" in page
    assert "ofa_group_Weld" not in page
    assert 'value="PAINT"' in page
    _, _, page = operator.ask("/?condition=Conflict")
    assert "its names are held by group Weld" in page
    assert "ofa_group_Paint" not in page.partition('id="history"')[0]
    assert re.search(r'aria-current="true"><span aria-hidden="true">.</span> Conflict <b>1</b>', page)
    _, _, page = operator.ask("/?q=%3Cb%3E%22")
    assert 'value="&lt;b&gt;&#34;"' in page
    assert "No group matches" in page
    assert operator.ask("/?condition=Bogus")[0] == 400


def test_the_twin_is_what_the_command_prints(operator: Operator) -> None:
    """/status is the document of ``status -o json``, and adds the state of the operator."""
    status, _, body = operator.ask("/status")
    served = json.loads(body)
    read = operator.loop.history.read
    assert read is not None
    assert read.plan is not None
    assert read.survey is not None
    printed = json.loads(status_json(read.plan, read.survey))
    assert status == 200
    assert served.pop("operator")["last_result"] == operator.loop.history.last.result  # type: ignore[union-attr]
    assert printed.pop("operator") is None
    assert served == printed


def test_before_the_first_read_it_says_so() -> None:
    """An operator that has read nothing yet shows that, and the twin answers 503 with the reason."""
    stage = Stage()
    stage.ksqldb.fault = unreachable("streams")
    loop = Loop(stage.controller(), 10)
    page = StatusPage(loop)
    assert page.make_document() is None
    assert "Starting" in page.render(Filter())
    loop.history = loop.history.after(loop.controller.cycle(), stage.wall)
    text = page.render(Filter())
    assert "Read failed" in text
    assert "streams was not answered" in text


def test_a_pause_and_a_refusal_are_shown_with_what_ends_them(operator: Operator) -> None:
    """Who paused until when, and the id that lets refused removals through."""
    wall = operator.loop.controller.clocks.wall()
    operator.loop.pause(start_pause(wall, 600, "an operator of the night shift", "the line is <rebuilt>"))
    operator.stage.ksqldb.assets = {"a": "Other"}
    operator.until(lambda: bool((read := operator.loop.history.read) and read.plan and read.plan.approval))
    _, _, page = operator.ask("/")
    assert "by an operator of the night shift: the line is &lt;rebuilt&gt;" in page
    assert "reconciler resume" in page
    document = json.loads(operator.ask("/status")[2])
    assert f"--approve {document['approval']}" in page
    assert document["operator"]["paused"]


@pytest.mark.parametrize(
    ("result", "word"), [("standby", "Standby"), ("progressing", "Reconciling"), ("bug", "Read failed")]
)
def test_the_state_of_the_whole_is_one_word(result: str, word: str) -> None:
    """An operator that stands by says so, one that is at it, and one that reads nothing, too."""
    stage = Stage()
    stage.ksqldb.assets = {"a": "Weld"}
    loop = Loop(stage.controller(), 10)
    loop.history = loop.history.after(replace(loop.controller.cycle(), result=result), stage.wall)
    state = re.search(
        r'class="state[^>]*><span aria-hidden="true">.</span> ([^<]*)<', StatusPage(loop).render(Filter())
    )
    assert state is not None
    assert state[1].startswith(word)


def test_a_failed_write_is_shown_with_its_next_try(operator: Operator) -> None:
    """Back-off: which object, how often it failed, when it is tried again, and the error."""

    def refuse(call: str) -> None:
        if call == "create_service":
            unreachable(call)(call)

    operator.stage.platform.fault = refuse
    operator.stage.ksqldb.assets["d"] = "Laser"
    operator.until(lambda: bool(operator.loop.controller.memory.backoff.failures))
    _, _, page = operator.ask("/")
    assert "In backoff after a failed write" in page
    (waiting,) = json.loads(operator.ask("/status")[2])["operator"]["backoff"]
    assert waiting["object"] == "service ofa_group_Laser"
    assert waiting["error"] == "create_service was not answered"


def test_a_thousand_groups_fit_on_a_page() -> None:
    """What needs attention comes first, the rest is one link away, and a filter finds every one."""
    stage = Stage()
    stage.ksqldb.assets = {f"a{at}": f"Cell-{at:04d}" for at in range(1000)}
    stage.platform.healthy = lambda name: "0777" not in name
    controller = stage.controller()
    loop = Loop(controller, 10)
    for _ in range(3):
        loop.history = loop.history.after(controller.cycle(), stage.wall)
        stage.now += 5
    page = StatusPage(loop)
    text = page.render(Filter())
    assert text.count('<th scope="row">') == MOST_ROWS
    assert text.index("ofa_group_Cell-0777") < text.index("ofa_group_Cell-0000")
    assert "Show all 1002" in text
    assert page.render(Filter(everything=True)).count('<th scope="row">') == 1002
    assert page.render(Filter("cell-0999")).count('<th scope="row">') == 1


def test_the_browser_is_told_what_may_run(operator: Operator) -> None:
    """The style and the script are named by their hashes; nothing is loaded from anywhere."""
    _, headers, page = operator.ask("/")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    for tag in ("style", "script"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode() in policy
    assert "unsafe" not in policy
    assert re.findall(r'(?:src|href|action)="(/|[a-z]+:(?!,))', page) == []
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_every_colour_can_be_read() -> None:
    """Text on its ground has a contrast of 4.5 and more (WCAG AA), in the light and in the dark."""
    style = re.search(r"<style>(.*?)</style>", StatusPage(Loop(Stage().controller(), 10)).render(Filter()), re.DOTALL)
    assert style is not None
    themes = [dict(re.findall(r"--([a-z-]+):(#[0-9a-f]+)", root)) for root in re.findall(r":root\{([^}]*)", style[1])]
    assert len(themes) == 2
    for theme in themes:
        tones = [(tone, f"{tone}-back") for tone in ("good", "busy", "warn", "bad")]
        plain = [(text, ground) for text in ("text", "soft", "link") for ground in ("back", "card")]
        worst = min((_contrast(theme[text], theme[ground]), text, ground) for text, ground in (*tones, *plain))
        assert worst[0] >= 4.5, worst


def test_no_condition_is_told_by_colour_alone() -> None:
    """Every condition has a word and a symbol of its own."""
    assert set(SIGNS) == set(Condition)
    assert len({sign.symbol for sign in SIGNS.values()}) == len(SIGNS)


def _contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.03928 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_history_is_on_the_page(operator: Operator) -> None:
    """All of it or that of one group, and no text of it is more than text."""
    journal = operator.loop.controller.reporter.journal
    journal.warning("task ended", object="service x", group="Weld", reason="<script>alert(1)</script>\u202e")
    _, _, page = operator.ask("/?q=Weld")
    history = page.partition('id="history"')[2].partition("</section>")[0]
    assert "Warning" in history
    assert "task ended: service x: &lt;script&gt;alert(1)&lt;/script&gt;\\u202e" in history
    assert "write done: create_service service ofa_group_Weld" in history
    assert "Paint" not in history
    _, _, page = operator.ask("/?q=elsewhere")
    assert "Nothing" in page.partition('id="history"')[2].partition("</section>")[0]
