"""The picture of a rollout's analysis."""

import io
from collections.abc import Mapping

from serving.rollout.traffic import Traffic


def draw_latency(traffic: Mapping[str, Traffic]) -> bytes:
    """A PNG: seconds since the start of the replay against latency in milliseconds, one colour per version."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.add_subplot()
    for name, seen in traffic.items():
        axes.scatter(
            [at for at, _ in seen.samples], [ms for _, ms in seen.samples], s=14, label=f"{name} (p99 {seen.latency(0.99):.0f} ms)"
        )
    axes.set_xlabel("seconds since the start of the replay")
    axes.set_ylabel("latency in ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
