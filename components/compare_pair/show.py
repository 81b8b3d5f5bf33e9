"""What the comparison leaves in its step's record."""

from pathlib import Path

import numpy as np

from components.compare_pair.joined import Joined
from components.compare_pair.pair import ChosenPolicy, Outcomes, PairComparison
from components.compare_pair.pictures import curve_picture
from components.core.policy import ALWAYS_ASK, NEVER_ASK
from components.core.record import StepRecord
from components.evaluation.pictures import Tile, confusion_picture, contact_sheet


def show_pair(record: StepRecord, pair: PairComparison, joined: Joined, examples: Path, most: int) -> None:
    """Fill the record with figures, tables and pictures; up to `most` disagreements are shown, their images from `examples`."""
    policy = pair.policy
    for name, number in (
        ("agreement", pair.agreement),
        ("cloud_gain", pair.cloud_gain),
        ("policy_threshold", policy.threshold),
        ("policy_accuracy", policy.expected_accuracy),
        ("cloud_share", policy.cloud_share),
        ("expected_cloud_share", policy.expected_cloud_share),
        ("target_reached", float(policy.reached)),
    ):
        record.metric(name, number)
    record.note(in_words(policy))
    record.note(_who_is_better(pair.outcomes))
    _tables(record, pair)
    record.picture("policy", curve_picture(pair), "Layered policy: accuracy against the share of images that go to the cloud")
    picture = confusion_picture(
        pair.matrix, pair.labels, "Cloud answer against mobile answer", "cloud model's answer", "mobile model's answer"
    )
    record.picture("agreement", picture, f"Where the two models agree (diagonal) and where not, {pair.examples} examples of {pair.split}")
    _disagreements(record, pair, joined, examples, most)
    record.verdict(pair.verdict)


def in_words(policy: ChosenPolicy) -> str:
    """The policy as a sentence."""
    low, high = policy.expected_interval
    expected = f"expected accuracy {policy.expected_accuracy:.3f} ({low:.3f} to {high:.3f})"
    missed = "" if policy.reached else f"; no threshold reaches the target of {policy.target_accuracy:.3f}"
    if policy.threshold == NEVER_ASK:
        reached = f"the phone alone reaches the target of {policy.target_accuracy:.3f}"
        why = reached if policy.reached else f"asking shows no gain{missed}"
        return f"Never ask the cloud: {why}; {expected}, cloud alone {policy.cloud_accuracy:.3f}"
    if policy.threshold == ALWAYS_ASK:
        return f"Always ask the cloud{missed}; {expected}, mobile alone {policy.mobile_accuracy:.3f}"
    return (
        f"Ask the cloud if the phone's confidence is below {policy.threshold:.3f}: {policy.cloud_share:.1%} of the images{missed}; "
        f"{expected}, mobile alone {policy.mobile_accuracy:.3f}, cloud alone {policy.cloud_accuracy:.3f}"
    )


def _who_is_better(outcomes: Outcomes) -> str:
    counts = f"only the cloud model is right on {outcomes.only_cloud}, only the mobile model on {outcomes.only_mobile}"
    return f"Both are right on {outcomes.both_right}, {counts}, neither on {outcomes.both_wrong} (McNemar p = {outcomes.p_value:.2g})"


def _tables(record: StepRecord, pair: PairComparison) -> None:
    rows = [
        [
            label,
            found.examples,
            found.agreement,
            f"{found.interval[0]:.3f} to {found.interval[1]:.3f}",
            found.cloud_recall,
            found.mobile_recall,
        ]
        for label, found in pair.per_class.items()
    ]
    low, high = pair.interval
    everything = ["all", pair.examples, pair.agreement, f"{low:.3f} to {high:.3f}", pair.policy.cloud_accuracy, pair.policy.mobile_accuracy]
    record.table("Agreement", ["class", "examples", "agreement", "95 % interval", "cloud recall", "mobile recall"], [everything, *rows])
    policy = pair.policy
    record.table(
        "Layered policy",
        ["", "accuracy", "share of cloud calls"],
        [
            ["never ask (mobile alone)", policy.mobile_accuracy, 0.0],
            [f"chosen: ask below {policy.threshold:.4g}", policy.accuracy, policy.cloud_share],
            ["the same on images that did not choose it", policy.expected_accuracy, policy.expected_cloud_share],
            ["always ask (cloud alone)", policy.cloud_accuracy, 1.0],
            ["target", policy.target_accuracy, None],
        ],
    )


def _disagreements(record: StepRecord, pair: PairComparison, joined: Joined, examples: Path, most: int) -> None:
    from components.evaluation.split import read_images

    together = joined.cloud.scores + joined.mobile.scores
    differ = sorted(np.flatnonzero(~joined.agree()).tolist(), key=lambda index: (-together[index], joined.keys[index]))
    if not (shown := differ[:most]):
        return
    images = read_images(examples, joined.split, [joined.keys[index] for index in shown])
    tiles = [Tile(images[joined.keys[i]], pair.labels[joined.labels[i]], _both_say(pair.labels, joined, i)) for i in shown]
    caption = f"The {len(shown)} most confident of {len(differ)} disagreements: true class above, both answers below"
    record.picture("disagreements", contact_sheet(tiles), caption, kind="jpg")


def _both_say(labels: list[str], joined: Joined, index: int) -> str:
    lines = []
    for name, answers in (("cloud", joined.cloud), ("mobile", joined.mobile)):
        answer = answers.predicted[index]
        said = f"{labels[answer]} {answers.scores[index]:.0%}" if answer >= 0 else "no valid answer"
        lines.append(f"{name}: {said}")
    return "\n".join(lines)
