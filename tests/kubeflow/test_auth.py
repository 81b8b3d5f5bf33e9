"""Every way to be let in, and every way not to be: each has its own message, and none prints a secret."""

import json
import ssl
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kubeflow.conftest import Dual
from tests.kubeflow.fake_kfp import Answer, FakeKfp, Request, as_json, as_page, redirect, serving
from tests.kubeflow.gates import PASSWORD, USER, Dex, always, tokens

TOKEN = "secret-token-1234"


def test_a_token_from_the_environment(kfp: FakeKfp, dual: Dual) -> None:
    kfp.guard = tokens(TOKEN)
    assert dual("runs", "list", DUAL_KFP_TOKEN=TOKEN).exit_code == 0


def test_a_token_from_a_file_is_read_again_for_each_request(kfp: FakeKfp, dual: Dual, tmp_path: Path) -> None:
    (path := tmp_path / "token").write_text("old\n")
    given: list[str] = []

    def guard(request: Request) -> Answer | None:
        given.append(request.headers["Authorization"])
        path.write_text("new\n")
        return None

    kfp.guard = guard
    assert dual("runs", "list", DUAL_KFP_TOKEN_FILE=str(path)).exit_code == 0
    assert given == ["Bearer old", "Bearer new"]


def test_a_token_from_a_command_is_fetched_again_when_it_is_refused(kfp: FakeKfp, dual: Dual, tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    (script := tmp_path / "fetch.py").write_text(
        "from pathlib import Path\np = Path('count')\nn = int(p.read_text()) + 1\np.write_text(str(n))\nprint(f'token-{n}')\n"
    )
    kfp.guard = tokens("token-2")
    command = f"{sys.executable} {script}"
    assert dual("runs", "list", DUAL_KFP_TOKEN_COMMAND=command).exit_code == 0
    # The second request took the token that the first one had fetched.
    assert (tmp_path / "count").read_text() == "2"


@pytest.mark.parametrize(
    ("command", "said"), [("false", "printed no token (exit 1): it said nothing"), ("no-such-command", "did not run (FileNotFoundError)")]
)
def test_a_token_command_that_fails(dual: Dual, command: str, said: str) -> None:
    result = dual("runs", "list", DUAL_KFP_TOKEN_COMMAND=command)
    assert (result.exit_code, said in result.output) == (2, True)


def test_a_pods_service_account_is_used_without_being_asked_for(kfp: FakeKfp, dual: Dual, tmp_path: Path) -> None:
    (path := tmp_path / "sa-token").write_text(TOKEN)
    kfp.guard = tokens(TOKEN)
    assert dual("runs", "list", KF_PIPELINES_SA_TOKEN_PATH=str(path)).exit_code == 0
    kfp.guard = tokens("another")
    result = dual("runs", "list", KF_PIPELINES_SA_TOKEN_PATH=str(path))
    assert f"401, the server does not know who asks (the pod's service account token from {path})" in result.output
    assert "The token's audience must be pipelines.kubeflow.org" in result.output


def test_a_session_cookie_from_environment_or_file(kfp: FakeKfp, dual: Dual, tmp_path: Path) -> None:
    dex = Dex(cookie="authservice_session", sessions={"abc"})
    kfp.guard = dex.guard
    assert dual("runs", "list", DUAL_KFP_COOKIE="authservice_session=abc").exit_code == 0
    (path := tmp_path / "cookie").write_text("authservice_session=abc\n")
    assert dual("runs", "list", "--auth", "cookie", DUAL_KFP_COOKIE_FILE=str(path)).exit_code == 0


def test_a_cookie_that_has_expired_leads_to_a_login_page(kfp: FakeKfp, dual: Dual) -> None:
    kfp.guard = Dex().guard
    result = dual("runs", "list", DUAL_KFP_COOKIE="oauth2_proxy_kubeflow=old-secret")
    assert result.exit_code == 1
    assert "redirects to the login page /dex/auth: nobody is logged in (the session cookie from DUAL_KFP_COOKIE)" in result.output
    assert "old-secret" not in result.output


@pytest.fixture
def kubeflow(kfp: FakeKfp) -> FakeKfp:
    """A whole Kubeflow: its dashboard in front, and several users."""
    kfp.prefix = "/pipeline"
    kfp.state.multi_user = True
    return kfp


@pytest.mark.parametrize(
    "dex",
    [
        Dex(),
        Dex(chooser=False),
        Dex(approval=True),
        Dex(button=True),
        Dex(cookie="authservice_session"),
        Dex(connector="ldap"),
    ],
    ids=["chooser", "one connector", "approval", "button", "authservice", "ldap"],
)
def test_a_login_at_dex(kubeflow: FakeKfp, dual: Dual, dex: Dex) -> None:
    kubeflow.guard = dex.guard
    login = {"DUAL_KFP_USERNAME": USER, "DUAL_KFP_PASSWORD": PASSWORD, "DUAL_KFP_DEX_CONNECTOR": dex.connector}
    result = dual("runs", "list", "--host", f"{kubeflow.url}/pipeline", "--namespace", "alice", **login)
    assert result.exit_code == 0, result.output
    assert len(dex.sessions) == 1


def test_a_session_that_ends_is_begun_again(kubeflow: FakeKfp, dual: Dual) -> None:
    dex = Dex()
    kubeflow.guard = dex.guard

    def guard(request: Request) -> Answer | None:
        if request.path.endswith("/runs"):
            # It ended after the first request.
            dex.sessions.discard(next(iter(dex.sessions)) if len(kubeflow.calls("GET", "/runs$")) == 1 else "")
        return dex.guard(request)

    kubeflow.guard = guard
    login = {"DUAL_KFP_USERNAME": USER, "DUAL_KFP_PASSWORD": PASSWORD}
    result = dual("runs", "list", "--host", f"{kubeflow.url}/pipeline", "-n", "alice", **login)
    assert result.exit_code == 0, result.output
    assert len(kubeflow.calls("GET", "/runs$")) == 2


@pytest.mark.parametrize(
    ("dex", "login", "said"),
    [
        (Dex(), {"DUAL_KFP_PASSWORD": "wrong-secret"}, f"Dex does not take this name and password (as {USER}, connector local)"),
        (Dex(connector="ldap"), {}, "which is no login page of Dex"),
        (Dex(connector="ldap", chooser=False), {}, "the login page is that of Dex's connector 'ldap'"),
        (Dex(), {"DUAL_KFP_PASSWORD": ""}, "there is no login"),
        (Dex(), {"DUAL_KFP_PASSWORD_FILE": "missing", "DUAL_KFP_PASSWORD": ""}, "missing: can't be read (FileNotFoundError)"),
    ],
)
def test_logins_that_fail(kubeflow: FakeKfp, dual: Dual, dex: Dex, login: dict[str, str], said: str) -> None:
    kubeflow.guard = dex.guard
    environment = {"DUAL_KFP_USERNAME": USER, "DUAL_KFP_PASSWORD": PASSWORD, **login}
    result = dual("runs", "list", "--host", f"{kubeflow.url}/pipeline", "-n", "alice", "--auth", "dex", **environment)
    assert result.exit_code != 0
    assert said in result.output
    assert PASSWORD not in result.output
    assert "wrong-secret" not in result.output


def test_an_id_token_for_the_identity_aware_proxy(kfp: FakeKfp, dual: Dual, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's token service is the one thing replaced: what it gives must arrive, and the proxy's refusal must be understood."""
    from google.oauth2 import id_token

    asked: list[str] = []
    monkeypatch.setattr(id_token, "fetch_id_token", lambda _, audience: asked.append(audience) or f"id-token-{len(asked)}")
    kfp.guard = tokens("id-token-2")
    assert dual("runs", "list", DUAL_KFP_IAP_CLIENT_ID="client.apps.googleusercontent.com").exit_code == 0
    assert asked == ["client.apps.googleusercontent.com"] * 2
    kfp.guard = tokens("none")
    result = dual("runs", "list", DUAL_KFP_IAP_CLIENT_ID="client.apps.googleusercontent.com")
    assert "a Google ID token for the Identity-Aware Proxy" in result.output
    assert "IAP-secured Web App User" in result.output


def test_without_google_credentials_the_proxy_can_not_be_passed(dual: Dual, tmp_path: Path) -> None:
    (tmp_path / "adc.json").write_text(json.dumps({"type": "authorized_user"}))
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "adc.json"), "DUAL_KFP_IAP_CLIENT_ID": "c"}
    result = dual("runs", "list", **environment)
    assert (result.exit_code, "can get an ID token" in result.output, "--impersonate-service-account" in result.output) == (2, True, True)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (as_json({"message": "no"}, 401), 1, "401, the server does not know who asks (a bearer token from DUAL_KFP_TOKEN): no"),
        (as_json({"message": f"bad {TOKEN}"}, 403), 1, "403, this identity may not do that (a bearer token from DUAL_KFP_TOKEN): bad …"),
        (Answer(403, b"RBAC: access denied", {}), 1, "RBAC: access denied"),
        (
            redirect("https://accounts.google.com/o/oauth2/v2/auth?x=1"),
            1,
            "redirects to the login page https://accounts.google.com/o/oauth2/v2/auth",
        ),
        (redirect("/oauth2/sign_in"), 1, "redirects to the login page /oauth2/sign_in"),
        (redirect("https://kf.example.com/apis/v2beta1/healthz"), 1, "redirects to https"),
        (redirect("/elsewhere"), 1, "redirects to /elsewhere"),
        (as_page("<html><title>Sign in</title><input type=password></html>"), 1, "answers with a login page ('Sign in') instead of JSON"),
        (as_page("<html><title>Kubeflow Central Dashboard</title></html>"), 1, "answers with a web page ('Kubeflow Central Dashboard')"),
        (as_page("not found", 404), 1, "there is no API of Kubeflow Pipelines 2.x at this address"),
        (as_json({"message": "upstream"}, 503), 1, "503, the server can't answer now: upstream"),
        (as_json({"error": "boom"}, 500), 1, "500, the server can't answer now: boom"),
        (Answer(400, b"Client sent an HTTP request to an HTTPS server.\n", {}), 1, "the server speaks TLS at this port"),
        (as_json([], 418), 2, "418, the server refuses the request"),
    ],
)
def test_each_refusal_says_what_it_is(kfp: FakeKfp, dual: Dual, answer: Answer, code: int, said: str) -> None:
    kfp.guard = always(answer)
    result = dual("runs", "list", DUAL_KFP_TOKEN=TOKEN)
    assert (result.exit_code, said in result.output) == (code, True), result.output
    assert TOKEN not in result.output
    assert "Traceback" not in result.output
    assert len(kfp.requests) == 1


def test_nobody_is_told_how_to_become_somebody(kfp: FakeKfp, dual: Dual) -> None:
    kfp.guard = always(as_json({}, 401))
    assert "no credentials" in (said := dual("runs", "list").output)
    assert "DUAL_KFP_TOKEN" in said


@pytest.mark.parametrize(
    ("host", "code", "said"),
    [
        ("http://127.0.0.1:1", 1, "nothing listens there: the connection was refused"),
        ("http://no-such-host.invalid", 1, "there is no such name"),
        ("kf.example.com", 2, "'kf.example.com' is no address"),
        ("https://me:pass@kf.example.com", 2, "an address holds no password"),
    ],
)
def test_addresses_that_lead_nowhere(dual: Dual, host: str, code: int, said: str) -> None:
    result = dual("runs", "list", "--host", host)
    assert (result.exit_code, said in result.output) == (code, True), result.output


def test_a_server_that_says_nothing(dual: Dual) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = dual("runs", "list", "--host", f"http://127.0.0.1:{silent.getsockname()[1]}", DUAL_KFP_TIMEOUT="0.3")
    assert (result.exit_code, "did not answer in time" in result.output) == (1, True), result.output


def test_plain_http_where_tls_is_expected(kfp: FakeKfp, dual: Dual) -> None:
    result = dual("runs", "list", "--host", kfp.url.replace("http:", "https:"))
    assert (result.exit_code, "TLS could not be agreed on" in result.output) == (1, True), result.output


@pytest.mark.parametrize("path", ["", "/", "/apis/v2beta1", "/#/runs", "/apis"])
def test_addresses_are_taken_as_people_copy_them(kfp: FakeKfp, dual: Dual, path: str) -> None:
    assert dual("runs", "list", "--host", kfp.url + path).exit_code == 0


# Certificates


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem, good.pem (127.0.0.1), other.pem (another name) and old.pem (expired); each server's with its key."""
    folder = tmp_path_factory.mktemp("ca")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    ca = _certificate(name, name, key.public_key(), key, ca=True)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for file, address, days in (("good", "127.0.0.1", 1), ("other", "192.0.2.1", 1), ("old", "127.0.0.1", -1)):
        own = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file)])
        signed = _certificate(subject, name, own.public_key(), key, address=address, days=days)
        private = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / f"{file}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM) + private)
    return folder


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    address: str = "",
    days: int = 1,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=9))
    builder = builder.not_valid_after(now + timedelta(days=days)).add_extension(
        x509.BasicConstraints(ca=ca, path_length=None), critical=True
    )
    if address:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
    return builder.sign(signer, hashes.SHA256())


