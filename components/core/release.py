"""The release contract: what leaves the pipeline is a pair of models from the same data, labels and preprocessing, or nothing.

Layout: `releases/<id>/` with release.json, labels.txt, cloud/<version>/…, mobile/model.tflite, golden/…, report/index.html and
model_card.md. A release exists when its release.json does: that file is written last and never changed. The id names the content
(`content_id`); times, run ids, the report and the card are no part of it, so the same models always get the same id.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from components.core.digest import sha256_bytes, sha256_file, sha256_json
from components.core.errors import DataError
from components.core.examples import labels_digest
from components.core.gate import Verdict
from components.core.preprocessing import Preprocessing
from components.core.stores import Store, join

MANIFEST = "release.json"
MOBILE_FILE = "model.tflite"
_ID = r"^[0-9a-f]{12}$"


def _finite(values: Any) -> Any:
    # A metric that could not be computed travels as null; a baseline without a number is a baseline without the metric.
    return {name: value for name, value in values.items() if value is not None} if isinstance(values, Mapping) else values


Metrics = Annotated[dict[str, float], BeforeValidator(_finite)]


class FileEntry(BaseModel):
    """Size in bytes and hex SHA-256 of one file."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


Files = dict[str, FileEntry]


class Dataset(BaseModel):
    """The examples that both models were made from."""

    digest: str
    spans: list[str] = []
    source: str = ""
    drawn: bool = False
    """True if the images were drawn by the embedded generator: no figure of this release is about photographs."""
    examples: dict[str, int] = {}
    """Split → number of examples."""


class ModelHalf(BaseModel):
    """One model of the pair. `path` is relative to the release's folder, `files` are relative to `path`."""

    path: str
    files: Files
    backbone: str = ""
    weights: str = ""
    """Which starting weights were used, in words, also when others were asked for."""
    detail: dict[str, JsonValue] = {}
    """What else its makers said: the quantization method, parameters, latency."""

    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files.values())


class Pair(BaseModel):
    """Both models, or both of something else."""

    cloud: ModelHalf
    mobile: ModelHalf


class PairPreprocessing(BaseModel):
    """The preprocessing contract of each model."""

    cloud: Preprocessing
    mobile: Preprocessing


class ModelEvaluation(BaseModel):
    """One model's evaluation.json, whole: the fields that later runs compare with are typed, the rest is kept as it was."""

    model_config = ConfigDict(extra="allow")

    model: str
    split: str
    examples: int
    labels: list[str]
    examples_digest: str
    metrics: Metrics
    intervals: dict[str, tuple[float, float]] = {}
    confusion: list[list[int]] = []
    slices: dict[str, Metrics] = {}


class PairEvaluations(BaseModel):
    """Both models' evaluations."""

    cloud: ModelEvaluation
    mobile: ModelEvaluation


class Release(BaseModel):
    """The content of release.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["dual.release/v1"] = Field(default="dual.release/v1", alias="schema")
    id: str = Field(pattern=_ID)
    """First 12 hex of the digest of the contents."""
    version: int = Field(ge=0, lt=1 << 53)
    """The id as a number: TF Serving's version of the cloud model (exact in JavaScript too)."""
    name: str
    """Name of the served model."""
    labels: list[str]
    labels_digest: str
    dataset: Dataset
    preprocessing: PairPreprocessing
    models: Pair
    golden: Files
    evaluations: PairEvaluations
    pair: dict[str, JsonValue]
    """pair.json without its curve: agreement, per class, and the policy."""
    policy: dict[str, JsonValue]
    """The layered policy: the confidence below which a phone should ask the cloud."""
    baseline: str = ""
    """Id of the release that this one was compared with; empty for a first release."""
    verdicts: dict[str, Verdict]
    """Step → verdict with its reasons; all blessed."""
    run_id: str
    code_version: str
    created: str
    """UTC, ISO 8601."""

    def folder(self) -> str:
        """The release's folder in the store."""
        return release_folder(self.id)

    def cloud_folder(self) -> str:
        """The SavedModel's folder in the store."""
        return join(self.folder(), self.models.cloud.path)

    def mobile_file(self) -> FileEntry:
        """Digest and size of the .tflite."""
        return self.models.mobile.files[MOBILE_FILE]

    def all_files(self) -> Files:
        """Every digested file by its path below the release's folder; labels.txt included, report and card left out."""
        halves = (self.models.cloud, self.models.mobile)
        files = {f"{half.path}/{name}": entry for half in halves for name, entry in half.files.items()}
        labels = labels_text(self.labels)
        files["labels.txt"] = FileEntry(sha256=sha256_bytes(labels), size=len(labels))
        return files | {f"golden/{name}": entry for name, entry in self.golden.items()}

    def content_id(self) -> str:
        """The id that this content must have."""
        return content_id(
            labels=self.labels,
            cloud=self.models.cloud.files,
            mobile=self.models.mobile.files,
            golden=self.golden,
            preprocessing=self.preprocessing,
            policy=self.policy,
            dataset=self.dataset.digest,
        )

    def to_json(self) -> bytes:
        """The bytes of release.json."""
        return self.model_dump_json(by_alias=True, indent=1).encode()


