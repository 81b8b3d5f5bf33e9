"""A site: what one cluster or project wants of every run. `dual compile --config FILE` reads it; there is a section for each target."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from components.configuration.layers import profile_layer, read_yaml, resolve
from components.core.errors import UsageError
from components.core.settings import Section
from components.report.story import EVERY_STEP

# What KFP itself accepts; Kubernetes would take more (1.5G), and KFP would fail without a word of where.
Cpu = Annotated[str, StringConstraints(pattern=r"^([0-9]*\.)?[0-9]+m?$")]
Memory = Annotated[str, StringConstraints(pattern=r"^[0-9]+([KMGTPE]i?)?$")]
Size = Annotated[str, StringConstraints(pattern=r"^([0-9]+([KMGTPE]i?)?)?$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]


def _known_step(step: str) -> str:
    if step not in EVERY_STEP:
        near = difflib.get_close_matches(step, EVERY_STEP, n=1)
        raise ValueError(f"there is no step '{step}'" + (f", did you mean '{near[0]}'" if near else f"; known: {', '.join(EVERY_STEP)}"))
    return step


Step = Annotated[str, AfterValidator(_known_step)]


class Toleration(Section):
    """A taint that pods put up with, as in a pod's `tolerations`."""

    key: str = Field(default="", description="Key of the taint; empty with `Exists`: any.")
    operator: Literal["Equal", "Exists"] = Field(default="Equal", description="`Exists` takes any value.")
    value: str = Field(default="", description="Value of the taint.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(default="", description="Effect; empty: any.")
    toleration_seconds: int | None = Field(default=None, ge=0, description="Seconds until a `NoExecute` taint evicts; null: never.")


class Pool(Section):
    """A group of nodes."""

    node_selector: dict[str, str] = Field(default={}, description="Labels that a node must have.")
    tolerations: list[Toleration] = Field(default=[], description="Taints of its nodes.")


class Accelerators(Pool):
    """The GPUs of the training steps. All of it is the default of the run form's fields, where it can be changed for one run."""

    type: str = Field(
        default="nvidia.com/gpu",
        pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$",
        description="The resource's name in Kubernetes. `NVIDIA_L4` is Vertex' word: which GPU it is, is chosen by node_selector.",
    )
    count: int = Field(default=0, ge=0, le=64, description="How many each training step gets; 0: it trains on processors.")


class Spot(Pool):
    """Machines that are cheap because they are taken away at any moment; steps that may run there are started again."""

    enabled: bool = Field(default=False, description="Whether steps that can (see `steps`) go there.")
    node_selector: dict[str, str] = Field(default={"cloud.google.com/gke-spot": "true"}, description="Labels of such nodes.")
    tolerations: list[Toleration] = Field(
        default=[Toleration(key="cloud.google.com/gke-spot", value="true", effect="NoSchedule")], description="Taints of such nodes."
    )


class Secret(Section):
    """Values of a Kubernetes Secret as environment variables. The values are never in the compiled pipeline."""

    name: Name = Field(description="Name of the Secret, in the namespace of the run.")
    env: dict[str, Variable] = Field(description="Key of the Secret → environment variable.")
    optional: bool = Field(default=False, description="Whether pods start without it.")
    steps: list[Step] = Field(default=[], description="Which steps get it; empty: all.")


class SecretFiles(Section):
    """A Kubernetes Secret as files, one a key: service account keys, certificates."""

    name: Name = Field(description="Name of the Secret, in the namespace of the run.")
    path: str = Field(pattern="^/.+", description="Folder that it is mounted at.")
    optional: bool = Field(default=False, description="Whether pods start without it.")
    steps: list[Step] = Field(default=[], description="Which steps get it; empty: all.")


class CacheVolume(Section):
    """A volume for downloads and pretrained weights, so that each run does not fetch them again."""

    claim: str = Field(default="", description="Name of a PersistentVolumeClaim that several pods may mount (ReadWriteMany); empty: none.")
    path: str = Field(default="/cache", pattern="^/.+", description="Where it is mounted.")


class Sharding(Section):
    """Ingest and the evaluations shared out over several pods (KFP's ParallelFor), for data that one machine would read for hours.

    How many, the settings `sharding` say. It costs a task before ingest and one of each kind even where one shard is enough.
    """

    enabled: bool = Field(default=False, description="Whether the compiled flow has the steps that share work out.")
    parallel: int = Field(default=8, ge=1, le=1000, description="How many shards of a step run at the same time.")


class StepNeeds(Section):
    """What one step asks for instead of its defaults; null keeps those."""

    cpu: Cpu | None = Field(default=None, description="Cores that are requested, such as `2` or `500m`.")
    cpu_limit: Cpu | None = Field(default=None, description="Cores that it may use.")
    memory: Memory | None = Field(default=None, description="Memory that is requested, such as `4G` or `512Mi`.")
    memory_limit: Memory | None = Field(default=None, description="Memory that it may use; more ends it.")
    scratch: Size | None = Field(default=None, description="Most that may lie in $TMPDIR, such as `50G`; empty: nobody counts.")
    shared_memory: Size | None = Field(default=None, description="Size of /dev/shm, such as `1G`; empty: the runtime's 64 MB.")
    accelerator: bool | None = Field(default=None, description="Whether it gets the accelerators.")
    timeout: int | None = Field(default=None, ge=1, description="Seconds that its pod may run.")
    retries: int | None = Field(default=None, ge=0, le=50, description="How often it is started again.")
    spot: bool | None = Field(default=None, description="Whether it may go to Spot machines.")
    cache: bool | None = Field(default=None, description="Whether it gets the cache volume.")
    image: str | None = Field(default=None, min_length=1, description="Logical name of another image, for example one with CUDA.")


class KubeflowSite(Section):
    """A self-hosted Kubeflow Pipelines, on GKE or on premises."""

    data: str = Field(default="", description="Default of the run form's field `data`; empty: it must be filled in.")
    store: str = Field(default="", description="Default of the run form's field `store`; empty: it must be filled in.")
    profile: str = Field(default="quick", description="Default of the run form's field `profile`.")
    settings: dict[str, Any] = Field(
        default={}, description="Settings of every run here, nested as above; over the profile, below the run form."
    )
    serving_namespace: str = Field(
        default="",
        description="Namespace of the served model in this cluster: the rollout goes there. Empty: nothing is served here, and the release "
        "is checked in a server that the step starts for itself.",
    )
    pipeline_root: str = Field(default="", description="Where KFP keeps artifacts between steps; empty: its own default.")
    env: dict[Variable, str] = Field(default={}, description="Environment variables of all steps, such as AWS_ENDPOINT_URL; no secrets.")
    secrets: list[Secret] = Field(
        default=[
            Secret(
                name="dual-store",
                optional=True,
                env={key: key for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")},
            ),
            Secret(name="dual-signing-key", optional=True, env={"signing-key": "DUAL_SIGNING_KEY"}, steps=["publish_mobile"]),
        ],
        description="Secrets as environment variables. The default ones hold the credentials of an s3:// store and the key that signs "
        "channels; each may be missing.",
    )
    secret_files: list[SecretFiles] = Field(default=[], description="Secrets as files.")
    image_pull_secrets: list[Name] = Field(default=[], description="Secrets with the registry's credentials.")
    image_pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(default="", description="Empty: Kubernetes' own.")
    pool: Pool = Field(default=Pool(), description="Nodes of the steps without accelerators.")
    accelerators: Accelerators = Field(default=Accelerators(), description="GPUs of the training steps.")
    spot: Spot = Field(default=Spot(), description="Spot machines.")
    cache_volume: CacheVolume = Field(default=CacheVolume(), description="Volume for downloads and weights.")
    scratch_path: str = Field(default="/scratch", pattern="^/.+", description="Where the folder of steps with `scratch` lies ($TMPDIR).")
    run_as_user: int | None = Field(default=10001, ge=1, description="User id of the pods; null: the image's (OpenShift chooses one).")
    run_as_group: int | None = Field(default=10001, ge=1, description="Group id of the pods; null: the image's.")
    labels: dict[str, str] = Field(default={}, description="Labels of all pods.")
    annotations: dict[str, str] = Field(default={}, description="Annotations of all pods.")
    run_timeout: int = Field(
        default=172_800, ge=0, description="Seconds after which the whole run is ended, also one whose pods never start; 0: never."
    )
    keep_workflow: int | None = Field(
        default=None, ge=1, description="Seconds that the run's Workflow is kept after its end; null: as KFP is installed."
    )
    sharding: Sharding = Field(default=Sharding(), description="Work shared out over several pods.")
    steps: dict[Step, StepNeeds] = Field(default={}, description="What single steps ask for, by the step's name.")


class VertexAccelerators(Section):
    """The GPUs of the training steps."""

    type: str = Field(
        default="NVIDIA_L4",
        pattern=r"^(NVIDIA|TPU)_[A-Z0-9_]+$",
        description="Vertex' name of the accelerator. `nvidia.com/gpu` is Kubernetes' word.",
    )
    count: int = Field(default=0, ge=0, le=16, description="How many each training step gets; 0: it trains on processors.")


class VertexStepNeeds(Section):
    """What one step asks for instead of its defaults; null keeps those."""

    cpu_limit: Cpu | None = Field(default=None, description="Cores; Vertex chooses a machine that has them.")
    memory_limit: Memory | None = Field(default=None, description="Memory; Vertex chooses a machine that has it.")
    accelerator: bool | None = Field(default=None, description="Whether it gets the accelerators.")
    retries: int | None = Field(default=None, ge=0, le=10, description="How often it is started again.")
    image: str | None = Field(default=None, min_length=1, description="Logical name of another image, for example one with CUDA.")


class VertexSite(Section):
    """Vertex AI Pipelines in one project. Its steps reach gs:// by the account of the run, without a key."""

    data: str = Field(default="", description="Default of the run form's field `data`; empty: it must be filled in.")
    store: str = Field(default="", description="Default of the run form's field `store`; empty: it must be filled in.")
    profile: str = Field(default="quick", description="Default of the run form's field `profile`.")
    settings: dict[str, Any] = Field(
        default={},
        description="Settings of every run here, nested as above; over the profile, below the run form. With roll_out_cloud.target "
        "`vertex` the step runs in the light image dual-deployer.",
    )
    pipeline_root: str = Field(
        default="", pattern="^(gs://.+)?$", description="gs:// folder for artifacts between steps; empty: it is named at submission."
    )
    env: dict[Variable, str] = Field(default={}, description="Environment variables of all steps; no secrets.")
    accelerators: VertexAccelerators = Field(default=VertexAccelerators(), description="GPUs of the training steps.")
    sharding: Sharding = Field(default=Sharding(), description="Work shared out over several pods.")
    steps: dict[Step, VertexStepNeeds] = Field(default={}, description="What single steps ask for, by the step's name.")

    def serves_from_endpoint(self) -> bool:
        """Whether the settings put releases on a Vertex endpoint."""
        return self.settings.get("roll_out_cloud", {}).get("target") == "vertex"


class Site(Section):
    """One file for one place; a target without a section gets its defaults."""

    kubeflow: KubeflowSite = Field(default=KubeflowSite(), description="For `--target kubeflow`.")
    vertex: VertexSite = Field(default=VertexSite(), description="For `--target vertex`.")


def load_site(path: Path | None) -> Site:
    """The site in a YAML file (None: the defaults); `UsageError` names the key, the file and what was found."""
    if path is None:
        return Site()
    try:
        site = Site.model_validate(read_yaml(path))
    except ValidationError as error:
        raise _explain(error, path) from None
    for name, target in (("kubeflow", site.kubeflow), ("vertex", site.vertex)):
        # A run would find it out in its first step; here it is found before anything is built.
        resolve([profile_layer(target.profile, where=f"{path}: {name}.profile"), (f"{path}: {name}.settings", target.settings)])
    return site


def _explain(error: ValidationError, path: Path) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    fix = "See the chapter Sites of docs/configuration.md"
    if first["type"] == "extra_forbidden":
        return UsageError(f"there is no key '{key}'", where=str(path), fix=fix)
    message = str(first["msg"]).removeprefix("Value error, ")
    return UsageError(f"{key}: {message}; found {first['input']!r} ({type(first['input']).__name__})", where=str(path), fix=fix)
