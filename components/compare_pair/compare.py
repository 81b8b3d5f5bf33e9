"""The two models of a pair side by side: agreement, who is right, and the layered policy."""

import math
from pathlib import Path

import numpy as np

from components.compare_pair.curve import Curve, choose, cross_fitted, policy_curve
from components.compare_pair.joined import Joined, join_evaluations
from components.compare_pair.pair import ChosenPolicy, ClassAgreement, Outcomes, PairComparison, write_pair
from components.compare_pair.settings import ComparePairSettings
from components.compare_pair.show import show_pair
from components.core.examples import read_examples
from components.core.gate import Reason, Verdict, absolute_checks, combine, refuse
from components.core.policy import NEVER_ASK
from components.core.record import StepRecord
from components.core.settings import section, value
from components.evaluation.bootstrap import mean_interval


def compare_pair_models(record: StepRecord, *, examples: Path, cloud: Path, mobile: Path, settings: str, output: Path) -> PairComparison:
    """Compare the evaluations in `cloud` and `mobile`, choose the layered policy, judge, write the artifact to `output`.

    Raises `DataError` if the two are not about the same examples, split and labels.
    """
    own = section(settings, "compare_pair", ComparePairSettings)
    contents = read_examples(examples)
    joined = join_evaluations(cloud, mobile, contents)
    pair = compare_answers(record.step, joined, contents.labels, contents.digest, own, int(value(settings, "seed", 1)))
    write_pair(output, pair)
    show_pair(record, pair, joined, examples, own.disagreements)
    return pair


def compare_answers(step: str, joined: Joined, labels: list[str], digest: str, settings: ComparePairSettings, seed: int) -> PairComparison:
    """All that pair.json says about two models' answers."""
    agree = joined.agree()
    curve = policy_curve(joined.layers())
    policy = choose_policy(joined, curve, settings, seed)
    gain = joined.cloud.correct.astype(np.float64) - joined.mobile.correct
    per_class = _per_class(joined, labels, settings.resamples, seed)
    measured = {
        "agreement": float(agree.mean()),
        "policy_accuracy": policy.expected_accuracy,
        "cloud_share": policy.cloud_share,
        "cloud_gain": float(gain.mean()),
        "target_reached": float(policy.reached),
    } | {f"agreement/{label}": found.agreement for label, found in per_class.items()}
    return PairComparison(
        split=joined.split,
        examples=len(joined.keys),
        labels=labels,
        examples_digest=digest,
        agreement=measured["agreement"],
        interval=mean_interval(agree, resamples=settings.resamples, seed=seed),
        per_class=per_class,
        cloud_gain=measured["cloud_gain"],
        cloud_gain_interval=mean_interval(gain, resamples=settings.resamples, seed=seed),
        outcomes=_outcomes(joined),
        matrix=_matrix(joined, len(labels)),
        policy=policy,
        curve=curve.points(),
        verdict=_verdict(step, settings, measured, joined),
    )


def choose_policy(joined: Joined, curve: Curve, settings: ComparePairSettings, seed: int) -> ChosenPolicy:
    """The threshold for the target, and what it comes to on images that did not choose it.

    Where the target is out of reach and asking shows no gain on such images, the answer is never to ask.
    """
    target = None if settings.target_accuracy == "best" else settings.target_accuracy
    choice = choose(curve, target, settings.margin)
    right, asked = cross_fitted(joined.layers(), joined.keys, target, settings.margin, settings.folds)
    index, threshold, mobile = choice.index, choice.threshold, joined.mobile.correct
    if not choice.reached and right.mean() <= mobile.mean():
        index, threshold = 0, NEVER_ASK
    if threshold == NEVER_ASK:
        right, asked = mobile, np.zeros_like(asked)
    return ChosenPolicy(
        threshold=threshold,
        target_accuracy=choice.target,
        reached=choice.reached,
        accuracy=float(curve.accuracy[index]),
        cloud_share=float(curve.cloud_share[index]),
        expected_accuracy=float(right.mean()),
        expected_interval=mean_interval(right, resamples=settings.resamples, seed=seed),
        expected_cloud_share=float(asked.mean()),
        mobile_accuracy=float(curve.accuracy[0]),
        cloud_accuracy=float(curve.accuracy[-1]),
        split=joined.split,
        examples=len(joined.keys),
    )


def mcnemar_p(only_one: int, only_other: int) -> float:
    """Exact two-sided McNemar test (1947): the binomial probability of a split at least this uneven among the examples that differ."""
    differing, smaller = only_one + only_other, min(only_one, only_other)
    # Logarithms, because the binomial coefficients of thousands of examples exceed any float.
    logs = [math.lgamma(differing + 1) - math.lgamma(k + 1) - math.lgamma(differing - k + 1) for k in range(smaller + 1)]
    tail = math.fsum(math.exp(log - differing * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def _verdict(step: str, settings: ComparePairSettings, measured: dict[str, float], joined: Joined) -> Verdict:
    broken: list[Reason] = [
        refuse("answers", f"{answers.invalid} of the {name} model's {len(joined.keys)} answers are no probabilities")
        for name, answers in (("cloud", joined.cloud), ("mobile", joined.mobile))
        if answers.invalid
    ]
    return combine(step, [*broken, *absolute_checks(step, settings.gate, measured)])


def _per_class(joined: Joined, labels: list[str], resamples: int, seed: int) -> dict[str, ClassAgreement]:
    agree, found = joined.agree(), {}
    for index, label in enumerate(labels):
        mine = joined.labels == index
        if mine.any():
            found[label] = ClassAgreement(
                examples=int(mine.sum()),
                agreement=float(agree[mine].mean()),
                interval=mean_interval(agree[mine], resamples=resamples, seed=seed),
                cloud_recall=float(joined.cloud.correct[mine].mean()),
                mobile_recall=float(joined.mobile.correct[mine].mean()),
            )
    return found


def _outcomes(joined: Joined) -> Outcomes:
    cloud, mobile = joined.cloud.correct, joined.mobile.correct
    only_cloud, only_mobile = int((cloud & ~mobile).sum()), int((mobile & ~cloud).sum())
    return Outcomes(
        both_right=int((cloud & mobile).sum()),
        only_cloud=only_cloud,
        only_mobile=only_mobile,
        both_wrong=int((~cloud & ~mobile).sum()),
        p_value=mcnemar_p(only_cloud, only_mobile),
    )


def _matrix(joined: Joined, classes: int) -> list[list[int]]:
    valid = (joined.cloud.predicted >= 0) & (joined.mobile.predicted >= 0)
    cells = joined.cloud.predicted[valid] * classes + joined.mobile.predicted[valid]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes).tolist()
