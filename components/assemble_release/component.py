"""assemble_release: the gate of the flow. Its only output decides whether anything is shipped."""

from kfp import dsl

from components.core.step import step


@step(image="dual-trainer")
def assemble_release(
    store: str,
    run_id: str,
    examples: dsl.Input[dsl.Dataset],
    mobile_model: dsl.Input[dsl.Model],
    servable: dsl.Input[dsl.Model],
    cloud: dsl.Input[dsl.Artifact],
    mobile: dsl.Input[dsl.Artifact],
    pair: dsl.Input[dsl.Artifact],
) -> str:
    """Write the release and return its id, or return NOT BLESSED with every reason in the record."""
    from components.assemble_release.assemble import assemble
    from components.assemble_release.inputs import read_inputs
    from components.core.record import open_step

    with open_step("assemble_release", store=store, run_id=run_id) as record:
        return assemble(
            record,
            settings=record.settings,
            inputs=read_inputs(examples.path, mobile_model.path, servable.path, cloud.path, mobile.path, pair.path),
        )
