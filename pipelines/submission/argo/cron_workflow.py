"""A CronWorkflow that submits the pipeline, for clusters that retrain without Kubeflow's scheduler, and the account that it runs as.

Its Workflow runs `dual submit --watch` in the dual-deployer image: it lasts as long as the run, and fails if the run does not ship.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.core.errors import UsageError
from pipelines.submission.argo.models import model, plain
from pipelines.submission.cron import Cron
from pipelines.submission.kubeflow.connection import ServiceAccountPath
from pipelines.submission.trigger import Plan

Json = dict[str, Any]
LABELS = {"app.kubernetes.io/part-of": "dual-deploy", "app.kubernetes.io/component": "schedule"}
AUDIENCE = "pipelines.kubeflow.org"
_CATCH_UP_SECONDS = 86_400
_TOKEN_SECONDS = 7200
_USER = 10001
_STORE_SECRET = "dual-store"  # noqa: S105 - the name of a Secret, as in the site's defaults


@dataclass(frozen=True, kw_only=True)
class ArgoSchedule:
    """What a CronWorkflow is made of."""

    name: str
    namespace: str
    plan: Plan
    image: str
    """The dual-deployer image, as the cluster can pull it."""
    arguments: Sequence[str]
    """What follows `dual submit`."""
    service_account: str = "dual-scheduler"
    wait: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    """DUAL_KFP_* of the connection, without secrets."""
    enabled: bool = True


def cron_workflow(schedule: ArgoSchedule) -> Json:
    """The CronWorkflow, built of the SDK's types, as the API server takes it; `UsageError` for a plan that Argo can't keep."""
    plan = schedule.plan
    spec = model("io_argoproj_workflow_v1alpha1_cron_workflow_spec")(
        workflow_spec=_workflow_spec(schedule),
        schedules=[_cron(plan).for_argo()],
        timezone=plan.zone,
        concurrency_policy=_policy(plan),
        starting_deadline_seconds=_CATCH_UP_SECONDS if plan.catch_up else 0,
        suspend=not schedule.enabled,
        successful_jobs_history_limit=3,
        failed_jobs_history_limit=3,
        workflow_metadata=model("object_meta")(labels=dict(LABELS)),
    )
    whole = model("io_argoproj_workflow_v1alpha1_cron_workflow")(
        api_version="argoproj.io/v1alpha1",
        kind="CronWorkflow",
        metadata=model("object_meta")(name=schedule.name, namespace=schedule.namespace, labels=dict(LABELS)),
        spec=spec,
    )
    return plain(whole)


def account(schedule: ArgoSchedule) -> list[Json]:
    """ServiceAccount, Role and RoleBinding: what Argo's executor needs to report a result, and nothing else.

    In a multi-user installation the account also needs to be bound to `kubeflow-edit` to start runs (docs/kubeflow.md).
    """
    metadata = {"name": schedule.service_account, "namespace": schedule.namespace, "labels": dict(LABELS)}
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}]
    subject = {"kind": "ServiceAccount", "name": schedule.service_account, "namespace": schedule.namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": schedule.service_account},
            "subjects": [subject],
        },
    ]


def _cron(plan: Plan) -> Cron:
    """What Argo can keep: a cron expression without a beginning, an end or a number of runs at once."""
    if not isinstance(plan.trigger, Cron):
        raise UsageError("Argo knows no intervals", where="--every", fix="Give --cron, for example '0 */6 * * *'")
    if plan.start or plan.end:
        raise UsageError(
            "a CronWorkflow has no beginning and no end", where="--start, --end", fix="Use the engine kubeflow, or dual schedule pause"
        )
    return plan.trigger


def _policy(plan: Plan) -> str:
    if plan.max_concurrency != 1:
        what = f"Argo can't count to {plan.max_concurrency}: it runs one at a time, or any number"
        raise UsageError(what, where="--max-concurrency", fix="Give 1, or use the engine kubeflow")
    return "Forbid"


def _workflow_spec(schedule: ArgoSchedule) -> Any:
    security = model("pod_security_context")(
        run_as_non_root=True,
        run_as_user=_USER,
        run_as_group=_USER,
        seccomp_profile=model("seccomp_profile")(type="RuntimeDefault"),
    )
    return model("io_argoproj_workflow_v1alpha1_workflow_spec")(
        entrypoint="submit",
        service_account_name=schedule.service_account,
        security_context=security,
        templates=[_template(schedule)],
        volumes=[_scratch(), _token()],
    )


def _template(schedule: ArgoSchedule) -> Any:
    mounts = [("tmp", "/tmp"), ("kubeflow-token", str(ServiceAccountPath.parent))]  # noqa: S108 - the image's TMPDIR
    watch = ["--watch", "--report", "/tmp/report.html"] if schedule.wait else []  # noqa: S108
    container = model("container")(
        image=schedule.image,
        command=["python", "-m", "pipelines.cli"],
        args=["submit", *schedule.arguments, *watch],
        env=[model("env_var")(name=name, value=value) for name, value in sorted(schedule.environment.items())],
        env_from=[model("env_from_source")(secret_ref=model("secret_env_source")(name=_STORE_SECRET, optional=True))],
        resources=model("resource_requirements")(
            requests={"cpu": "100m", "memory": "512Mi"},
            limits={"cpu": "1", "memory": "1Gi"},
        ),
        security_context=_restricted(),
        volume_mounts=[model("volume_mount")(name=name, mount_path=path, read_only=name != "tmp") for name, path in mounts],
    )
    return model("io_argoproj_workflow_v1alpha1_template")(name="submit", container=container)


def _restricted() -> Any:
    return model("security_context")(
        allow_privilege_escalation=False,
        read_only_root_filesystem=True,
        run_as_non_root=True,
        capabilities=model("capabilities")(drop=["ALL"]),
    )


def _scratch() -> Any:
    return model("volume")(name="tmp", empty_dir=model("empty_dir_volume_source")())


def _token() -> Any:
    """A token that Kubeflow takes for the account's: it looks at the audience."""
    projection = model("service_account_token_projection")(
        path=ServiceAccountPath.name, audience=AUDIENCE, expiration_seconds=_TOKEN_SECONDS
    )
    source = model("volume_projection")(service_account_token=projection)
    return model("volume")(name="kubeflow-token", projected=model("projected_volume_source")(sources=[source]))
