"""What each step of the flow asks of its machine, where a site does not say otherwise."""

from pipelines.targets.needs import Needs

_LIGHT = Needs()
_DATA = Needs(cpu="500m", cpu_limit="4", memory="1G", memory_limit="8G", timeout=7200, spot=True)
_TRAIN = Needs(
    cpu="1",
    cpu_limit="8",
    memory="2G",
    memory_limit="16G",
    shared_memory="1G",
    accelerator=True,
    timeout=86400,
    spot=True,
    cache=True,
)
# Downloads and unpacks; the fetched archive is worth keeping.
_INGEST = Needs(cpu="500m", cpu_limit="4", memory="1G", memory_limit="8G", timeout=14400, spot=True, cache=True)
NEEDS = {
    "plan_shards": _INGEST,
    "ingest_shard": _INGEST,
    "ingest": _INGEST,
    "validate_data": _DATA,
    "train_cloud": _TRAIN,
    "train_mobile": _TRAIN,
    "quantize_mobile": _TRAIN,
    "evaluate_cloud_shard": _DATA,
    "evaluate_cloud": _DATA,
    "evaluate_mobile_shard": _DATA,
    "evaluate_mobile": _DATA,
    "compare_pair": _LIGHT,
    # Its figures are judged against budgets: not beside strangers, not on a machine that may vanish.
    "validate_infra": Needs(cpu="1", cpu_limit="4", memory="1G", memory_limit="8G", timeout=7200),
    "assemble_release": Needs(timeout=3600),
    # A rollout waits for pods, traffic and people.
    "roll_out_cloud": Needs(cpu="250m", memory_limit="6G", timeout=86400),
    "publish_mobile": Needs(timeout=3600),
    "report": _LIGHT,
    "plan_predictions": _LIGHT,
    "predict_shard": _DATA,
    "predict": _DATA,
}
"""What each step asks for where nobody says otherwise: requests that fit a small cluster, limits that fit Flowers-sized data."""
