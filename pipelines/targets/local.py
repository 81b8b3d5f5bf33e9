"""This machine: KFP's local runner ignores resources (with a warning), so none are set."""

from typing import Any

from pipelines.run_form import RUN_ID, SETTINGS_FIELDS, Parameter, source_and_store
from pipelines.targets.needs import Needs
from pipelines.targets.site import Sharding


class Local:
    """Steps are processes here, one after another; artifacts lie in a folder."""

    name = "local"

    def parameters(self) -> list[Parameter]:
        """Like everywhere, and the name of the run: there is no backend that makes one up."""
        return [*source_and_store(), *SETTINGS_FIELDS, RUN_ID]

    def run_id(self, form: dict[str, Any]) -> Any:
        """The field of the form."""
        return form["run_id"]

    def pipeline_options(self) -> dict[str, Any]:
        """None."""
        return {}

    def site_settings(self) -> dict[str, Any]:
        """None: the command line resolved every layer already."""
        return {}

    def sharding(self) -> Sharding:
        """Off: one machine is one shard."""
        return Sharding()

    def place(self, task: Any, step: str, needs: Needs, form: dict[str, Any]) -> None:
        """Only switch KFP's cache off: results are cached in the store (docs/decisions/0001-step-cache.md)."""
        del step, needs, form
        task.set_caching_options(False)
