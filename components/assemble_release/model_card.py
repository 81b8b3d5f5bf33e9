"""The model card: what people should know before they use the pair (headings of Mitchell et al. 2019, "Model Cards")."""

from components.assemble_release.settings import AssembleReleaseSettings
from components.core.release import ModelEvaluation, Release


def render_card(release: Release, options: AssembleReleaseSettings) -> str:
    """model_card.md of a release, as Markdown."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("components.assemble_release", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    environment.filters["number"] = number
    halves = [("Cloud", release.models.cloud, release.evaluations.cloud), ("Mobile", release.models.mobile, release.evaluations.mobile)]
    template = environment.get_template("model_card.md.j2")
    return template.render(release=release, options=options, halves=halves, overall=overall, per_class=per_class, number=number)


def overall(evaluation: ModelEvaluation) -> list[tuple[str, float, tuple[float, float] | None]]:
    """(metric, value, interval) of the metrics that are over all classes."""
    names = [name for name in evaluation.metrics if "/" not in name]
    return [(name, evaluation.metrics[name], evaluation.intervals.get(name)) for name in names]


def per_class(evaluation: ModelEvaluation, label: str) -> list[float | None]:
    """Precision, recall and F1 of one class; None where one could not be computed."""
    return [evaluation.metrics.get(f"{metric}/{label}") for metric in ("precision", "recall", "f1")]


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"
