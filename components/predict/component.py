"""predict: a release answers for every image of a folder or a bucket."""

from typing import List, Optional  # noqa: UP035

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def predict(
    data: str,
    store: str,
    run_id: str,
    release: str,
    predictions: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    view: dsl.Output[dsl.HTML],
    model: str = "layered",
    batch_size: int = 32,
    name: str = "",
    shards: Optional[List[str]] = None,  # noqa: UP006, UP045 - KFP reads no other spelling
) -> None:
    """Put the shards' answers together as one file, with a summary; what is missing is asked here."""
    from pathlib import Path

    from components.core.record import open_step
    from components.predict.predict import parse_asked, predict_all

    asked = parse_asked(data, release, model, batch_size)
    with open_step("predict", store=store, run_id=run_id, view=view.path) as record:
        predict_all(record, asked, Path(predictions.path), shards=len(shards or [""]), name=name)
        record.log_metrics(metrics)
