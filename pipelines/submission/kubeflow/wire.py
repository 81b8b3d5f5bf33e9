"""The one place where requests leave and answers are judged: identity, timeouts, no redirects followed, every failure one of ours.

The generated client follows redirects to login pages and then fails on their HTML, waits for ever, and speaks of sockets; this layer below
it does not.
"""

import json
from typing import Any

from kfp_server_api.exceptions import ApiException
from kfp_server_api.rest import RESTClientObject
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from pipelines.submission.kubeflow.credentials import Credentials
from pipelines.submission.kubeflow.faults import Asked, AuthError, answer_fault, page_fault, transport_fault

CONNECT_SECONDS = 10.0


class Wire(RESTClientObject):
    """Sends requests for the generated client."""

    def __init__(self, configuration: Any, credentials: Credentials, timeout: float) -> None:
        """`configuration` is kfp_server_api's; `timeout` is for one answer, in seconds."""
        # A connection that an idle proxy has closed shows when it is used again: one more try, if nothing was sent or nothing is changed.
        configuration.retries = Retry(total=1, connect=1, read=1, redirect=0, status=0, allowed_methods=["GET"], raise_on_redirect=False)
        super().__init__(configuration)
        self.host: str = configuration.host
        self.credentials = credentials
        self._timeout = (min(CONNECT_SECONDS, timeout), timeout)

    def request(  # type: ignore[override]
        self,
        method: str,
        url: str,
        query_params: Any = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
        post_params: Any = None,
        _preload_content: bool = True,
        _request_timeout: Any = None,
    ) -> Any:
        """The answer to a request; raises our errors. Credentials that are refused are renewed once."""
        del _request_timeout

        def ask() -> Any:
            named = {**(headers or {}), **self.credentials.headers()}
            return self._ask(method, url, query_params, named, body, post_params)

        try:
            return ask()
        except AuthError:
            if not self.credentials.renew():
                raise
            return ask()

    def _ask(self, method: str, url: str, query: Any, headers: dict[str, str], body: Any, form: Any) -> Any:
        asked = Asked(self.host, self.credentials.name, self.credentials.fix)
        try:
            answer = super().request(method, url, query, headers, body, form, True, self._timeout)
        except ApiException as error:
            said = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or error.reason or "")
            raise answer_fault(asked, error.status or 0, dict(error.headers or {}), _scrubbed(said, headers)) from None
        except (HTTPError, OSError) as error:
            raise transport_fault(error, asked) from None
        if not _is_json(answer.data):
            raise page_fault(asked, answer.data.decode(errors="replace"))
        return answer


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


def _scrubbed(text: str, headers: dict[str, str]) -> str:
    """A server that repeats what it was sent must not make us print it."""
    for name in ("Authorization", "Cookie"):
        secret = headers.get(name, "").removeprefix("Bearer ")
        text = text.replace(secret, "…") if secret else text
    return text
