"""Small structural CRDs of the kinds that other projects own: strict about what our manifests write, nothing more.

HTTPRoute has the real one's default rule, because an applied route without rules must live with it.
"""

from typing import Any

Json = dict[str, Any]


def text(**more: Any) -> Json:
    """A string."""
    return {"type": "string", **more}


def object_of(required: list[str] | None = None, **properties: Json) -> Json:
    """An object with these properties and no others."""
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def list_of(items: Json, **more: Any) -> Json:
    """A list."""
    return {"type": "array", "items": items, **more}


_WORDS = {"type": "object", "additionalProperties": {"type": "string"}}
_LABELS = object_of(matchLabels=_WORDS)
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_BACKEND = object_of(["name"], name=text(), port=_PORT, weight={"type": "integer", "default": 1, "minimum": 0})
_PATH = object_of(type=text(default="PathPrefix"), value=text(default="/"))
_RULE = object_of(
    matches=list_of(object_of(path=_PATH), default=[{"path": {"type": "PathPrefix", "value": "/"}}]),
    backendRefs=list_of(_BACKEND),
)
_ROUTE = object_of(
    parentRefs=list_of(object_of(["name"], group=text(default="gateway.networking.k8s.io"), kind=text(default="Gateway"), name=text())),
    hostnames=list_of(text()),
    rules=list_of(_RULE, default=[{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]),
)
_ENDPOINT = object_of(["port"], port=text(), path=text(pattern="^/"), interval=text(pattern="^[0-9]+[ms]$"))
_SERVICE_MONITOR = object_of(["selector", "endpoints"], selector=_LABELS, endpoints=list_of(_ENDPOINT), podTargetLabels=list_of(text()))
_POD_MONITORING = object_of(
    ["selector", "endpoints"],
    selector=_LABELS,
    endpoints=list_of(_ENDPOINT),
    targetLabels=object_of(fromPod=list_of(object_of(["from"], **{"from": text(), "to": text(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$")}))),
)
_ALERT = object_of(["expr"], alert=text(), expr=text(), **{"for": text(pattern="^[0-9]+[smh]$")}, labels=_WORDS, annotations=_WORDS)
_RULES = object_of(["groups"], groups=list_of(object_of(["name", "rules"], name=text(), rules=list_of(_ALERT))))

KINDS: list[tuple[str, str, str, str, Json]] = [
    ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", _ROUTE),
    ("monitoring.coreos.com", "v1", "ServiceMonitor", "servicemonitors", _SERVICE_MONITOR),
    ("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules", _RULES),
    ("monitoring.googleapis.com", "v1", "PodMonitoring", "podmonitorings", _POD_MONITORING),
    ("monitoring.googleapis.com", "v1", "Rules", "rules", _RULES),
]


def crds() -> list[Json]:
    """The CustomResourceDefinitions."""
    return [_crd(*kind) for kind in KINDS]


def _crd(group: str, version: str, kind: str, plural: str, spec: Json) -> Json:
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": spec}}
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    # Kubernetes asks for this note on groups that end in k8s.io.
    note = {"api-approved.kubernetes.io": "unapproved, a small stand-in for tests"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}", "annotations": note},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }
