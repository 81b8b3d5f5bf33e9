"""A rollout's plan: every mistake is told before a rollout begins, with its key."""

import pytest

from components.core.errors import UsageError
from serving.rollout.cluster.site import parse_plan


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: []", "steps: List should have at least 1 item"),
        ("steps: [{weight: 50}, {weight: 10}]", "steps: Value error, weights must rise: 10 comes after 50"),
        ("steps: [{weight: 0}]", "steps.0.weight: Input should be greater than or equal to 1"),
        ("steps: [{weight: 5, pause: .inf}]", "steps.0.pause: Value error, should be from 0 to a year's seconds, or manual, found inf"),
        ("steps: [{weight: 5, pause: .nan}]", "steps.0.pause: Value error, should be from 0"),
        ("steps: [{weight: 5, pause: -1}]", "steps.0.pause: Value error, should be from 0"),
        ("progress_deadline: .inf", "progress_deadline: Input should be less than or equal to"),
        ("publish_within: .nan", "publish_within: Input should be less than or equal to"),
        ("scale_down_delay: 1e300", "scale_down_delay: Input should be less than or equal to"),
        ("analysis: {interval: .inf}", "analysis.interval: Input should be less than or equal to"),
        ("analysis: {initial_delay: 1e9}", "analysis.initial_delay: Input should be less than or equal to"),
        ("{", "is not YAML"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_plan(text, "ConfigMap n/x")
    assert str(caught.value).startswith(f"ConfigMap n/x: {message}")
    assert str(caught.value).endswith("Correct it and apply it again.")


def test_equal_weights_may_follow_each_other() -> None:
    plan = parse_plan("steps: [{weight: 10, pause: 60}, {weight: 10, pause: manual}, {weight: 50}]", "here")
    assert [(step.weight, step.pause) for step in plan.steps] == [(10, 60.0), (10, "manual"), (50, 0.0)]
