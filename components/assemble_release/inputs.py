"""What assemble_release reads: the reports that the other steps left in their artifacts, reduced to what a release needs."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, JsonValue

from components.core.examples import Examples, read_examples, read_model
from components.core.gate import Verdict
from components.core.preprocessing import Preprocessing
from components.core.release import MOBILE_FILE, ModelEvaluation, PairPreprocessing

_FIX = "Run the pipeline again"


class JudgedEvaluation(ModelEvaluation):
    """evaluation.json with its verdict."""

    verdict: Verdict


class Quantization(BaseModel):
    """quantization.json: how the .tflite was made, and what that cost."""

    model_config = ConfigDict(extra="allow")

    method: str
    full_int8: bool
    preprocessing: Preprocessing
    labels: list[str]
    verdict: Verdict


class PairReport(BaseModel):
    """pair.json: the two models compared, and the layered policy."""

    model_config = ConfigDict(extra="allow")

    policy: dict[str, JsonValue]
    verdict: Verdict


class Infra(BaseModel):
    """infra.json: what happened when both models were loaded and queried."""

    model_config = ConfigDict(extra="allow")

    verdict: Verdict


class GoldenHead(BaseModel):
    """golden.json, as far as the release repeats it."""

    model_config = ConfigDict(extra="allow")

    preprocessing: PairPreprocessing


@dataclass(frozen=True)
class Inputs:
    """Every judged piece of a run, and where its files lie."""

    examples: Examples
    cloud: JudgedEvaluation
    mobile: JudgedEvaluation
    quantization: Quantization
    pair: PairReport
    infra: Infra
    golden: GoldenHead
    cloud_folder: Path
    golden_folder: Path
    mobile_file: Path

    def verdicts(self) -> dict[str, Verdict]:
        """Step → verdict, in the order of the flow."""
        return {
            "evaluate_cloud": self.cloud.verdict,
            "quantize_mobile": self.quantization.verdict,
            "evaluate_mobile": self.mobile.verdict,
            "compare_pair": self.pair.verdict,
            "validate_infra": self.infra.verdict,
        }


def read_inputs(examples: str, mobile_model: str, servable: str, cloud: str, mobile: str, pair: str) -> Inputs:
    """Read the artifacts (paths of their folders); `DataError` names the file that is missing or malformed."""
    golden = Path(servable) / "golden"
    return Inputs(
        examples=read_examples(Path(examples)),
        cloud=read_model(JudgedEvaluation, Path(cloud) / "evaluation.json", _FIX),
        mobile=read_model(JudgedEvaluation, Path(mobile) / "evaluation.json", _FIX),
        quantization=read_model(Quantization, Path(mobile_model) / "quantization.json", _FIX),
        pair=read_model(PairReport, Path(pair) / "pair.json", _FIX),
        infra=read_model(Infra, Path(servable) / "infra.json", _FIX),
        golden=read_model(GoldenHead, golden / "golden.json", _FIX),
        cloud_folder=Path(servable) / "cloud",
        golden_folder=golden,
        mobile_file=Path(mobile_model) / MOBILE_FILE,
    )
