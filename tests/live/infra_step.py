"""The step validate_infra as far as a cluster is concerned, on a tiny model.

`python -m tests.live.infra_step FOLDER STORE RUN NAMESPACE` runs it.
"""

import sys
from pathlib import Path
from typing import Any

from components.core.preprocessing import Preprocessing
from components.core.record import StepRecord, open_step
from components.core.release import PairPreprocessing
from components.validate_infra.asking import Servable
from components.validate_infra.cluster_check import check_on_cluster
from components.validate_infra.golden import MANIFEST, CloudAnswer, Golden, GoldenImage, MobileAnswer, Tolerances, read_golden
from components.validate_infra.infra import Side
from components.validate_infra.settings import ValidateInfraSettings
from components.validate_infra.validate import write_warmups
from tests.live.releases import golden_of
from tests.serving.saved_model import SIDE, TINY_LABELS, export_tiny

_WARMUPS = 4


def write_servable(root: Path) -> None:
    """A tiny SavedModel with its warm-up file, and golden images: what the step has when it asks."""
    export_tiny(root / "cloud")
    (root / "golden").mkdir()
    answers = golden_of(0.0)
    for each in answers:
        (root / "golden" / each.file).write_bytes(each.image)
    assert write_warmups(root / "cloud", [each.image for each in answers], "classifier") == _WARMUPS
    contract = Preprocessing(height=SIDE, width=SIDE)
    images = [
        GoldenImage(
            file=each.file,
            pixels=f"{each.file}.png",
            label=each.label,
            cloud=CloudAnswer(label=each.label, probabilities=each.probabilities),
            mobile=MobileAnswer(label=each.label, probabilities=[0, 0, 0]),
        )
        for each in answers
    ]
    golden = Golden(
        labels=TINY_LABELS,
        preprocessing=PairPreprocessing(cloud=contract, mobile=contract),
        tolerances=Tolerances(cloud=1e-3, mobile=1),
        images=images,
    )
    (root / "golden" / MANIFEST).write_text(golden.model_dump_json(by_alias=True))


def read_servable(root: Path) -> Servable:
    """What `write_servable` wrote."""
    golden = read_golden(root / "golden")
    images = [(root / "golden" / each.file).read_bytes() for each in golden.images]
    return Servable(root / "cloud", "classifier", golden, images, _WARMUPS)


def check(root: Path, store: str, run_id: str, namespace: str, **kubernetes: Any) -> tuple[Side, StepRecord]:
    """Ask the servable in `root` in a pod."""
    pod = {"namespace": namespace, "ready_within": 240, "asked_within": 120, "poll_seconds": 0.5} | kubernetes
    settings = ValidateInfraSettings.model_validate({"target": "kubernetes", "requests": 20, "max_request_mb": 1, "kubernetes": pod})
    with open_step("validate_infra", store=store, run_id=run_id) as record:
        return check_on_cluster(record, read_servable(root), settings)[0], record


if __name__ == "__main__":
    check(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4])
