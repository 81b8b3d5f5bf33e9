"""How to reach Vertex AI: --connection FILE  <  environment (DUAL_VERTEX_*)  <  flags.

None of it is a secret: those stay with Google's libraries.
"""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from components.core.errors import UsageError

_OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM"
"""What gcloud reads, too: https://cloud.google.com/sdk/gcloud/reference/config/set."""
_LABEL = r"^[a-z0-9_-]{0,63}$"


class Connection(BaseSettings):
    """One project and region, the identity that asks, and what every run there gets."""

    model_config = SettingsConfigDict(env_prefix="DUAL_VERTEX_", extra="forbid", frozen=True)

    project: str = Field(
        default="", pattern=r"^[a-z0-9:.-]*$", description="Project id. Default: GOOGLE_CLOUD_PROJECT, then the credentials' own."
    )
    region: str = Field(default="", pattern=r"^[a-z0-9-]*$", description="Region, such as europe-west4.")
    host: str = Field(default="", description=f"Another endpoint than the region's (Private Service Connect, a test). Also {_OVERRIDE}.")
    auth: Literal["default", "none"] = Field(
        default="default", description="`default`: application default credentials; `none`: no identity, for an endpoint on this machine."
    )
    impersonate: str = Field(default="", description="Service account to ask as; the credentials must be allowed to make its tokens.")
    network: str = Field(
        default="",
        pattern=r"^(projects/[0-9]+/global/networks/[a-z0-9-]+)?$",
        description="VPC network that the steps are peered with: projects/NUMBER/global/networks/NAME.",
    )
    labels: dict[str, str] = Field(default={}, description="Labels of every run, for bills and filters; none may begin with dual-.")
    timeout: float = Field(default=30.0, gt=0, description="Seconds to wait for one answer.")

    def endpoint(self) -> str:
        """The address of the API, without a slash at its end; `UsageError` for none, or one that a token would go to in the clear."""
        given = self.host or os.environ.get(_OVERRIDE, "")
        if not given:
            return f"https://{self.region}-aiplatform.googleapis.com"
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"'{given}' is no address", where="--host", fix=f"Write for example https://{self.region}-aiplatform.googleapis.com"
            )
        if not _is_local(parts.hostname) and (parts.scheme == "http" or self.auth == "none"):
            fix = "Write https://, with the identity `default`"
            raise UsageError("only an endpoint on this machine is asked without TLS or an identity", where=given, fix=fix)
        return given.rstrip("/").removesuffix("/v1")


def read_connection(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> Connection:
    """Merge the three layers; `UsageError` names the layer and the key that is wrong. Empty flags count as not given."""
    # The settings know of endpoints, and those of connections.
    from components.configuration.layers import read_yaml

    given = {key: value for key, value in (flags or {}).items() if value not in ("", None)}
    layers: list[tuple[str, Mapping[str, Any]]] = [(str(file), read_yaml(file))] if file else []
    layers += [("the environment (DUAL_VERTEX_*)", EnvSettingsSource(Connection, env_ignore_empty=True)()), ("flags", given)]
    merged: dict[str, Any] = {}
    for _, layer in layers:
        merged |= layer
    try:
        connection = _Merged.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, layers) from None
    return _checked(connection)


class _Merged(Connection):
    """The layers are merged already: nothing else is looked at."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> tuple[Any, ...]:
        """Only what is passed in."""
        return (init_settings,)


def _checked(connection: Connection) -> Connection:
    if not connection.region:
        fix = "Give --region, for example --region europe-west4, or set DUAL_VERTEX_REGION"
        raise UsageError("no region is named", where="Vertex AI", fix=fix)
    for name, value in connection.labels.items():
        check_label(name, "labels")
        check_label(value, f"labels.{name}")
        if not name or name.startswith("dual-"):
            raise UsageError(f"'{name}' is no label of yours to set", where="labels", fix="Choose a name that does not begin with dual-")
    return connection


def check_label(value: str, where: str) -> str:
    """The value, if Google takes it for a label; else `UsageError` (https://cloud.google.com/resource-manager/docs/labels-overview)."""
    if not re.match(_LABEL, value):
        fix = "Use at most 63 lowercase letters, digits, dashes and underscores"
        raise UsageError(f"'{value}' can be no label", where=where, fix=fix)
    return value


def _is_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _explain(error: ValidationError, layers: list[tuple[str, Mapping[str, Any]]]) -> UsageError:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else "connection"
    where = next((name for name, layer in reversed(layers) if key in layer), "connection")
    if first["type"] == "extra_forbidden":
        return UsageError(f"Vertex AI has no setting '{key}'", where=where, fix=f"Known: {', '.join(Connection.model_fields)}")
    return UsageError(f"{key}: {first['msg']}, found {first['input']!r}", where=where, fix="See docs/vertex.md")
