"""The run's settings: one model, one section per step, named like the step."""

from typing import TypeVar

from pydantic import Field

from components.assemble_release.settings import AssembleReleaseSettings
from components.compare_pair.settings import ComparePairSettings
from components.core.settings import Section
from components.core.shards import ShardSettings
from components.evaluation.settings import EvaluateSettings
from components.ingest.settings import IngestSettings
from components.publish_mobile.settings import PublishMobileSettings
from components.quantize_mobile.settings import QuantizeSettings
from components.report.settings import ReportSettings
from components.roll_out_cloud.settings import RollOutCloudSettings
from components.training.settings import CloudTrainSettings, MobileTrainSettings
from components.validate_data.settings import ValidateDataSettings
from components.validate_infra.settings import ValidateInfraSettings

SectionT = TypeVar("SectionT", bound=Section)


def _defaults(model: type[SectionT]) -> SectionT:
    return model.model_validate({})


class Settings(Section):
    """Everything that a run can be told; one section per step, named like the step."""

    name: str = Field("classifier", pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$", description="Name of the served model.")
    profile: str = Field("quick", description="The profile that these settings started from.")
    seed: int = Field(1, ge=0, description="Seed of every random choice: same seed, same data, same metrics on a CPU.")
    sharding: ShardSettings = _defaults(ShardSettings)
    ingest: IngestSettings = _defaults(IngestSettings)
    validate_data: ValidateDataSettings = _defaults(ValidateDataSettings)
    train_cloud: CloudTrainSettings = _defaults(CloudTrainSettings)
    train_mobile: MobileTrainSettings = _defaults(MobileTrainSettings)
    quantize_mobile: QuantizeSettings = _defaults(QuantizeSettings)
    evaluate_cloud: EvaluateSettings = _defaults(EvaluateSettings)
    evaluate_mobile: EvaluateSettings = _defaults(EvaluateSettings)
    compare_pair: ComparePairSettings = _defaults(ComparePairSettings)
    validate_infra: ValidateInfraSettings = _defaults(ValidateInfraSettings)
    assemble_release: AssembleReleaseSettings = _defaults(AssembleReleaseSettings)
    roll_out_cloud: RollOutCloudSettings = _defaults(RollOutCloudSettings)
    publish_mobile: PublishMobileSettings = _defaults(PublishMobileSettings)
    report: ReportSettings = _defaults(ReportSettings)
