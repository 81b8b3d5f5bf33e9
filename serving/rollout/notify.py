"""Notifications of a rollout's transitions by webhook, as JSON that Slack's incoming webhooks take.

The URL of such a webhook is a secret, whoever knows it can write to the channel: it is in no message and no log. That is why `httpx` is not
used here: it logs every URL. A notification that can't be delivered is noted, and stops nothing.
"""

import json
import os
import re
import threading
from collections.abc import Callable
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import BaseModel, ConfigDict, Field, model_validator

from components.core.settings import Section
from serving.rollout.analysis.settings import checked_url

_SLACK_MARKUP = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))
"""What Slack wants escaped, in this order; `<!channel>` would call everybody (https://api.slack.com/reference/surfaces/formatting)."""
_SLACK_CODE = re.compile(r"[a-z_ ]{1,60}")
"""How Slack says what is wrong, such as no_service."""


class NotificationSettings(Section):
    """Where transitions are told."""

    url: str = Field(default="", description="Webhook that gets JSON at every transition; Slack's is a secret: use url_env.")
    url_env: str = Field(default="", description="Name of the environment variable that holds the webhook's URL.")
    timeout: float = Field(default=3.0, gt=0, le=60, description="Seconds that a transition may wait for its notification.")

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if self.url and self.url_env:
            raise ValueError("set url or url_env, not both")
        return self


class Transition(BaseModel):
    """One transition of a rollout, as it is told."""

    model_config = ConfigDict(frozen=True)

    at: str
    """UTC, ISO 8601."""
    name: str
    """The served model."""
    release: str
    """The candidate."""
    phase: str
    """The phase that begins."""
    text: str
    """What happened."""
    namespace: str = ""
    stable: str = ""
    """What live traffic goes back to; empty at a first deployment."""
    reason: str = ""
    """Why it was aborted or rolled back."""
    asked: float | None = None
    """The candidate's weight in percent that is asked for."""
    achieved: float | None = None
    """The weight in percent that it really has."""
    epoch: int = 0
    run_id: str = ""
    commands: dict[str, str] = {}
    """What an operator can do now, such as promote → the command that does it."""


def message(transition: Transition) -> dict[str, Any]:
    """The JSON that is sent: `text` in Slack's markup for people, `dual` with every field for programs."""
    return {"text": _text(transition), "dual": transition.model_dump(mode="json")}


class Notifier:
    """Tells one webhook; none if the settings name none."""

    def __init__(self, settings: NotificationSettings, note: Callable[[str], None]) -> None:
        """`note` gets a sentence about each notification that could not be delivered, without the URL."""
        self._settings, self._note = settings, note
        self._url = self._find_url()

    def send(self, transition: Transition) -> bool:
        """Tell it, within the settings' timeout; whether it was delivered. Never raises."""
        if not self._url:
            return False
        problem = _in_time(self._settings.timeout, lambda: _post(self._url, message(transition), self._settings.timeout))
        if problem:
            self._note(f"the notification of {transition.phase} was not delivered: {problem}")
        return not problem

    def _find_url(self) -> str:
        variable = self._settings.url_env
        url = os.environ.get(variable, "").strip() if variable else self._settings.url
        if variable and not url:
            self._note(f"nobody is notified: the environment variable {variable} (notifications.url_env) is not set")
        if not url:
            return ""
        try:
            return checked_url(url)
        except ValueError as error:
            self._note(f"nobody is notified: the webhook's URL {error}")
            return ""


def _text(transition: Transition) -> str:
    where = f" in {transition.namespace}" if transition.namespace else ""
    beside = f", stable is {transition.stable}" if transition.stable else ""
    lines = [f"*{_escaped(transition.name + where)}*: `{_escaped(transition.phase)}` {_escaped(transition.text)}"]
    lines.append(_escaped(f"Release {transition.release}{beside}{_weight(transition)}"))
    if transition.reason:
        lines.append(_escaped(f"Reason: {transition.reason}"))
    lines += [f"{_escaped(action)}: `{_escaped(command)}`" for action, command in transition.commands.items()]
    return "\n".join(lines)


def _weight(transition: Transition) -> str:
    if transition.achieved is None:
        return ""
    asked = f" of {transition.asked:g} % asked" if transition.asked is not None else ""
    return f", weight {transition.achieved:.1f} %{asked}"


def _escaped(text: str) -> str:
    for sign, escape in _SLACK_MARKUP:
        text = text.replace(sign, escape)
    return text


def _in_time(seconds: float, post: Callable[[], str]) -> str:
    """What went wrong, empty for nothing; returns after `seconds`, whatever the server does (a socket's timeout is for each read)."""
    problems = [f"no answer within {seconds:g} s"]

    def run() -> None:
        problems.insert(0, post())

    # A daemon: a server that drips must not keep the process from ending.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return problems[0]


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """A message for one address goes to no other."""


def _post(url: str, body: dict[str, Any], seconds: float) -> str:
    """What went wrong, without the URL; empty for nothing."""
    try:
        # Only http and https come here: `checked_url`.
        request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST")  # noqa: S310
        with build_opener(_NoRedirects).open(request, timeout=seconds):
            return ""
    except HTTPError as error:
        return f"the webhook answered {error.code}{_slack_code(error, url)}"
    except URLError as error:
        return f"the webhook can't be reached ({error.reason})"
    except Exception as error:  # http.client, ssl and the URL's parser have many, and some quote the URL
        return f"the webhook gave no usable answer ({type(error).__name__})"


def _slack_code(error: HTTPError, url: str) -> str:
    try:
        said = error.read(100).decode(errors="replace").strip()
    except OSError:
        return ""
    return f": {said}" if _SLACK_CODE.fullmatch(said) and said not in url else ""
