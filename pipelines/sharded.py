"""The steps whose work a site can share out over several pods: by KFP's ParallelFor, with the step itself as the merge."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl

from components.ingest.component import ingest
from components.ingest_shard.component import ingest_shard
from components.plan_shards.component import plan_shards
from pipelines.targets.site import Sharding


@dataclass
class Steps:
    """Adds tasks to the flow; the same ones without shards where the site does not share work out."""

    add: Callable[..., Any]
    """Adds one step with its inputs."""
    sharding: Sharding
    _plan: Any = field(default=None, init=False)

    def ingest(self, inputs: dict[str, Any]) -> Any:
        """The task that writes the examples."""
        if not self.sharding.enabled:
            return self.add(ingest, **inputs)
        self._plan = self.add(plan_shards, **inputs)
        with self._each("ingest") as shard:
            part = self.add(ingest_shard, data=inputs["data"], shard=shard)
        return self.add(ingest, **inputs, shards=self._plan.outputs["ingest"]).after(part)

    def evaluate(self, step: Callable[..., Any], shard_step: Callable[..., Any], **inputs: Any) -> Any:
        """The task that measures and judges a model; `ingest` comes first."""
        if not self.sharding.enabled:
            return self.add(step, **inputs)
        with self._each("evaluation") as shard:
            part = self.add(shard_step, shard=shard, **inputs)
        return self.add(step, **inputs, shards=self._plan.outputs["evaluation"]).after(part)

    def _each(self, what: str) -> Any:
        return dsl.ParallelFor(self._plan.outputs[what], parallelism=self.sharding.parallel)
