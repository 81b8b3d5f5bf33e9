"""publish_mobile: the channel names the pair; servers and devices follow it."""

from kfp import dsl

from components.core.step import step


@step(image="dual-deployer")
def publish_mobile(store: str, run_id: str, release: str, view: dsl.Output[dsl.HTML]) -> None:
    """Publish the release's mobile model and commit the pair; if that fails, the cloud rollout is taken back."""
    from components.core.record import open_step
    from components.publish_mobile.publish import publish

    with open_step("publish_mobile", store=store, run_id=run_id, view=view.path) as record:
        publish(record, release=release, settings=record.settings)