@contextmanager
def _tls(kfp: FakeKfp, certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(kfp.answer, context) as url:
        yield url


def test_a_certificate_of_a_custom_authority(kfp: FakeKfp, dual: Dual, authority: Path) -> None:
    with _tls(kfp, authority / "good.pem") as url:
        result = dual("runs", "list", "--host", url, DUAL_KFP_CA_FILE=str(authority / "ca.pem"))
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("file", "ca", "said", "fix"),
    [
        ("good", "", "the server's certificate is not trusted", "DUAL_KFP_CA_FILE"),
        ("other", "ca.pem", "IP address mismatch", "Use a name that is in the certificate"),
        ("old", "ca.pem", "certificate has expired", "this machine's clock"),
        ("good", "nowhere.pem", "there is no such file", "DUAL_KFP_CA_FILE"),
    ],
)
def test_certificates_that_are_not_trusted(kfp: FakeKfp, dual: Dual, authority: Path, file: str, ca: str, said: str, fix: str) -> None:
    with _tls(kfp, authority / f"{file}.pem") as url:
        result = dual("runs", "list", "--host", url, DUAL_KFP_CA_FILE=str(authority / ca) if ca else "")
    assert result.exit_code in (1, 2)
    assert said in result.output, result.output
    assert fix in result.output
    assert kfp.requests == []