def content_id(
    *,
    labels: list[str],
    cloud: Files,
    mobile: Files,
    golden: Files,
    preprocessing: PairPreprocessing,
    policy: Mapping[str, JsonValue],
    dataset: str,
) -> str:
    """First 12 hex of the digest of what a release is; file names are relative to their half's folder."""
    digests = {"cloud": cloud, "mobile": mobile, "golden": golden}
    facts = {half: {name: file.sha256 for name, file in files.items()} for half, files in digests.items()}
    return sha256_json({"labels": labels, "preprocessing": preprocessing.model_dump(), "policy": policy, "dataset": dataset} | facts)[:12]


def release_version(release_id: str) -> int:
    """The number under which TF Serving knows the release's cloud model."""
    return int(release_id, 16)


def version_release(version: int) -> str:
    """The release id of a served version: the inverse of `release_version`."""
    return f"{version:012x}"


def release_folder(release_id: str) -> str:
    """The release's folder in the store."""
    return join("releases", release_id)


def labels_text(labels: list[str]) -> bytes:
    """labels.txt: one class name a line, in the order of the models' outputs."""
    return "".join(f"{label}\n" for label in labels).encode()


def read_release(store: Store, release_id: str) -> Release:
    """The release of that id; `DataError` if the store has none or its release.json is malformed."""
    name = join(release_folder(release_id), MANIFEST)
    found = store.find(name)
    if found is None:
        raise DataError(f"there is no release '{release_id}'", where=store.uri, fix="List the releases with: dual release list")
    return parse_release(found.data, f"{store.uri}/{name}")


def parse_release(data: bytes, where: str) -> Release:
    """The release in the bytes of a release.json; `DataError` names the key that is wrong."""
    try:
        return Release.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        raise DataError(what, where=where, fix="The file was changed after it was written; run the pipeline again") from None


def read_baseline(store: Store) -> Release | None:
    """The last promoted release (what channels/stable.json names); None before the first one."""
    from components.core.channel import read_channel

    found = read_channel(store)
    return read_release(store, found[0].release) if found else None


def list_releases(store: Store) -> list[Release]:
    """Every release of the store, oldest first; folders whose release.json was never written are no releases."""
    names = [name for name in store.list("releases/") if name.count("/") == 2 and name.endswith(f"/{MANIFEST}")]
    releases = [read_release(store, name.split("/")[1]) for name in names]
    return sorted(releases, key=lambda release: (release.created, release.id))


def verify_release(store: Store, release_id: str) -> list[str]:
    """Every way in which the stored files differ from what release.json says; empty if none. Reads every file."""
    release = read_release(store, release_id)
    found = set(_stored(store, release))
    expected = release.all_files()
    differences = [f"releases/{release_id}/{name}: unexpected file" for name in sorted(found - set(expected))]
    for name, entry in sorted(expected.items()):
        differences += _compare(store, join(release.folder(), name), entry)
    return differences + _contradictions(release, release_id)


def _stored(store: Store, release: Release) -> list[str]:
    root = f"{release.folder()}/"
    names = [name.removeprefix(root) for name in store.list(root)]
    return [name for name in names if name.startswith(("cloud/", "mobile/", "golden/"))]


def _compare(store: Store, name: str, entry: FileEntry) -> list[str]:
    found = store.find(name)
    if found is None:
        return [f"{name}: missing"]
    if len(found.data) != entry.size:
        return [f"{name}: {len(found.data)} bytes, expected {entry.size}"]
    digest = sha256_bytes(found.data)
    return [] if digest == entry.sha256 else [f"{name}: sha256 {digest}, expected {entry.sha256}"]


