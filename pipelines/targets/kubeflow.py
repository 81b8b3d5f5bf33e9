"""A self-hosted Kubeflow Pipelines: needs become the pod's resources, volumes, placement and environment (kfp-kubernetes).

Where each comes from, and what of it was run on a real backend: docs/targets.md.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from components.core.errors import UsageError
from pipelines.run_form import SETTINGS_FIELDS, Parameter, source_and_store
from pipelines.targets.needs import Needs
from pipelines.targets.quantities import quantity
from pipelines.targets.site import KubeflowSite, Pool, Sharding, StepNeeds, Toleration

_ACCELERATOR_FIELDS = ("accelerator_type", "accelerator_count", "node_selector", "tolerations")
_BACKOFF = {"backoff_duration": "30s", "backoff_factor": 2.0, "backoff_max_duration": "600s"}


class Kubeflow:
    """Steps are pods of one cluster."""

    name = "kubeflow"

    def __init__(self, site: KubeflowSite) -> None:
        """Remember what the site wants."""
        self.site = site

    def parameters(self) -> list[Parameter]:
        """Data, store and settings; and where the training steps' pods go."""
        settings = [replace(p, default=self.site.profile) if p.name == "profile" else p for p in SETTINGS_FIELDS]
        return [*source_and_store(self.site.data, self.site.store), *settings, *self._accelerator_fields()]

    def run_id(self, form: dict[str, Any]) -> Any:
        """KFP's own id of the run: it is unique, and a retried run keeps it."""
        from kfp import dsl

        del form
        return dsl.PIPELINE_JOB_ID_PLACEHOLDER

    def pipeline_options(self) -> dict[str, Any]:
        """Where artifacts lie, how long a run may take (only this ends one whose pod never starts), how long its Workflow is kept."""
        from kfp import dsl

        config = dsl.PipelineConfig(
            ttl_seconds_after_finished=self.site.keep_workflow, active_deadline_seconds=self.site.run_timeout or None
        )
        root = {"pipeline_root": self.site.pipeline_root} if self.site.pipeline_root else {}
        return {"pipeline_config": config, **root}

    def site_settings(self) -> dict[str, Any]:
        """The site's settings, and the rollout's target if something is served in this cluster."""
        from components.configuration.layers import merge

        namespace = self.site.serving_namespace
        cluster = {"roll_out_cloud": {"target": "kubernetes", "kubernetes": {"namespace": namespace}}} if namespace else {}
        return merge(cluster, self.site.settings)

    def sharding(self) -> Sharding:
        """As the site says."""
        return self.site.sharding

    def place(self, task: Any, step: str, needs: Needs, form: dict[str, Any]) -> None:
        """Set everything that a pod of this step is to have."""
        needs = self._needs(step, needs)
        task.set_caching_options(False)
        task.set_display_name(step)
        if needs.retries:
            task.set_retry(needs.retries, **_BACKOFF)
        self._image(task, step, needs)
        _resources(task, needs)
        self._pod(task, step, needs)
        self._volumes(task, step, needs)
        self._environment(task, step, needs)
        if needs.accelerator and "accelerator_type" in form:
            _accelerate(task, form)
        elif needs.accelerator:
            self._give_accelerators(task)
        else:
            _send_to(task, self._pool(step, needs, self.site.pool))

    def _give_accelerators(self, task: Any) -> None:
        """The site's, compiled in: the form has no fields for them."""
        pool = self.site.accelerators
        if pool.count:
            task.set_accelerator_type(pool.type)
            task.set_accelerator_limit(str(pool.count))
        _send_to(task, self._pool("", Needs(spot=True), pool))

    def _accelerator_fields(self) -> list[Parameter]:
        site = self.site.accelerators
        # One pool for all that trains: a run-time selector replaces what is compiled in, so Spot is in its default.
        pool = self._pool("", Needs(spot=True), site)
        return [
            Parameter("accelerator_type", str, "Resource of the training steps' pods, as Kubernetes calls it.", site.type),
            # A text: the backend reads the number of a resource from strings only, and takes none from anything else.
            Parameter("accelerator_count", str, "How many of them each training step gets; 0: it trains on processors.", str(site.count)),
            Parameter("node_selector", dict, "JSON, labels of the nodes that train, such as the GPU's kind.", pool.node_selector),
            Parameter("tolerations", list, "JSON, list of tolerations of the pods that train.", [_toleration(t) for t in pool.tolerations]),
        ]

    def _needs(self, step: str, needs: Needs) -> Needs:
        said = self.site.steps.get(step, StepNeeds())
        changed = {field.name: value for field in fields(Needs) if (value := getattr(said, field.name)) is not None}
        needs = replace(needs, **changed)
        for request, limit in (("cpu", "cpu_limit"), ("memory", "memory_limit")):
            asked, allowed = getattr(needs, request), getattr(needs, limit)
            if quantity(asked) > quantity(allowed):
                where, fix = f"kubeflow.steps.{step}", f"Raise {limit}, or ask for less"
                raise UsageError(f"{request} {asked} is more than {limit} {allowed}; Kubernetes refuses such a pod", where=where, fix=fix)
        return needs

    def _image(self, task: Any, step: str, needs: Needs) -> None:
        if needs.image:
            task.set_container_image(needs.image)
        elif step == "roll_out_cloud" and self._target_of_rollout() != "kubernetes":
            # Then the step starts a server of its own, which needs TensorFlow; the deployer's image has none.
            task.set_container_image("dual-trainer")

    def _target_of_rollout(self) -> str:
        return str(self.site_settings().get("roll_out_cloud", {}).get("target", "local"))

    def _pod(self, task: Any, step: str, needs: Needs) -> None:
        from kfp import kubernetes as pod

        site = self.site
        pod.set_timeout(task, needs.timeout)
        for key, value in {"app.kubernetes.io/part-of": "dual-deploy", "dual.dev/step": step, **site.labels}.items():
            pod.add_pod_label(task, key, value)
        for key, value in site.annotations.items():
            pod.add_pod_annotation(task, key, value)
        if site.run_as_user is not None or site.run_as_group is not None:
            # A number is visibly not root; runAsNonRoot is younger than these two, and a driver refuses fields that it does not know.
            pod.set_security_context(task, site.run_as_user, site.run_as_group)
        if site.image_pull_secrets:
            pod.set_image_pull_secrets(task, list(site.image_pull_secrets))
        if site.image_pull_policy:
            pod.set_image_pull_policy(task, site.image_pull_policy)

    def _volumes(self, task: Any, step: str, needs: Needs) -> None:
        from kfp import kubernetes as pod

        site = self.site
        if needs.shared_memory:
            pod.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=needs.shared_memory)  # noqa: S108
        if needs.scratch:
            pod.empty_dir_mount(task, "scratch", site.scratch_path, size_limit=needs.scratch)
        if needs.cache and site.cache_volume.claim:
            pod.mount_pvc(task, site.cache_volume.claim, site.cache_volume.path)
        for files in site.secret_files:
            if not files.steps or step in files.steps:
                pod.use_secret_as_volume(task, files.name, files.path, files.optional)

    def _environment(self, task: Any, step: str, needs: Needs) -> None:
        from kfp import kubernetes as pod

        site = self.site
        for name, value in {**_folders(site, needs), **site.env}.items():
            task.set_env_variable(name, value)
        for secret in site.secrets:
            if not secret.steps or step in secret.steps:
                pod.use_secret_as_env(task, secret.name, secret.env, secret.optional)

    def _pool(self, step: str, needs: Needs, pool: Pool) -> Pool:
        """`pool`, narrowed to Spot machines where the site has them and the step can."""
        del step
        spot = self.site.spot
        if not (spot.enabled and needs.spot):
            return pool
        return Pool(node_selector={**pool.node_selector, **spot.node_selector}, tolerations=[*pool.tolerations, *spot.tolerations])


