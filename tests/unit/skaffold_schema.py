"""The part of Skaffold's configuration that skaffold.yaml may use, by its reference (https://skaffold.dev/docs/references/yaml/, v4beta13).

Skaffold itself refuses an unknown key; so does this.
"""

from typing import Any

Json = dict[str, Any]
TEXT, NUMBER, YES_NO = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def mapping(required: str = "", **properties: Any) -> Json:
    """An object with these keys and no others."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


def several(item: Json) -> Json:
    """A list."""
    return {"type": "array", "items": item}


TEXTS = several(TEXT)
HOST_HOOK = mapping("command", command=TEXTS, os=TEXTS, dir=TEXT)
DOCKER = mapping(dockerfile=TEXT, target=TEXT, buildArgs={"type": "object", "additionalProperties": TEXT}, cacheFrom=TEXTS, cliFlags=TEXTS)
CUSTOM = mapping(buildCommand=TEXT, dependencies=mapping(dockerfile=mapping(path=TEXT), paths=TEXTS, ignore=TEXTS, command=TEXT))
SYNC = mapping(manual=several(mapping("src dest", src=TEXT, dest=TEXT, strip=TEXT)), infer=TEXTS)
ARTIFACT = {
    **mapping("image", image=TEXT, context=TEXT, docker=DOCKER, custom=CUSTOM, sync=SYNC, hooks=mapping(before=several(HOST_HOOK))),
    # One builder, and one only.
    "oneOf": [{"required": ["docker"]}, {"required": ["custom"]}],
}
BUILD = mapping(
    artifacts=several(ARTIFACT),
    insecureRegistries=TEXTS,
    platforms=TEXTS,
    tagPolicy={**mapping(inputDigest={}, sha256={}, gitCommit={}), "maxProperties": 1},
    local=mapping(push=YES_NO, useBuildkit=YES_NO, useDockerCLI=YES_NO, tryImportMissing=YES_NO, concurrency=NUMBER),
)
MANIFESTS = mapping(kustomize=mapping(paths=TEXTS, buildArgs=TEXTS), rawYaml=TEXTS)
HOOK_ITEMS = several(mapping(host=HOST_HOOK))
DEPLOY = mapping(
    kubectl=mapping(flags={}, defaultNamespace=TEXT, hooks=mapping(before=HOOK_ITEMS, after=HOOK_ITEMS)),
    statusCheck=YES_NO,
    statusCheckDeadlineSeconds=NUMBER,
    kubeContext=TEXT,
)
CONTAINER = mapping("name image", name=TEXT, image=TEXT, command=TEXTS, args=TEXTS, env=several(mapping("name", name=TEXT, value=TEXT)))
IN_CLUSTER = mapping(kubernetesCluster=mapping(jobManifestPath=TEXT, overrides=TEXT), local=mapping(useLocalImages=YES_NO))
VERIFY = several(mapping("name container", name=TEXT, container=CONTAINER, timeout=NUMBER, executionMode=IN_CLUSTER))
FORWARD = several(mapping(resourceType=TEXT, resourceName=TEXT, namespace=TEXT, port={}, address=TEXT, localPort=NUMBER))
PATCH = several(mapping("op path", op={"enum": ["add", "remove", "replace"]}, path=TEXT, value={}))
STAGES: Json = {"build": BUILD, "manifests": MANIFESTS, "deploy": DEPLOY, "verify": VERIFY, "portForward": FORWARD}
PROFILE = mapping("name", name=TEXT, patches=PATCH, activation=several(mapping(env=TEXT, kubeContext=TEXT, command=TEXT)), **STAGES)
CONFIG = mapping(
    "apiVersion kind",
    apiVersion={"const": "skaffold/v4beta13"},
    kind={"const": "Config"},
    metadata=mapping(name=TEXT),
    profiles=several(PROFILE),
    **STAGES,
)