def test_dex_behind_a_custom_authority(kubeflow: FakeKfp, dual: Dual, authority: Path) -> None:
    kubeflow.guard = Dex().guard
    environment = {"DUAL_KFP_USERNAME": USER, "DUAL_KFP_PASSWORD": PASSWORD, "DUAL_KFP_CA_FILE": str(authority / "ca.pem")}
    with _tls(kubeflow, authority / "good.pem") as url:
        assert dual("runs", "list", "--host", f"{url}/pipeline", "-n", "alice", **environment).exit_code == 0
        result = dual("runs", "list", "--host", f"{url}/pipeline", "-n", "alice", **{**environment, "DUAL_KFP_CA_FILE": ""})
        assert "the server's certificate is not trusted" in result.output, result.output


# Namespaces and the connection's layers


def test_several_users_need_a_namespace_and_one_has_none(kubeflow: FakeKfp, dual: Dual) -> None:
    host = ("--host", f"{kubeflow.url}/pipeline")
    assert "the installation is multi-user: runs belong to a namespace" in dual("runs", "list", *host).output
    assert dual("runs", "list", *host, "-n", "alice").exit_code == 0
    kubeflow.state.multi_user = False
    assert "the installation is single-user" in dual("runs", "list", *host, "-n", "alice").output
    assert dual("runs", "list", *host, "-n", "kubeflow").exit_code == 0


