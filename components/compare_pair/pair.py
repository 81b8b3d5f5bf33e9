"""The pair artifact: `pair.json`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from components.core.examples import Split, read_model
from components.core.gate import Verdict
from components.core.policy import LayeredPolicy
from components.evaluation.evaluation import write_whole

MANIFEST = "pair.json"

Interval = tuple[float, float]


class ChosenPolicy(LayeredPolicy):
    """The layered policy with how it was chosen and what it comes to."""

    target_accuracy: float
    reached: bool
    """Whether any threshold reaches the target; if not, this is the most accurate one."""
    accuracy: float
    """On the split that the threshold was chosen on: a little too good."""
    cloud_share: float
    """Share of the split's images that go to the cloud."""
    expected_accuracy: float
    """Cross-fitted: each image judged by a threshold that was chosen without it."""
    expected_interval: Interval
    expected_cloud_share: float
    mobile_accuracy: float
    """Never asking."""
    cloud_accuracy: float
    """Always asking."""
    split: Split
    examples: int


class ClassAgreement(BaseModel):
    """Both models on the examples of one true class."""

    examples: int
    agreement: float
    interval: Interval
    cloud_recall: float
    mobile_recall: float


class Outcomes(BaseModel):
    """Examples by who is right, and how unlikely the difference is by chance."""

    both_right: int
    only_cloud: int
    only_mobile: int
    both_wrong: int
    p_value: float
    """Exact two-sided McNemar test: could the two be equally good?"""


class PairComparison(BaseModel):
    """The content of pair.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.pair/v1"] = Field(default="dual.pair/v1", alias="schema")
    split: Split
    examples: int
    labels: list[str]
    examples_digest: str
    agreement: float
    """Share of examples that both answer alike, right or wrong."""
    interval: Interval
    per_class: dict[str, ClassAgreement]
    """Classes without examples are left out."""
    cloud_gain: float
    """Accuracy of the cloud model minus that of the mobile model."""
    cloud_gain_interval: Interval
    outcomes: Outcomes
    matrix: list[list[int]]
    """[cloud's answer][mobile's answer] → examples."""
    policy: ChosenPolicy
    curve: list[tuple[float, float, float]]
    """(threshold, accuracy, share of cloud calls), every point there is."""
    verdict: Verdict


def write_pair(root: Path, pair: PairComparison) -> None:
    """Write `<root>/pair.json`, whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    write_whole(root / MANIFEST, pair.model_dump_json(by_alias=True, indent=1).encode())


def read_pair(root: Path) -> PairComparison:
    """Load `<root>/pair.json`; `DataError` if it is missing or malformed."""
    return read_model(PairComparison, root / MANIFEST, "Run compare_pair again")
