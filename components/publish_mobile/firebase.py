"""The Firebase app of one project: the SDK's default one, because its model calls look there whatever app they are given.

With a named app `ml.create_model` makes the model, and then raises "The default Firebase app does not exist" (firebase-admin 7.7).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.core.errors import ConflictError, DualError, UsageError, missing_extra

SHUTDOWN = "2027-06-15"
NOTICE = f"Firebase ML is shut down on {SHUTDOWN}: move to Cloud Storage with `dual publish migrate` and release apps that read it before"


@contextmanager
def firebase_app(project: str, bucket: str = "") -> Iterator[Any]:
    """The default app of `project`, with this machine's Google credentials; taken away at the end if it was made here.

    Raises `UsageError` if firebase-admin is not installed, or if the process has a default app of another project.
    """
    try:
        import firebase_admin
    except ModuleNotFoundError:
        raise missing_extra("firebase", "firebase-admin") from None
    try:
        app, made = firebase_admin.get_app(), False
    except ValueError:
        options = {"projectId": project, **({"storageBucket": bucket} if bucket else {})}
        app, made = firebase_admin.initialize_app(options=options), True
    try:
        if app.project_id != project:
            what = f"this process has a Firebase app of the project '{app.project_id}'"
            raise UsageError(what, where=f"project {project}", fix="Publish from a process of its own")
        with service_errors(f"Firebase project {project}"):
            yield app
    finally:
        if made:
            firebase_admin.delete_app(app)


@contextmanager
def service_errors(where: str) -> Iterator[None]:
    """What Firebase and the credentials refuse, in our own errors."""
    from firebase_admin.exceptions import AlreadyExistsError, FirebaseError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except AlreadyExistsError as error:
        raise ConflictError(f"somebody else made it first ({error})", where=where, fix="Run again") from None
    except FirebaseError as error:
        fix = "Check the project's id, the role Firebase ML Admin of this identity, and that the API is enabled"
        raise DualError(f"the service refuses ({error.code}: {error})", where=where, fix=fix) from None
    except GoogleAuthError as error:
        fix = "Give a service account's key by GOOGLE_APPLICATION_CREDENTIALS"
        raise DualError(f"no credentials ({error})", where=where, fix=fix) from None
