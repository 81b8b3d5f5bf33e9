"""What REST and gRPC share: one predict call, admission, and a model spec."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

from serving.server.catalog import Catalog, Loaded
from serving.server.metrics import Metrics
from serving.server.options import Options
from serving.server.servable import Signature, check_inputs, pick_outputs
from serving.server.status import Code, Refusal


@cache
def product() -> str:
    """Name and version, as the Server header and the start-up line give it: this is not TensorFlow Serving, and says so."""
    return f"dual-serving/{metadata.version('dual-deploy')} (stand-in for TensorFlow Serving)"


@dataclass(frozen=True)
class Target:
    """The model, and the version or label, that a request names; neither means the latest."""

    name: str
    version: int | None = None
    label: str = ""


@dataclass
class Service:
    """The models and the limits of one server; used from its event loop only."""

    options: Options
    catalog: Catalog
    metrics: Metrics
    in_flight: int = field(default=0, init=False)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request while it is in progress; refuse it (RESOURCE_EXHAUSTED) when too many are."""
        if self.in_flight >= self.options.max_in_flight:
            raise Refusal(Code.RESOURCE_EXHAUSTED, f"{self.in_flight} requests are in progress; try again later")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    async def predict(self, loaded: Loaded, signature: Signature, inputs: Mapping[str, Any], wanted: Sequence[str] = ()) -> dict[str, Any]:
        """Run one request on a version; outputs by name. Raises a `Refusal`."""
        check_inputs(signature, inputs)
        return await asyncio.wrap_future(loaded.batcher.submit(signature, inputs, pick_outputs(signature, wanted)))
