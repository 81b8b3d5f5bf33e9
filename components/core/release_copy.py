"""A release from one store into another: from a laptop to a bucket, from staging to production. The same id is the same content."""

from components.core.errors import DataError
from components.core.release import MANIFEST, Release, read_release, verify_release
from components.core.stores import Store, join


def copy_release(source: Store, target: Store, release_id: str) -> Release:
    """Write every file of a release to `target`, release.json last; a release that is whole there is left alone.

    Raises `DataError` if the source is damaged or has no such release, or if something else lies under the release's names.
    """
    release = read_release(source, release_id)
    if differences := verify_release(source, release_id):
        what = f"the release is damaged: {'; '.join(differences)}"
        raise DataError(what, where=source.uri, fix="Nothing was copied; run the pipeline again to make the release anew")
    root = f"{release.folder()}/"
    names = [name for name in source.list(root) if name != join(root, MANIFEST)]
    for name in [*names, join(root, MANIFEST)]:
        target.put_if_absent(name, source.get(name).data)
    if differences := verify_release(target, release_id):
        what = f"the copy differs: {'; '.join(differences)}"
        raise DataError(what, where=target.uri, fix="Something else lies there: delete the release's folder and copy again")
    return release
