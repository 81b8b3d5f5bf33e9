"""How to reach an installation of Kubeflow Pipelines: --connection FILE  <  environment (DUAL_KFP_*)  <  flags.

A file may say everything but secrets (`token`, `cookie`, `password`): those come from the environment, or from files that it names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from components.core.errors import UsageError
from pipelines.settings import read_yaml

SECRETS = ("token", "cookie", "password")
PORT_FORWARD = "port-forward"
AuthKind = Literal["auto", "none", "token", "service-account", "iap", "dex", "cookie"]
ServiceAccountPath = Path("/var/run/secrets/kubeflow/pipelines/token")
"""Where Kubeflow's own documents mount the projected token (audience pipelines.kubeflow.org)."""


class Connection(BaseSettings):
    """One installation, and the identity that asks it."""

    model_config = SettingsConfigDict(env_prefix="DUAL_KFP_", extra="forbid", frozen=True)

    host: str = Field(
        default="",
        description="Address, with /pipeline at the end where Kubeflow's dashboard is in front; or `port-forward`. "
        "Empty: the Service when in a pod, else port-forward.",
    )
    namespace: str = Field(default="", description="Namespace of the runs. A multi-user installation needs it; a single-user one has none.")
    system_namespace: str = Field(default="kubeflow", description="Namespace that Kubeflow Pipelines is installed in.")
    auth: AuthKind = Field(default="auto", description="Which of the identities below is used; `auto` takes the first one that is set.")
    token: SecretStr = Field(default=SecretStr(""), description="Bearer token (environment only).")
    token_file: Path | None = Field(
        default=None, description="File with a bearer token; read again for each request, so it may be renewed."
    )
    token_command: str = Field(
        default="", description="Command that prints a bearer token; run again when the server refuses the last one."
    )
    cookie: SecretStr = Field(default=SecretStr(""), description="Session cookie, name=value (environment only).")
    cookie_file: Path | None = Field(default=None, description="File with a session cookie, name=value.")
    username: str = Field(default="", description="Login at Dex, with `password` or `password_file`.")
    password: SecretStr = Field(default=SecretStr(""), description="Password at Dex (environment only).")
    password_file: Path | None = Field(default=None, description="File with the password at Dex.")
    dex_connector: str = Field(default="local", description="Dex's connector: local, ldap, or another that takes a name and a password.")
    iap_client_id: str = Field(default="", description="OAuth client id of Google's Identity-Aware Proxy.")
    ca_file: Path | None = Field(default=None, description="Certificate authority that signed the server's certificate (PEM).")
    context: str = Field(default="", description="kubeconfig context, for port-forward and for looking at pods. Default: the current one.")
    ui: str = Field(default="", description="Address of the web pages, where it is another one than `host`.")
    timeout: float = Field(default=30.0, gt=0, description="Seconds to wait for one answer.")
    cron_timezone: str = Field(
        default="UTC", description="Time zone that the installation reads cron expressions in (its CRON_SCHEDULE_TIMEZONE)."
    )


def read_connection(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Connection:
    """Merge the three layers; `UsageError` names the layer and the key that is wrong. Empty flags count as not given."""
    given = {key: value for key, value in (flags or {}).items() if value not in ("", None)}
    layers: list[tuple[str, Mapping[str, Any]]] = [(str(file), _without_secrets(read_yaml(file), file))] if file else []
    layers += [("the environment (DUAL_KFP_*)", EnvSettingsSource(Connection, env_ignore_empty=True)()), ("flags", given)]
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged |= layer
    try:
        return _Merged.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, layers) from None


class _Merged(Connection):
    """The layers are merged already: nothing else is looked at."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Only what is passed in."""
        return (init_settings,)


def _without_secrets(values: dict[str, Any], file: Path) -> dict[str, Any]:
    for name in SECRETS:
        if name in values:
            fix = f"Set DUAL_KFP_{name.upper()}, or name a file: {name}_file"
            raise UsageError(f"a secret ('{name}') does not belong into a file that is shared", where=str(file), fix=fix)
    return values


def _explain(error: ValidationError, layers: list[tuple[str, Mapping[str, Any]]]) -> UsageError:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else "connection"
    where = next((name for name, layer in reversed(layers) if key in layer), "connection")
    if first["type"] == "extra_forbidden":
        return UsageError(f"there is no setting '{key}'", where=where, fix=f"Known: {', '.join(Connection.model_fields)}")
    found = "" if key in SECRETS else f", found {first['input']!r}"
    return UsageError(f"{key}: {first['msg']}{found}", where=where, fix="See docs/kubeflow.md")
