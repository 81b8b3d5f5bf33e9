"""The data: it is where it was said to be, and where the run's steps can reach it. What is in it, `dual data check` looks at."""

import os
from pathlib import Path
from typing import Any

import httpx

from components.core.errors import DualError
from pipelines.doctor.finding import Finding, failed, ok, skipped
from pipelines.doctor.network import silence
from pipelines.doctor.visit import Visit

NAMED = ("flowers", "drawn")
"""Sources that need no address."""


def check_data(visit: Visit) -> list[Finding]:
    """The source can be opened from here."""
    data = visit.data
    if not data:
        return [skipped("data", "no source was named", "dual doctor --data SOURCE")]
    if data in NAMED:
        return [ok("data", f"'{data}' is known")]
    scheme = data.partition("://")[0] if "://" in data else ""
    if scheme in ("http", "https"):
        return [_web(data, visit.seconds / 2)]
    if scheme in ("gs", "s3"):
        return [_bucket(data)]
    return [_folder(visit, data)]


def _folder(visit: Visit, data: str) -> Finding:
    if visit.target != "local":
        return failed(
            "data", f"{data} is a folder of this machine, which pods can't see", f"Copy it: gcloud storage cp -r {data} gs://BUCKET/"
        )
    path = Path(data).expanduser()
    if not path.exists():
        return failed("data", f"there is no {path}", "dual data check SOURCE")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        return failed("data", f"{path} may not be read", f"chmod -R u+rX {path}")
    return ok("data", f"{path} can be read")


def _web(data: str, timeout: float) -> Finding:
    try:
        answer = httpx.head(data, timeout=timeout, follow_redirects=True)
    except httpx.HTTPError as error:
        what, fix = silence(error, f"curl -I {data}")
        return failed("data", f"{data}: {what}", fix)
    if answer.status_code >= 400 and answer.status_code not in (405, 501):
        return failed("data", f"{data} answers {answer.status_code}", f"curl -I {data}")
    return ok("data", f"{data} answers")


def _bucket(data: str) -> Finding:
    """One name below the address: a data set may have millions."""
    scheme, _, rest = data.partition("://")
    bucket, _, prefix = rest.partition("/")
    first = _first_of_gcs(bucket, prefix) if scheme == "gs" else _first_of_s3(bucket, prefix)
    if first:
        return ok("data", f"{data} holds {first}")
    return failed("data", f"{data} holds nothing", f"gcloud storage ls {data}" if scheme == "gs" else f"aws s3 ls {data}")


def _first_of_gcs(bucket: str, prefix: str) -> str:
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from requests.exceptions import RequestException

    try:
        # An emulator knows no identity; asking for one would reach for the network.
        emulated = os.environ.get("STORAGE_EMULATOR_HOST")
        client = storage.Client(project="emulator", credentials=AnonymousCredentials()) if emulated else storage.Client()
        return next((str(blob.name) for blob in client.list_blobs(bucket, prefix=prefix, max_results=1)), "")
    except (GoogleAPIError, GoogleAuthError, RequestException, ConnectionError) as error:
        raise _closed(f"gs://{bucket}/{prefix}", error, "gcloud auth application-default login") from None


def _first_of_s3(bucket: str, prefix: str) -> str:
    import obstore
    from obstore import exceptions
    from obstore.store import S3Store

    plain: Any = {"allow_http": True} if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://") else None
    try:
        pages = obstore.list(S3Store(bucket, client_options=plain), prefix=prefix.rstrip("/") or None, chunk_size=1)
        return next((str(meta["path"]) for page in pages for meta in page), "")
    except (exceptions.BaseError, FileNotFoundError) as error:
        raise _closed(f"s3://{bucket}/{prefix}", error, "Check AWS_ENDPOINT_URL, AWS_REGION and the credentials") from None


def _closed(where: str, error: Exception, fix: str) -> DualError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
    return DualError(f"can't be listed ({first})", where=where, fix=fix)
