"""The cluster does not answer, or refuses: what is told, for each of the ways in which that happens."""

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.doctor.cluster import check_cluster
from pipelines.doctor.examine import CLUSTER, Check, examine
from pipelines.doctor.finding import Finding
from pipelines.doctor.gpus import check_gpus
from pipelines.doctor.visit import Visit
from tests.rollout.web import Asked, Reply, WebServer, unused_port

CHECKS = [
    Check(CLUSTER, check_cluster, frozenset({"kubeflow"}), ""),
    Check("gpus", check_gpus, frozenset({"kubeflow"}), ""),
]


def kubeconfig(folder: Path, server: str, **cluster: Any) -> Path:
    """A kubeconfig of one context."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "serving"}}],
        "clusters": [{"name": "x", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "x", "user": {"token": "secret-token"}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


def look(file: Path, seconds: float = 5) -> dict[str, Finding]:
    visit = Visit(target="kubeflow", kubeconfig=file, seconds=seconds)
    return {found.check: found for found in examine(visit, CHECKS)}


def status(code: int, message: str) -> Reply:
    return Reply(json.dumps({"kind": "Status", "status": "Failure", "code": code, "message": message}), code)


def test_nothing_listens(tmp_path: Path) -> None:
    found = look(kubeconfig(tmp_path, f"http://127.0.0.1:{unused_port()}"))
    assert (found[CLUSTER].status, "nothing listens there" in found[CLUSTER].found) == ("failed", True)
    assert "kubectl cluster-info" in found[CLUSTER].fix
    assert (found["gpus"].status, found["gpus"].found) == ("skipped", "the cluster can't be looked at")


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    found = look(kubeconfig(tmp_path, "https://no-such-cluster.invalid:6443"))
    assert found[CLUSTER].status == "failed"
    assert "there is no such name" in found[CLUSTER].found


def test_no_answer_in_time(tmp_path: Path) -> None:
    silent = threading.Event()

    def wait(_: Asked) -> Reply:
        silent.wait(20)
        return Reply("{}")

    with WebServer(wait) as server:
        found = look(kubeconfig(tmp_path, server.url), seconds=2)
        silent.set()
    assert (found[CLUSTER].status, "did not answer in time" in found[CLUSTER].found) == ("failed", True)


def test_an_identity_that_is_not_known(tmp_path: Path) -> None:
    with WebServer(lambda _: status(401, "Unauthorized")) as server:
        found = look(kubeconfig(tmp_path, server.url))
    assert "401: the API server does not know who asks" in found[CLUSTER].found
    assert "kubectl auth whoami" in found[CLUSTER].fix
    assert found["gpus"].status == "skipped"
    assert "secret-token" not in repr(found)
    assert server.asked[0].headers["authorization"] == "Bearer secret-token"


def test_an_identity_that_may_not_look(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path == "/version":
            return Reply('{"gitVersion": "v1.34.1"}')
        return status(403, 'nodes is forbidden: User "me" cannot list resource "nodes"')

    with WebServer(answer) as server:
        found = look(kubeconfig(tmp_path, server.url))
    assert found[CLUSTER].status == "ok"
    assert (found["gpus"].status, 'User "me" cannot list resource "nodes"' in found["gpus"].found) == ("warning", True)
    assert found["gpus"].fix.endswith("kubectl auth can-i get nodes")


@pytest.mark.parametrize(
    ("body", "words"),
    [("<html>log in</html>", "no JSON"), ('{"gitVersion": "v1.27.3"}', "needs 1.30 or newer"), ("{}", "does not say its version")],
)
def test_something_else_answers(tmp_path: Path, body: str, words: str) -> None:
    with WebServer(lambda _: Reply(body)) as server:
        found = look(kubeconfig(tmp_path, server.url))
    assert (found[CLUSTER].status, words in found[CLUSTER].found) == ("failed", True), found[CLUSTER]


def test_there_is_no_way_to_a_cluster(tmp_path: Path) -> None:
    found = look(tmp_path / "missing")
    assert (found[CLUSTER].status, "there is no way to a cluster" in found[CLUSTER].found) == ("failed", True)
    assert "KUBECONFIG" in found[CLUSTER].fix


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with a certificate that nobody signed."""
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = str(folder / "key.pem"), str(folder / "cert.pem")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=other.example", "-keyout", key]
    subprocess.run([*made, "-out", certificate], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_certificate_that_is_not_trusted(certified: str, tmp_path: Path) -> None:
    found = look(kubeconfig(tmp_path, certified))
    assert found[CLUSTER].status == "failed"
    assert "certificate is not trusted: self-signed certificate" in found[CLUSTER].found
    assert "clock" in found[CLUSTER].fix


def test_tls_where_there_is_none(tmp_path: Path) -> None:
    with WebServer(lambda _: Reply("{}")) as server:
        found = look(kubeconfig(tmp_path, server.url.replace("http", "https")))
    assert (found[CLUSTER].status, "TLS" in found[CLUSTER].found) == ("failed", True), found[CLUSTER]
