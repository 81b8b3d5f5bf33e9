"""Vertex AI Pipelines: limits choose a machine, accelerators have Google's names, and nothing of Kubernetes is accepted.

Not run against Google's service; docs/targets.md says what that means.
"""

from dataclasses import fields, replace
from typing import Any

from pipelines.run_form import SETTINGS_FIELDS, Parameter, source_and_store
from pipelines.targets.needs import Needs
from pipelines.targets.site import Sharding, VertexSite, VertexStepNeeds


class Vertex:
    """Steps are custom jobs of one Google Cloud project."""

    name = "vertex"

    def __init__(self, site: VertexSite) -> None:
        """Remember what the site wants."""
        self.site = site

    def parameters(self) -> list[Parameter]:
        """Data, store and settings. Machines are chosen when the pipeline is compiled."""
        settings = [replace(p, default=self.site.profile) if p.name == "profile" else p for p in SETTINGS_FIELDS]
        return [*source_and_store(self.site.data, self.site.store), *settings]

    def run_id(self, form: dict[str, Any]) -> Any:
        """The id by which the run is asked for: the last part of its resource name (`pipeline_job_uuid` is another one, a number)."""
        from kfp import dsl

        del form
        return dsl.PIPELINE_JOB_NAME_PLACEHOLDER

    def pipeline_options(self) -> dict[str, Any]:
        """Where artifacts lie. A deadline or a TTL would be a second YAML document, which Vertex refuses."""
        return {"pipeline_root": self.site.pipeline_root} if self.site.pipeline_root else {}

    def site_settings(self) -> dict[str, Any]:
        """The site's settings."""
        return dict(self.site.settings)

    def sharding(self) -> Sharding:
        """As the site says."""
        return self.site.sharding

    def place(self, task: Any, step: str, needs: Needs, form: dict[str, Any]) -> None:
        """Set limits, accelerators, environment and retries; a timeout, volumes and secrets have no words here."""
        del form
        needs = self._needs(step, needs)
        task.set_caching_options(False)
        task.set_display_name(step)
        if needs.retries:
            task.set_retry(needs.retries, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="600s")
        task.set_cpu_limit(needs.cpu_limit)
        task.set_memory_limit(needs.memory_limit)
        if needs.accelerator and self.site.accelerators.count:
            task.set_accelerator_type(self.site.accelerators.type)
            task.set_accelerator_limit(self.site.accelerators.count)
        for name, value in self.site.env.items():
            task.set_env_variable(name, value)
        self._image(task, step, needs)

    def _needs(self, step: str, needs: Needs) -> Needs:
        said = self.site.steps.get(step, VertexStepNeeds())
        changed = {field.name: value for field in fields(Needs) if (value := getattr(said, field.name, None)) is not None}
        return replace(needs, **changed)

    def _image(self, task: Any, step: str, needs: Needs) -> None:
        if needs.image:
            task.set_container_image(needs.image)
        elif step == "roll_out_cloud" and not self.site.serves_from_endpoint():
            # No cluster is at hand: the step checks the release in a server that it starts for itself, which needs TensorFlow.
            task.set_container_image("dual-trainer")
