"""Notifications by webhook: what is sent, and that neither a slow server nor a secret URL can do harm."""

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from serving.rollout.notify import NotificationSettings, Notifier, Transition, message
from tests.rollout.web import Reply, WebServer, unused_port

PATH = "/services/T0001/B0002/s3cr3t"
CANARY = Transition(
    at="2026-11-21T06:00:00.000+00:00",
    name="flowers",
    namespace="ml",
    release="r2",
    stable="r1",
    phase="canary",
    text="step 1 of 2: 10 % <asked> & given",
    asked=10.0,
    achieved=9.09,
    epoch=3,
    run_id="run-7",
    commands={"promote": "dual rollout promote", "abort": "dual rollout abort"},
)


@pytest.fixture
def slack() -> Iterator[WebServer]:
    with WebServer(lambda _: Reply("ok")) as server:
        yield server


def notifier(url: str, notes: list[str], timeout: float = 3.0) -> Notifier:
    return Notifier(NotificationSettings(url=url, timeout=timeout), notes.append)


def test_a_transition_is_told_to_people_and_programs(slack: WebServer) -> None:
    notes: list[str] = []
    assert notifier(slack.url + PATH, notes).send(CANARY)
    (asked,) = slack.asked
    assert (asked.method, asked.path, asked.headers["Content-Type"]) == ("POST", PATH, "application/json")
    assert asked.json() == message(CANARY)
    assert asked.json()["text"] == (
        "*flowers in ml*: `canary` step 1 of 2: 10 % &lt;asked&gt; &amp; given\n"
        "Release r2, stable is r1, weight 9.1 % of 10 % asked\n"
        "promote: `dual rollout promote`\n"
        "abort: `dual rollout abort`"
    )
    assert Transition.model_validate(asked.json()["dual"]) == CANARY
    assert notes == []


def test_a_first_deployment_and_a_reason_are_told() -> None:
    aborted = Transition(at="x", name="flowers", release="r1", phase="aborted", text="back", reason="error_rate 0.2 (must be <= 0)")
    assert message(aborted)["text"] == "*flowers*: `aborted` back\nRelease r1\nReason: error_rate 0.2 (must be &lt;= 0)"


def test_the_url_may_come_from_the_environment(slack: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_URL", slack.url + PATH + "\n")
    notes: list[str] = []
    assert Notifier(NotificationSettings(url_env="SLACK_URL"), notes.append).send(CANARY)
    assert (len(slack.asked), notes) == (1, [])


def test_without_an_url_nothing_is_sent_or_said() -> None:
    notes: list[str] = []
    assert not Notifier(NotificationSettings(), notes.append).send(CANARY)
    assert notes == []


@pytest.mark.parametrize("value", [None, "", " \n"])
def test_a_missing_variable_is_said_once(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("SLACK_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("SLACK_URL", value)
    notes: list[str] = []
    silent = Notifier(NotificationSettings(url_env="SLACK_URL"), notes.append)
    assert [silent.send(CANARY), silent.send(CANARY)] == [False, False]
    assert notes == ["nobody is notified: the environment variable SLACK_URL (notifications.url_env) is not set"]


def test_a_file_is_no_webhook() -> None:
    notes: list[str] = []
    assert not notifier(f"file://{__file__}", notes).send(CANARY)
    assert notes == ["nobody is notified: the webhook's URL is no http:// or https:// URL"]


def test_only_one_url_can_be_meant() -> None:
    with pytest.raises(ValidationError, match="set url or url_env, not both"):
        NotificationSettings(url="https://x", url_env="X")


@pytest.mark.parametrize(
    ("answer", "note"),
    [
        (Reply("no_service", 404), "the webhook answered 404: no_service"),
        (Reply("<html>long</html>", 502), "the webhook answered 502"),
        (Reply("services", 403), "the webhook answered 403"),
        (Reply("", 302, {"Location": "http://127.0.0.1:1/"}), "the webhook answered 302"),
        (Reply(cut=True), "the webhook gave no usable answer (RemoteDisconnected)"),
    ],
)
def test_a_refusal_is_noted(answer: Reply, note: str) -> None:
    notes: list[str] = []
    with WebServer(lambda _: answer) as server:
        assert not notifier(server.url + PATH, notes).send(CANARY)
        assert len(server.asked) == 1
    assert notes == [f"the notification of canary was not delivered: {note}"]


def test_a_webhook_that_is_not_there_is_noted() -> None:
    notes: list[str] = []
    assert not notifier(f"http://127.0.0.1:{unused_port()}{PATH}", notes).send(CANARY)
    assert "the webhook can't be reached ([Errno 111] Connection refused)" in notes[0]


def test_a_server_that_drips_its_headers_holds_nothing_up() -> None:
    """Each byte comes in time for the socket's timeout; the whole would never end."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_drip, args=(server, done), daemon=True)
        thread.start()
        notes: list[str] = []
        began = time.monotonic()
        assert not notifier(f"http://127.0.0.1:{server.getsockname()[1]}{PATH}", notes, timeout=0.2).send(CANARY)
        assert time.monotonic() - began < 1.5
        done.set()
        thread.join()
    assert notes == ["the notification of canary was not delivered: no answer within 0.2 s"]


def _drip(server: socket.socket, done: threading.Event) -> None:
    client, _ = server.accept()
    with client:
        client.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not done.wait(0.02):
            client.sendall(b"x")


@pytest.mark.parametrize(
    "url",
    [
        f"ftp://host{PATH}",
        f"host{PATH}",
        f"https://me:s3cr3t@host{PATH}",
        f"http://127.0.0.1:1{PATH}",
        f"http://127.0.0.1:no{PATH}",
        f"http://127.0.0.1:1/\x07{PATH}",
        f"http://no host{PATH}",
        f"http://[::1{PATH}",
        f"http://ö.invalid/ü{PATH}",
    ],
)
def test_the_url_is_a_secret_whatever_is_wrong(url: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    notes: list[str] = []
    assert not notifier(url, notes).send(CANARY)
    output = capsys.readouterr()
    said = "".join(notes) + caplog.text + output.out + output.err
    assert len(notes) == 1
    assert not [part for part in ("s3cr3t", "T0001", "services") if part in said]


def test_a_delivered_secret_is_not_logged(slack: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert notifier(slack.url + PATH, []).send(CANARY)
    assert "s3cr3t" not in caplog.text
