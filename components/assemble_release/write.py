"""Writing a release: every file first, release.json last; a release exists when its release.json does."""

from collections.abc import Callable, Iterator
from pathlib import Path

from components.assemble_release.inputs import Inputs
from components.core.digest import sha256_bytes
from components.core.errors import DataError
from components.core.release import MANIFEST, FileEntry, Release, labels_text
from components.core.stores import Store, join

REPORT = "report/index.html"
CARD = "model_card.md"


def write_release(store: Store, release: Release, inputs: Inputs, *, card: str, report: Callable[[], bytes]) -> bool:
    """Write what is missing or damaged, then release.json if it is absent; True if this call made the release.

    A process killed anywhere leaves at most files that no one reads; the next writer of the same content completes them. Two writers
    write the same bytes. Raises `DataError` if a file of the artifacts changed while it was being read.
    """
    expected = release.all_files()
    for name, data in _contents(release, inputs):
        _put_verified(store, join(release.folder(), name), data, expected[name])
    store.put_if_absent(join(release.folder(), CARD), card.encode())
    if not store.exists(join(release.folder(), REPORT)):
        store.put_if_absent(join(release.folder(), REPORT), report())
    return store.put_if_absent(join(release.folder(), MANIFEST), release.to_json())


def _contents(release: Release, inputs: Inputs) -> Iterator[tuple[str, bytes]]:
    yield "labels.txt", labels_text(release.labels)
    for name in release.models.cloud.files:
        yield f"{release.models.cloud.path}/{name}", _read(inputs.cloud_folder / name)
    for name in release.models.mobile.files:
        yield f"{release.models.mobile.path}/{name}", _read(inputs.mobile_file.parent / name)
    for name in release.golden:
        yield f"golden/{name}", _read(inputs.golden_folder / name)


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _put_verified(store: Store, name: str, data: bytes, entry: FileEntry) -> None:
    if sha256_bytes(data) != entry.sha256:
        raise DataError("the file changed while the release was being written", where=name, fix="Run the step again")
    if store.put_if_absent(name, data):
        return
    # The name holds the content's id: other bytes there are damage, and writing repairs it.
    if sha256_bytes(store.get(name).data) != entry.sha256:
        store.put(name, data)
