"""roll_out_cloud: the cloud half is loaded beside the running version, checked under traffic, and takes the live traffic."""

from kfp import dsl

from components.core.step import step


@step(image="dual-deployer")
def roll_out_cloud(store: str, run_id: str, release: str, view: dsl.Output[dsl.HTML]) -> None:
    """Move the label `stable` of every running server to the release, after its checks; else everything stays as it was."""
    from components.core.record import open_step
    from components.roll_out_cloud.roll_out import roll_out

    with open_step("roll_out_cloud", store=store, run_id=run_id, view=view.path) as record:
        roll_out(record, release=release, settings=record.settings)