def test_what_one_user_starts_another_namespace_does_not_list(kubeflow: FakeKfp, dual: Dual, package: Path, tmp_path: Path) -> None:
    host = ("--host", f"{kubeflow.url}/pipeline")
    needed = ("--package", package, "--data", "drawn", "--store", tmp_path / "store")
    assert dual("submit", *needed, *host, "-n", "alice").exit_code == 0
    assert {each["namespace"] for each in kubeflow.state.experiments.values()} == {"alice"}
    assert {each["namespace"] for each in kubeflow.state.pipelines.values()} == {"alice"}


def test_file_environment_and_flags_each_win_over_the_one_before(kfp: FakeKfp, dual: Dual, tmp_path: Path) -> None:
    (file := tmp_path / "kubeflow.yaml").write_text("host: http://127.0.0.1:1\nsystem_namespace: pipelines\n")
    assert dual("runs", "list", "--connection", file, "--host", kfp.url, DUAL_KFP_HOST="http://127.0.0.1:2").exit_code == 0
    assert "http://127.0.0.1:2" in dual("runs", "list", "--connection", file, DUAL_KFP_HOST="http://127.0.0.1:2").output
    assert "http://127.0.0.1:1:" in dual("runs", "list", "--connection", file, DUAL_KFP_HOST="").output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("token: abc-secret", "a secret ('token') does not belong into a file that is shared"),
        ("hostt: x", "there is no setting 'hostt'"),
        ("timeout: soon", "timeout: Input should be a valid number"),
        ("auth: magic", "auth: Input should be"),
    ],
)
def test_what_a_connection_file_may_not_say(dual: Dual, tmp_path: Path, content: str, said: str) -> None:
    (file := tmp_path / "kubeflow.yaml").write_text(content)
    result = dual("runs", "list", "--connection", file)
    assert (result.exit_code, said in result.output, str(file) in result.output) == (2, True, True), result.output
    assert "abc-secret" not in result.output


def test_the_tools_own_file_of_kfp_is_neither_read_nor_written(
    kfp: FakeKfp, dual: Dual, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kfp as sdk

    (folder := tmp_path / ".config" / "kfp").mkdir(parents=True)
    header = {"client_authentication_header_name": "X-Other-Tool", "client_authentication_header_value": "secret"}
    (file := folder / "context.json").write_text(json.dumps({"namespace": "someone", "client_authentication_cookie": "a=b", **header}))
    # Its place was worked out when kfp was imported.
    monkeypatch.setattr(sdk.Client, "_LOCAL_KFP_CONTEXT", str(file))
    before = (file.read_text(), stat.S_IMODE(file.stat().st_mode))
    assert dual("runs", "list").exit_code == 0
    assert not any({"Cookie", "X-Other-Tool"} & set(request.headers) for request in kfp.requests)
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == before
