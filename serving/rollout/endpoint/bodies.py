"""What is sent to Vertex AI, as JSON: the model version of a release, the deployed model, the endpoint.

The contract of containers (AIP_* variables, routes, `instances` and `predictions`):
https://cloud.google.com/vertex-ai/docs/predictions/custom-container-requirements
"""

import re
from typing import Any

from components.core.digest import sha256_json
from components.core.errors import UsageError
from components.core.release import Release
from serving.rollout.endpoint.settings import Container, EndpointPlace

RELEASE, CONTENT, NAME, EPOCH = "dual-release", "dual-content", "dual-name", "dual-epoch"
"""Labels: a version's release and the digest of how it is served, an endpoint's model, and the epoch of the rollout that owns it."""
_TF_SERVING = (
    "--port=8500",
    "--rest_api_port=$(AIP_HTTP_PORT)",
    "--model_base_path=$(AIP_STORAGE_URI)",
    # Each look at gs:// costs, and what lies there never changes; a broken model must end the container, not be tried for minutes.
    "--file_system_poll_wait_seconds=0",
    "--max_num_load_retries=0",
)
_COMMANDS = {"tf-serving": ["/usr/bin/tensorflow_model_server"], "dual-server": ["python", "-m", "serving.server", "--host=0.0.0.0"]}
Json = dict[str, Any]


def model_id(name: str) -> str:
    """The id of the one Model whose versions are the releases of `name`; `UsageError` if Vertex would refuse it."""
    identity = f"dual-{name}"
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", identity):
        fix = "Use at most 58 lowercase letters, digits, dashes and underscores"
        raise UsageError(f"'{name}' can't name a model on Vertex AI", where="settings key name", fix=fix)
    return identity


def container_spec(container: Container, name: str) -> Json:
    """ModelContainerSpec."""
    if not container.image:
        fix = "Name an image in Artifact Registry, for example europe-west4-docker.pkg.dev/PROJECT/REPOSITORY/tensorflow-serving:2.19.1"
        raise UsageError("no image is named that serves the model", where="settings key roll_out_cloud.vertex.container.image", fix=fix)
    spec: Json = {"imageUri": container.image}
    routed = container.server in _COMMANDS
    command = container.command or _COMMANDS.get(container.server, [])
    args = container.args or ([f"--model_name={name}", *_TF_SERVING] if routed else [])
    predict = container.predict_route or (f"/v1/models/{name}:predict" if routed else "")
    # The status answers 200 in every state, the metadata only once the model is loaded.
    health = container.health_route or (f"/v1/models/{name}/metadata" if routed else "")
    port = container.port or (8501 if routed else 0)
    env = [{"name": key, "value": value} for key, value in container.env.items()]
    given = {"command": command, "args": args, "env": env, "ports": [{"containerPort": port}] if port else []}
    return spec | {key: value for key, value in {**given, "predictRoute": predict, "healthRoute": health}.items() if value}


def artifact_uri(store_uri: str, release: Release, container: Container) -> str:
    """Where the container finds the model: the folder of numbered versions, or for Vertex' own containers the SavedModel itself.

    `UsageError` for a store that is not at gs://.
    """
    if not store_uri.startswith("gs://"):
        fix = "Use a store at gs://: dual release copy brings a release into one"
        raise UsageError(f"Vertex AI loads models from Cloud Storage, not from '{store_uri}'", where="store", fix=fix)
    folder = release.cloud_folder()
    inside = folder if container.server == "prebuilt" else folder.rpartition("/")[0]
    return f"{store_uri.rstrip('/')}/{inside}"


def model_body(name: str, release: Release, store_uri: str, place: EndpointPlace) -> Json:
    """Model: one version, labelled with its release and with a digest of how it is served."""
    served = {"artifactUri": artifact_uri(store_uri, release, place.container), "containerSpec": container_spec(place.container, name)}
    labels = {RELEASE: release.id, CONTENT: sha256_json(served)[:16], NAME: name}
    return {"displayName": model_id(name), "versionDescription": f"release {release.id}", "labels": labels, **served}


def endpoint_body(name: str, place: EndpointPlace) -> Json:
    """Endpoint."""
    dedicated = {"dedicatedEndpointEnabled": True} if place.dedicated else {}
    return {"displayName": display_name(name, place), "labels": {NAME: name}, **dedicated}


def display_name(name: str, place: EndpointPlace) -> str:
    """The endpoint's display name."""
    return place.endpoint or name


def deployed_body(identity: str, name: str, release: str, version: str, place: EndpointPlace) -> Json:
    """DeployedModel, under an id of our own: a deployment that is asked for twice is one."""
    machines = place.machines
    spec: Json = {"machineType": machines.machine_type}
    if machines.accelerator_type:
        spec |= {"acceleratorType": machines.accelerator_type, "acceleratorCount": machines.accelerator_count}
    resources = {"machineSpec": spec, "minReplicaCount": machines.min_replicas, "maxReplicaCount": machines.max_replicas}
    account = {"serviceAccount": place.service_account} if place.service_account else {}
    return {"id": identity, "model": version, "displayName": f"{name}-{release}", "dedicatedResources": resources, **account}
