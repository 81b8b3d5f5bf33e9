"""The reference for drift: a sample of the training images that the schema was made from, as numbers."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.core.digest import sha256_bytes
from components.core.errors import DataError, UsageError
from components.core.stores import Store
from components.validate_data.measure import DESCRIPTOR, DIMENSIONS, STATISTICS, Floats
from components.validate_data.scan import Scan
from components.validate_data.schema import SCHEMA
from components.validate_data.settings import ValidateDataSettings

BINS = 30


@dataclass(frozen=True)
class Sample:
    """Some images as a comparison needs them.

    `statistics` float32 [n, 7], `descriptors` float32 [n, d], `sha256` n content digests; `label_counts` label → images, over all
    images of the population that was sampled.
    """

    name: str
    statistics: Floats
    descriptors: Floats
    sha256: list[str]
    label_counts: dict[str, int]

    def __len__(self) -> int:
        """Number of sampled images."""
        return len(self.sha256)


def sample_of(scan: Scan, name: str, rows: NDArray[np.intp], size: int) -> tuple[Sample, NDArray[np.intp]]:
    """At most `size` of `rows` as a sample, and which rows they are."""
    chosen = scan.sample(rows, size)
    counts = dict(zip(scan.labels, scan.label_counts(rows).tolist(), strict=True))
    return Sample(name, scan.statistics[chosen], scan.descriptors[chosen], [scan.sha256[row] for row in chosen], counts), chosen


def reference_bytes(scan: Scan, settings: ValidateDataSettings) -> bytes:
    """A reference made from the training split, as .npz: the same examples give the same bytes.

    Besides the sample it holds histograms of every statistic over the whole split (`histograms` int64 [7, 30], `edges` [7, 31]).
    """
    rows = scan.rows("train")
    sample, _ = sample_of(scan, "train", rows, settings.reference_examples)
    histograms = [np.histogram(scan.statistics[rows, column], BINS) for column in range(len(STATISTICS))]
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        descriptor=np.array(DESCRIPTOR),
        statistics=sample.statistics,
        descriptors=sample.descriptors.astype(np.float16),
        sha256=np.array([digest[:16] for digest in sample.sha256], "<U16"),
        labels=np.array(list(sample.label_counts)),
        label_counts=np.array(list(sample.label_counts.values()), np.int64),
        histograms=np.stack([counts for counts, _ in histograms]),
        edges=np.stack([edges for _, edges in histograms]),
    )
    return buffer.getvalue()


def keep_reference(store: Store, data: bytes) -> str:
    """Put a reference into the store under a name made of its content; returns the name."""
    name = f"schema/reference-{sha256_bytes(data)[:12]}.npz"
    store.put_if_absent(name, data)
    return name


def read_reference(store: Store, name: str) -> Sample:
    """The reference that the schema names.

    Raises `UsageError` if it is not in the store, `DataError` if it is damaged or made with another descriptor.
    """
    if not store.exists(name):
        raise UsageError(
            f"there is no object '{name}' in the store", where=f"{store.uri}/{SCHEMA}, key reference", fix="Name an existing one, or none"
        )
    try:
        return _parse_reference(store.get(name).data)
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        fix = f"Name another reference in {SCHEMA}, or delete that file and the next run makes both anew"
        raise DataError(f"the reference can't be used ({error})", where=f"{store.uri}/{name}", fix=fix) from None


def _parse_reference(data: bytes) -> Sample:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        made_with = str(arrays["descriptor"])
        statistics, descriptors = arrays["statistics"].astype(np.float32), arrays["descriptors"].astype(np.float32)
        digests, counts = arrays["sha256"].tolist(), arrays["label_counts"].tolist()
        labels = arrays["labels"].tolist()
    if made_with != DESCRIPTOR:
        raise ValueError(f"made with descriptor {made_with}, this version has {DESCRIPTOR}")
    if statistics.shape != (len(digests), len(STATISTICS)) or descriptors.shape != (len(digests), DIMENSIONS):
        raise ValueError(f"unexpected shapes {statistics.shape} and {descriptors.shape} for {len(digests)} images")
    return Sample("reference", statistics, descriptors, digests, dict(zip(labels, counts, strict=True)))
