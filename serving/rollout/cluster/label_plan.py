"""What a rollout by labels would do, in words."""

from serving.rollout.cluster.settings import Plan


def label_rows(plan: Plan, *, within: bool, serving: int, replicas: int) -> list[tuple[str, str]]:
    """(phase, what happens) for a rollout within the `serving` pods that hold what they are told, or to `replicas` ones made anew."""
    after = f"the label stable is measured, {plan.post_count} round(s)"
    return [
        *(_within(plan, serving) if within else _anew(plan, serving, replicas)),
        ("post_analysis", after),
        ("drain", _drain(plan, within)),
    ]


def _within(plan: Plan, serving: int) -> list[tuple[str, str]]:
    rows = [("prepare", f"each of the {serving} pod(s) loads the candidate beside the stable version; the label stable does not move")]
    if plan.preview:
        rows.append(("validate_preview", "every one of them is asked the golden images, by the candidate's number"))
    count = plan.analysis.count or 1
    rows.append(("analyze", f"{count} round(s): both versions are asked by their numbers, and compared; no live traffic"))
    if plan.gate:
        rows.append(("paused", "until somebody promotes"))
    return [*rows, ("promote", f"the label stable moves by one write; each of the {serving} server(s) has to say that it did")]


def _anew(plan: Plan, serving: int, replicas: int) -> list[tuple[str, str]]:
    first = [
        ("prepare", f"{replicas} pod(s) are made anew: the first ones, or the template changed"),
        ("validate_preview", "golden images"),
    ]
    gate = [("paused", "until somebody promotes")] if plan.gate else []
    if serving and plan.make_room:
        gap = f"the {serving} pod(s) of before end, then {replicas} start: a gap in service (make_room)"
        return [("prepare", "the Deployment is made, without pods"), ("promote", gap)]
    return [*first, *gate, ("promote", f"{replicas} pod(s) ready, then all live traffic moves by one write")]


def _drain(plan: Plan, within: bool) -> str:
    old = "the version of before stays loaded" if within else "the old pods stay"
    return f"{old} {plan.scale_down_delay:g} s, and until the pair is published"