def _resources(task: Any, needs: Needs) -> None:
    task.set_cpu_request(needs.cpu)
    task.set_cpu_limit(needs.cpu_limit)
    task.set_memory_request(needs.memory)
    task.set_memory_limit(needs.memory_limit)


def _accelerate(task: Any, form: Mapping[str, Any]) -> None:
    from kfp import kubernetes as pod

    kind, count, selector, tolerations = (form[name] for name in _ACCELERATOR_FIELDS)
    # KFP hands resources given as parameters to no group of tasks that lies between; registered, they are inputs of each.
    task.register_pipeline_channels([kind, count])
    task.set_accelerator_type(kind)
    task.set_accelerator_limit(count)
    pod.add_node_selector_json(task, selector)
    pod.add_toleration_json(task, tolerations)


def _send_to(task: Any, pool: Pool) -> None:
    from kfp import kubernetes as pod

    for key, value in pool.node_selector.items():
        pod.add_node_selector(task, key, value)
    for said in pool.tolerations:
        # The same as _toleration() in a field of the form, by the names that this function has for it.
        pod.add_toleration(task, said.key or None, said.operator, said.value or None, said.effect or None, said.toleration_seconds)


def _toleration(toleration: Toleration) -> dict[str, Any]:
    """In Kubernetes' spelling, without what is not said."""
    said = {
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
        "effect": toleration.effect,
        "tolerationSeconds": toleration.toleration_seconds,
    }
    return {key: value for key, value in said.items() if value not in ("", None)}


def _folders(site: KubeflowSite, needs: Needs) -> dict[str, str]:
    """Where the step writes what is no output: its user has no home, and its working folder is read-only."""
    scratch = {"TMPDIR": site.scratch_path} if needs.scratch else {}
    cached = needs.cache and site.cache_volume.claim
    cache = {"XDG_CACHE_HOME": site.cache_volume.path, "KERAS_HOME": f"{site.cache_volume.path}/keras"} if cached else {}
    return {**scratch, **cache}
