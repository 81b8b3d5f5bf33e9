"""Firebase: credentials, the project, and its Cloud Storage bucket, where the mobile model goes by default."""

import os

from pipelines.doctor.finding import Finding, failed, ok, skipped, warning
from pipelines.doctor.google import ask, identity
from pipelines.doctor.visit import Visit


def check_firebase(visit: Visit) -> list[Finding]:
    """The project is one of Firebase's, and the bucket is linked to it."""
    if not visit.firebase_bucket:
        return [skipped("firebase", "no bucket was named", "dual doctor --firebase-bucket PROJECT.firebasestorage.app")]
    if emulator := os.environ.get("FIREBASE_STORAGE_EMULATOR_HOST"):
        return [ok("firebase", f"the emulator at {emulator} is used: no project is asked")]
    who = identity(visit.seconds / 2)
    project = visit.project or who.project
    said = ask(who, "firebase", f"/v1beta1/projects/{project}", timeout=visit.seconds / 2, project=project)
    if said.disabled:
        return [failed("firebase", f"the API is switched off in {project}", said.disabled)]
    if said.status == 404:
        return [failed("firebase", f"{project} is no Firebase project", f"firebase projects:addfirebase {project}")]
    if said.status != 200:
        fix = f"gcloud projects add-iam-policy-binding {project} --member=… --role=roles/firebase.viewer"
        return [failed("firebase", f"{who.name} can't see the project {project} ({said.message})", fix)]
    return [ok("firebase", f"project {said.body.get('displayName') or project}, as {who.name}"), _bucket(visit, project)]


def _bucket(visit: Visit, project: str) -> Finding:
    """Linked to Firebase, so that apps can read it by Firebase's rules; whether it can be written is tried by `--store gs://…`."""
    who, bucket = identity(visit.seconds / 2), visit.firebase_bucket
    said = ask(who, "firebasestorage", f"/v1beta/projects/{project}/buckets/{bucket}", timeout=visit.seconds / 2, project=project)
    if said.status == 200:
        return ok("firebase bucket", f"{bucket} is linked to {project}")
    if said.disabled:
        return failed("firebase bucket", f"the API is switched off in {project}", said.disabled)
    if said.status == 404:
        fix = f"Link it in the Firebase console (Storage), or: curl -X POST …/v1beta/projects/{project}/buckets/{bucket}:addFirebase"
        return failed("firebase bucket", f"{bucket} is not linked to {project}: apps can't read it by Firebase's rules", fix)
    return warning("firebase bucket", f"{bucket}: {said.message}", f"gcloud projects get-iam-policy {project}")
