"""Firebase ML, until it is shut down: one hosted model by its exact display name, made, updated and published by the SDK.

It knows neither signatures nor percentages: it gets the mobile half that everybody may use. Uploading needs a key that can sign a URL (the
service fetches the file by it), which a bare Workload Identity can't. docs/publish.md says how apps leave it.
"""

import re
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from components.core.channel import Channel, MobilePointer
from components.core.errors import DataError, DualError, UsageError
from components.core.staging import BASIS
from components.core.stores import Store
from components.core.stores.gcs import GcsStore
from components.publish_mobile.firebase import SHUTDOWN, firebase_app

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_LARGEST = 40_000_000
_WAIT = 300.0


@dataclass(frozen=True)
class Hosted:
    """What is hosted now."""

    model_id: str
    release: str
    changed: bool
    """Whether this call changed anything."""


def host_model(store: Store, channel: Channel, *, project: str, name: str) -> Hosted:
    """Let Firebase ML host the mobile half that everybody may use, under `name`, published. Repeats safely.

    Raises `UsageError` for a bad name, a store that is not gs://, a service that is gone, or credentials that can't sign; `DataError` if
    the model is too large or the service refuses it.
    """
    release, mobile = _for_everybody(channel)
    _check(store, name, mobile)
    with warnings.catch_warnings(), firebase_app(project) as app:
        # The SDK says at every call what NOTICE says once.
        warnings.simplefilter("ignore", DeprecationWarning)
        _require_signer(app, project)
        return _host(app, name, _address(store, mobile), release)


def check_service(now: datetime | None = None) -> None:
    """`UsageError` once the service is gone."""
    if (now or datetime.now(UTC)).date().isoformat() >= SHUTDOWN:
        fix = "Publish to Cloud Storage alone: leave publish_mobile.firebase_ml out"
        raise UsageError(f"Firebase ML was shut down on {SHUTDOWN}", where="publish_mobile.firebase_ml", fix=fix)


def _for_everybody(channel: Channel) -> tuple[str, MobilePointer]:
    if channel.staging.basis_points >= BASIS:
        return channel.release, channel.mobile
    if channel.fallback is None:
        what = f"{channel.release} is staged at {channel.staging.percent()}, and Firebase ML knows no percentages"
        raise UsageError(what, where="Firebase ML", fix="Widen it to all devices first")
    return channel.fallback.release, channel.fallback.mobile


def _check(store: Store, name: str, mobile: MobilePointer) -> None:
    check_service()
    if not _NAME.fullmatch(name):
        fix = "Begin with a letter, and use at most 32 letters, digits and underscores"
        raise UsageError(f"'{name}' is no name for a hosted model", where="publish_mobile.firebase_ml.name", fix=fix)
    if not isinstance(store, GcsStore):
        raise UsageError(
            "Firebase ML fetches models from Cloud Storage", where=store.uri, fix="Use a store in a bucket: gs://BUCKET/PREFIX"
        )
    if mobile.size > _LARGEST:
        what = f"the model has {mobile.size / 1e6:.1f} MB, Firebase ML hosts 40"
        raise DataError(what, where=mobile.blob, fix="Choose a smaller mobile model, or publish to Cloud Storage alone")


def _address(store: Store, mobile: MobilePointer) -> str:
    return f"{store.uri}/{mobile.blob}"


def _require_signer(app: Any, project: str) -> None:
    from google.auth.credentials import Signing

    if not isinstance(app.credential.get_credential(), Signing):
        fix = "Give a service account's key by GOOGLE_APPLICATION_CREDENTIALS: the service fetches the file by a signed URL"
        raise UsageError("these credentials can't sign", where=f"Firebase project {project}", fix=fix)


def _host(app: Any, name: str, address: str, release: str) -> Hosted:
    from firebase_admin import ml

    tags = ["dual", f"release-{release}"]
    model = find_model(app, name)
    if model is not None and model.published and not model.locked and not model.validation_error and set(tags) <= set(model.tags or []):
        return Hosted(model.model_id, release, changed=False)
    source = ml.TFLiteGCSModelSource(gcs_tflite_uri=address, app=app)
    if model is None:
        wanted = ml.Model(display_name=name, tags=tags, model_format=ml.TFLiteFormat(model_source=source))
        model = _valid(ml.create_model(wanted, app=app), name)
    else:
        # A model that another publisher is working on can't be changed.
        model.wait_for_unlocked(_WAIT)
        model.tags, model.model_format = tags, ml.TFLiteFormat(model_source=source)
        model = _valid(ml.update_model(model, app=app), name)
    if not model.published:
        ml.publish_model(model.model_id, app=app)
    return Hosted(model.model_id, release, changed=True)


def find_model(app: Any, name: str) -> Any:
    """The hosted model of exactly that display name, or None; `DualError` if there are several."""
    from firebase_admin import ml

    # The filter is the service's; what it lets through is looked at again.
    found = [model for model in ml.list_models(list_filter=f"displayName={name}", app=app).iterate_all() if model.display_name == name]
    if len(found) > 1:
        raise DualError(f"{len(found)} models are called '{name}'", where="Firebase ML", fix="Delete all but one in the console")
    return found[0] if found else None


def _valid(model: Any, name: str) -> Any:
    """The service checks a model after it has answered: wait for that, and say what it found."""
    model.wait_for_unlocked(_WAIT)
    if model.validation_error:
        fix = "Nothing was published there; look at the model with `dual release verify`"
        raise DataError(f"Firebase ML refuses the model ({model.validation_error})", where=name, fix=fix)
    return model
