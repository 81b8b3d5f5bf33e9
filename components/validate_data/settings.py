"""Settings of the validate_data step."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.core.settings import Section

Severity = Literal["error", "warning", "off"]
Kind = Literal[
    "unreadable_image",
    "label_out_of_range",
    "count_mismatch",
    "missing_split",
    "unseen_label",
    "label_missing",
    "few_train_examples",
    "few_held_out_examples",
    "class_imbalance",
    "label_conflict",
    "split_leak",
    "blank_image",
    "value_out_of_range",
    "missing_slice",
    "unseen_slice",
    "skew",
    "drift",
]

DEFAULT_SEVERITY: dict[Kind, Severity] = {
    "unreadable_image": "error",
    "label_out_of_range": "error",
    "count_mismatch": "error",
    "missing_split": "error",
    "unseen_label": "error",
    "label_missing": "error",
    "few_train_examples": "error",
    "few_held_out_examples": "warning",
    "class_imbalance": "warning",
    "label_conflict": "warning",
    "split_leak": "error",
    "blank_image": "warning",
    "value_out_of_range": "warning",
    "missing_slice": "warning",
    "unseen_slice": "warning",
    "skew": "warning",
    "drift": "warning",
}
"""What happens on each kind of anomaly unless the settings say otherwise."""


TESTS = 9
"""Tests of one comparison: seven image statistics, the labels, the embedding."""


class ValidateDataSettings(Section):
    """How strict the data check is. Limits of the data themselves (labels, ranges, minimum per class) live in the store's schema."""

    severity: dict[Kind, Severity] = Field(
        {}, description="Anomaly kind → `error` (the run stops with exit code 4), `warning` or `off`; kinds not named keep their default."
    )
    min_per_class: int = Field(5, ge=1, description="Fewest training images per class that an inferred schema may ask for.")
    min_held_out_per_class: int = Field(1, ge=0, description="The same for validation and test.")
    max_imbalance: float = Field(10.0, ge=1, description="Largest training class over smallest that an inferred schema allows.")
    allowed_outside: float = Field(0.01, ge=0, le=1, description="Share of images outside a range that an inferred schema allows.")
    drift_distance: float = Field(
        0.15, gt=0, le=1, description="Kolmogorov–Smirnov distance of an image statistic to the reference from which it counts as drift."
    )
    drift_labels: float = Field(
        0.15, gt=0, le=1, description="Share of images that changed class against the reference (total variation) that counts as drift."
    )
    drift_auc: float = Field(
        0.65, gt=0.5, le=1, description="How well a classifier may tell new images from the reference (ROC AUC) before it counts as drift."
    )
    skew_distance: float = Field(0.2, gt=0, le=1, description="The same as drift_distance, training split against another split.")
    skew_labels: float = Field(0.2, gt=0, le=1, description="The same as drift_labels, training split against another split.")
    skew_auc: float = Field(0.65, gt=0.5, le=1, description="The same as drift_auc, training split against another split.")
    skew_slices: list[str] = Field([], description="Slice columns in each of whose values train is compared with test, too.")
    alpha: float = Field(
        0.01, gt=0, lt=1, description="Largest p-value (Holm-corrected over all tests of a comparison) of a distance that is believed."
    )
    permutations: int = Field(999, ge=99, le=9999, description="Relabellings behind the p-value of the embedding test.")
    min_compared: int = Field(30, ge=10, description="Samples with fewer images are not compared.")
    reference_examples: int = Field(1000, ge=50, le=20000, description="Training images kept as the reference for drift.")
    pictures: bool = Field(True, description="Draw charts and sample sheets.")
    sample_images: int = Field(12, ge=1, le=40, description="Pictures on each sample sheet.")
    sample_classes: int = Field(12, ge=0, description="Most classes that get a sample sheet.")
    threads: int = Field(0, ge=0, description="Decoding threads; 0 is one per core.")

    @model_validator(mode="after")
    def _permutations_can_reach_alpha(self) -> Self:
        # The smallest p-value of k relabellings is 1 / (k + 1), and Holm multiplies it by up to the number of tests.
        if TESTS / (self.permutations + 1) > self.alpha:
            raise ValueError(f"{self.permutations} permutations can't reach alpha {self.alpha:g}: set at least {int(TESTS / self.alpha)}")
        return self

    def severity_of(self, kind: Kind) -> Severity:
        """What an anomaly of `kind` does."""
        return self.severity.get(kind, DEFAULT_SEVERITY[kind])
