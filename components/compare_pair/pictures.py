"""The layered policy drawn."""

from matplotlib.figure import Figure

from components.compare_pair.pair import PairComparison
from components.core.policy import ALWAYS_ASK, NEVER_ASK
from components.evaluation.pictures import BLUE, GREY, INK, ORANGE, quiet, render


def curve_picture(pair: PairComparison) -> bytes:
    """A PNG of accuracy against share of cloud calls, with both ends, the target and the chosen point."""
    policy = pair.policy
    shares, accuracies = [point[2] for point in pair.curve], [point[1] for point in pair.curve]
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(shares, accuracies, ".-", color=BLUE, linewidth=1.2, markersize=4, label="every threshold there is")
    axes.axhline(policy.target_accuracy, color=GREY, linestyle="--", linewidth=1.2, label=f"target {policy.target_accuracy:.3f}")
    axes.plot([0, 1], [policy.mobile_accuracy, policy.cloud_accuracy], "s", color=INK, markersize=6, label="mobile alone, cloud alone")
    low, high = policy.expected_interval
    label = f"expected on new images {policy.expected_accuracy:.3f}"
    middle = policy.expected_cloud_share
    errors = ([max(0.0, policy.expected_accuracy - low)], [max(0.0, high - policy.expected_accuracy)])
    axes.errorbar([middle], [policy.expected_accuracy], yerr=errors, fmt="none", ecolor=ORANGE, alpha=0.6, capsize=4, label=label)
    axes.plot(policy.cloud_share, policy.accuracy, "o", color=ORANGE, markersize=9, label=_chosen(policy.threshold, policy.cloud_share))
    axes.set(title="Layered policy", xlabel="share of images that go to the cloud", ylabel="accuracy", xlim=(-0.03, 1.03))
    axes.legend(frameon=False, fontsize=9)
    quiet(axes)
    return render(figure)


def _chosen(threshold: float, share: float) -> str:
    if threshold == NEVER_ASK:
        return "chosen: never ask"
    return "chosen: always ask" if threshold == ALWAYS_ASK else f"chosen: ask below {threshold:.3f}, {share:.1%} of images"