def _contradictions(release: Release, asked: str) -> list[str]:
    where = f"{release_folder(asked)}/{MANIFEST}"
    facts = [
        ("id", release.id, asked),
        ("id of the content", release.content_id(), asked),
        ("version", release.version, release_version(asked)),
        ("labels_digest", release.labels_digest, labels_digest(release.labels)),
        ("models.cloud.path", release.models.cloud.path, f"cloud/{release_version(asked)}"),
        ("models.mobile.path", release.models.mobile.path, "mobile"),
    ]
    wrong = [f"{where}: {key} is {found}, expected {expected}" for key, found, expected in facts if found != expected]
    refused = [step for step, verdict in release.verdicts.items() if not verdict.blessed]
    return wrong + [f"{where}: the verdict of {step} is not blessed" for step in refused]


def diff_releases(a: Release, b: Release) -> list[tuple[str, Any, Any]]:
    """(key, value in `a`, value in `b`) for every leaf of release.json that differs, sorted by key; None where one has none."""
    left, right = _leaves(a.model_dump(mode="json", by_alias=True)), _leaves(b.model_dump(mode="json", by_alias=True))
    keys = sorted(set(left) | set(right))
    return [(key, left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)]


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    nested = [_leaves(child, f"{prefix}.{key}" if prefix else str(key)) for key, child in value.items()]
    return {key: leaf for leaves in nested for key, leaf in leaves.items()}


def fetch_release(store: Store, release_id: str, folder: Path) -> Release:
    """Download the whole release to `folder`, each file checked by its sha256; the folder appears whole or not at all.

    A folder that is there already is left alone. Raises `DataError` if a file is missing or differs.
    """
    release = read_release(store, release_id)
    _fetch(store, release.folder(), release.all_files(), folder, {MANIFEST: release.to_json()})
    return release


def stage_cloud(store: Store, release_id: str, model_dir: Path) -> int:
    """Put the release's SavedModel at `model_dir/<version>/` by a rename; returns the version. Repeats safely, several at once too."""
    return place_cloud(store, read_release(store, release_id), model_dir)


def place_cloud(store: Store, release: Release, model_dir: Path) -> int:
    """`stage_cloud` for a release.json that was read, and looked at, before."""
    place_files(store, release.cloud_folder(), release.models.cloud.files, model_dir / str(release.version))
    return release.version


def place_files(store: Store, prefix: str, files: Files, target: Path) -> None:
    """Put the files below `prefix` into the folder `target`, each checked by its sha256: whole or not at all, and kept if it is there."""
    _fetch(store, prefix, files, target, {})


def _fetch(store: Store, prefix: str, files: Files, target: Path, extra: Mapping[str, bytes]) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name starts with a dot: TF Serving takes only folders that are numbers for versions.
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        staging.chmod(0o755)
        for name, entry in files.items():
            _fetch_file(store, join(prefix, name), entry, staging / join(name))
        for name, data in extra.items():
            (staging / name).write_bytes(data)
        _rename(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch_file(store: Store, name: str, entry: FileEntry, path: Path) -> None:
    # A copy, never a link: a file that somebody edits here must not change the release.
    path.parent.mkdir(parents=True, exist_ok=True)
    store.copy_file(name, path, limit=entry.size)
    found = file_entry(path)
    if found != entry:
        fix = "The store is damaged: look with `dual release verify`, then run the pipeline again"
        what = f"sha256 is {found.sha256} ({found.size} bytes), its manifest says {entry.sha256} ({entry.size} bytes)"
        raise DataError(what, where=f"{store.uri}/{name}", fix=fix)


def _rename(staging: Path, target: Path) -> None:
    try:
        staging.rename(target)
    except OSError:
        # Another process staged the same release first; ours is the same content.
        if not target.exists():
            raise


def file_entry(path: Path) -> FileEntry:
    """Size and SHA-256 of a file."""
    return FileEntry(sha256=sha256_file(path), size=path.stat().st_size)


def tree_files(root: Path) -> Files:
    """Every file below `root` by its relative name, sorted; unfinished writes (`.tmp/`) are no files."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix(): file_entry(path) for path in files if ".tmp" not in path.relative_to(root).parts}
