"""Firebase ML by the real SDK, Remote Config by REST, and a key service, each against a strict stand-in."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from components.core.channel import Channel
from components.core.envelope import trusted_signatures
from components.core.errors import ConflictError, DataError, DualError, UsageError
from components.core.keyring import Keyring
from components.core.release import Release
from components.core.stores import Store, open_store
from components.publish_mobile.firebase_ml import check_service, host_model
from components.publish_mobile.key_service import GoogleKey
from components.publish_mobile.migrate import HostedFile, migrate_models
from components.publish_mobile.private_key import make_key
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.publish import publish
from components.publish_mobile.remote_config import ring
from components.publish_mobile.signing import find_signing
from tests.release_pieces import make_release, record_of
from tests.store import fake_gcs
from tests.store.conftest import BUCKET
from tests.store.fake_firebase import PROJECT, Service, fake_firebase
from tests.unit.test_publish import promote

KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"
MODEL = b"\x1c\0\0\0TFL3 and the rest of a model "


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The services, and a service account whose tokens they give."""
    firebase_admin = pytest.importorskip("firebase_admin.ml", reason="needs the extra 'firebase'")
    with fake_firebase() as (address, service):
        account = {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key": rsa_pem(),
            "client_email": "publisher@example.com",
            "token_uri": f"{address}/token",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        ml = firebase_admin._MLService
        monkeypatch.setattr(ml, "PROJECT_URL", address + "/v1beta2/projects/{0}/")
        monkeypatch.setattr(ml, "OPERATION_URL", f"{address}/v1beta2/")
        monkeypatch.setattr(ml, "POLL_BASE_WAIT_TIME_SECONDS", 0.01)
        monkeypatch.setenv("DUAL_REMOTE_CONFIG_ENDPOINT", address)
        monkeypatch.setenv("DUAL_KMS_ENDPOINT", address)
        service.key = make_key().secret
        yield service


@cache
def rsa_pem() -> str:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def store(gcs_bucket: fake_gcs.Bucket, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DUAL_SIGNING_KEY", make_key().pem().decode())
    return open_store(f"gs://{BUCKET}/team")


def release_of(store: Store, root: Path, seed: int, model: bytes = MODEL) -> Release:
    path = root / f"{seed}.tflite"
    path.write_bytes(model + str(seed).encode())
    return make_release(store, root, seed, tflite=path)


@pytest.fixture
def releases(store: Store, tmp_path: Path) -> list[Release]:
    return [release_of(store, tmp_path, seed) for seed in range(2)]


def offer(service: Service, bucket: fake_gcs.Bucket) -> None:
    """What the service can fetch by signed URLs."""
    service.files = {f"{BUCKET}/{name}": found[0] for name, found in bucket.objects.items()}


def host(store: Store, channel: Channel, service: Service, bucket: fake_gcs.Bucket, name: str = "flowers") -> bool:
    offer(service, bucket)
    return host_model(store, channel, project=PROJECT, name=name).changed


def hosted(service: Service, name: str = "flowers") -> dict[str, object]:
    (model,) = [model for model in service.models.values() if model["displayName"] == name]
    return model


def test_a_model_is_made_then_updated_and_published(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket
) -> None:
    first, second = releases
    assert host(store, publish_release(store, first.id), service, gcs_bucket)
    model = hosted(service)
    assert (model["state"], model["tags"]) == ({"published": True}, ["dual", f"release-{first.id}"])
    service.asked.clear()
    assert not host(store, publish_release(store, first.id), service, gcs_bucket)
    assert not [request for request in service.asked if request.startswith(("POST /v1", "PATCH"))]
    assert host(store, publish_release(store, second.id), service, gcs_bucket)
    assert len(service.models) == 1
    assert hosted(service)["tags"] == ["dual", f"release-{second.id}"]
    assert str(hosted(service)["tfliteModel"]).count(second.mobile_file().sha256) == 1
    assert host(store, undo_publication(store, "")[0], service, gcs_bucket)
    assert hosted(service)["tags"] == ["dual", f"release-{first.id}"]


def test_names_that_begin_alike_are_other_models(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket
) -> None:
    channel = publish_release(store, releases[0].id)
    for name in ("flowers_eu", "flowers_us", "flowers2", "flowers"):
        host(store, channel, service, gcs_bucket, name)
    publish_release(store, releases[1].id)
    host(store, publish_release(store, releases[1].id), service, gcs_bucket)
    assert len(service.models) == 4
    assert hosted(service)["tags"] == ["dual", f"release-{releases[1].id}"]
    assert hosted(service, "flowers_eu")["tags"] == ["dual", f"release-{releases[0].id}"]


def test_a_model_that_another_publisher_locked_is_waited_for(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket
) -> None:
    host(store, publish_release(store, releases[0].id), service, gcs_bucket)
    operation = next(iter(service.operations))
    service.operations[operation][0] = 3
    hosted(service)["activeOperations"] = [{"name": operation}]
    assert host(store, publish_release(store, releases[1].id), service, gcs_bucket)
    assert "activeOperations" not in hosted(service)


def test_what_the_service_finds_wrong_with_a_file_is_said_and_nothing_is_published(
    store: Store, service: Service, gcs_bucket: fake_gcs.Bucket, tmp_path: Path
) -> None:
    release = release_of(store, tmp_path, 5, model=b"no model ")
    with pytest.raises(DataError, match="no TFLite model"):
        host(store, publish_release(store, release.id), service, gcs_bucket)
    assert not hosted(service)["state"]["published"]  # type: ignore[index]


def test_a_staged_release_is_hosted_when_everybody_may_use_it(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket
) -> None:
    publish_release(store, releases[0].id)
    host(store, publish_release(store, releases[1].id, basis_points=1000), service, gcs_bucket)
    assert hosted(service)["tags"] == ["dual", f"release-{releases[0].id}"]


def test_a_first_release_that_is_staged_is_not_hosted(store: Store, releases: list[Release], service: Service) -> None:
    channel = publish_release(store, releases[0].id, basis_points=1000)
    with pytest.raises(UsageError, match="no percentages"):
        host_model(store, channel, project=PROJECT, name="flowers")
    assert service.models == {}


@pytest.mark.parametrize("name", ["", "1flowers", "flo wers", "flowers-1", "f" * 33])
def test_a_bad_name_is_refused_before_anything_is_asked(store: Store, releases: list[Release], service: Service, name: str) -> None:
    with pytest.raises(UsageError, match="Begin with a letter"):
        host_model(store, publish_release(store, releases[0].id), project=PROJECT, name=name)
    assert service.asked == []


def test_a_model_over_40_mb_is_refused_before_anything_is_asked(store: Store, releases: list[Release], service: Service) -> None:
    channel = publish_release(store, releases[0].id)
    large = channel.model_copy(update={"mobile": channel.mobile.model_copy(update={"size": 40_000_001})})
    with pytest.raises(DataError, match=r"40\.0 MB"):
        host_model(store, large, project=PROJECT, name="flowers")
    assert service.asked == []


def test_credentials_that_cannot_sign_are_named(
    store: Store, releases: list[Release], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (tmp_path / "user.json").write_text(json.dumps(user))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "user.json"))
    with pytest.raises(UsageError, match="can't sign"):
        host_model(store, publish_release(store, releases[0].id), project=PROJECT, name="flowers")
    assert service.models == {}


def test_a_refusal_of_the_service_is_ours(store: Store, releases: list[Release], service: Service) -> None:
    service.statuses["GET"] = 403
    with pytest.raises(DualError, match="PERMISSION_DENIED"):
        host_model(store, publish_release(store, releases[0].id), project=PROJECT, name="flowers")


def test_whoever_makes_it_second_is_told_of_the_conflict(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    host(store, publish_release(store, releases[0].id), service, gcs_bucket)
    monkeypatch.setattr("components.publish_mobile.firebase_ml.find_model", lambda app, name: None)
    with pytest.raises(ConflictError, match="made it first"):
        host(store, publish_release(store, releases[1].id), service, gcs_bucket)
    assert len(service.models) == 1


def test_only_a_bucket_can_be_hosted_from(tmp_path: Path, service: Service) -> None:
    local = open_store(str(tmp_path / "local"))
    release = make_release(local, tmp_path, 0)
    with pytest.raises(UsageError, match="gs://"):
        host_model(local, publish_release(local, release.id), project=PROJECT, name="flowers")


def test_the_service_is_gone_on_its_day() -> None:
    check_service(datetime(2027, 6, 14, tzinfo=UTC))
    with pytest.raises(UsageError, match="2027-06-15"):
        check_service(datetime(2027, 6, 15, tzinfo=UTC))


def test_hosted_models_move_to_the_store_and_are_recognised(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket
) -> None:
    host(store, publish_release(store, releases[0].id), service, gcs_bucket)
    gcs_bucket.objects["theirs/old.tflite"] = (b"another model", 1, {})
    service.models["7"] = {
        "name": f"projects/{PROJECT}/models/7",
        "displayName": "old",
        "state": {"published": True},
        "tags": ["v1"],
        "tfliteModel": {"gcsTfliteUri": f"gs://{BUCKET}/theirs/old.tflite"},
    }
    service.models["8"] = {"name": f"projects/{PROJECT}/models/8", "displayName": "console", "state": {"published": True}}
    service.models["9"] = {"name": f"projects/{PROJECT}/models/9", "displayName": "hidden", "state": {}}
    found = {each.name: each for each in migrate_models(store, project=PROJECT)}
    assert set(found) == {"flowers", "old", "console"}
    assert found["flowers"].release == releases[0].id
    assert "does not say where" in found["console"].problem
    pointer = HostedFile.model_validate_json(store.get("hosted/old.json").data)
    assert (store.get(pointer.file).data, pointer.tags, pointer.size) == (b"another model", ["v1"], 13)
    generation = store.get("hosted/old.json").generation
    assert migrate_models(store, project=PROJECT, name="old")[0].file == pointer.file
    assert store.get("hosted/old.json").generation == generation
    with pytest.raises(DataError, match="'none'"):
        migrate_models(store, project=PROJECT, name="none")


def test_remote_config_names_the_sequence_and_keeps_all_else(store: Store, releases: list[Release], service: Service) -> None:
    first = publish_release(store, releases[0].id)
    assert ring(first, project=PROJECT)
    assert service.template["parameters"]["theirs"] == {"defaultValue": {"value": "1"}}
    said = json.loads(service.template["parameters"]["dual_channel"]["defaultValue"]["value"])
    assert said == {"channel": "stable", "sequence": 1, "release": releases[0].id}
    assert not ring(first, project=PROJECT)
    second = publish_release(store, releases[1].id)
    service.overtakers = 3
    assert ring(second, project=PROJECT)
    assert not ring(first, project=PROJECT)
    service.overtakers = 99
    with pytest.raises(ConflictError, match="changed by others"):
        ring(undo_publication(store, "")[0], project=PROJECT)


def test_a_parameter_of_somebody_else_is_left_alone(store: Store, releases: list[Release], service: Service) -> None:
    with pytest.raises(DataError, match="something else"):
        ring(publish_release(store, releases[0].id), project=PROJECT, parameter="theirs")
    service.statuses["PUT"] = 403
    with pytest.raises(DualError, match="403"):
        ring(publish_release(store, releases[0].id), project=PROJECT)


def test_step_tells_firebase_and_what_fails_there_takes_nothing_back(
    store: Store, releases: list[Release], service: Service, gcs_bucket: fake_gcs.Bucket
) -> None:
    promote(store, releases[0].id, "run-1")
    service.statuses["PUT"] = 403
    settings = {"firebase_ml": {"project": PROJECT, "name": "flowers"}, "remote_config": {"project": PROJECT}}
    record = record_of(store, "publish_mobile")
    publish(record, release=releases[0].id, settings=json.dumps({"publish_mobile": settings}))
    said = " ".join(record.record.warnings)
    assert "2027-06-15" in said
    assert "repeat this with: dual publish firebase-ml" in said
    assert "repeat this with: dual publish remote-config" in said
    offer(service, gcs_bucket)
    service.statuses.clear()
    record = record_of(store, "publish_mobile")
    publish(record, release=releases[0].id, settings=json.dumps({"publish_mobile": settings}))
    assert any("Hosted(" in note for note in record.record.notes)
    assert json.loads(service.template["parameters"]["dual_channel"]["defaultValue"]["value"])["sequence"] == 1


def test_a_key_service_signs_without_giving_the_key_away(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUAL_SIGNING_KEY", raising=False)
    monkeypatch.setenv("DUAL_SIGNING_KEY_FILE", f"gcpkms://{KEY}")
    signing = find_signing(open_store("gs://bucket/x"))
    envelope = signing.seal(b'{"sequence": 1}')
    assert trusted_signatures(envelope, Keyring(keys=[signing.signers[0].public])) == signing.key_ids()
    service.damage = True
    with pytest.raises(DualError, match="damaged on its way"):
        signing.seal(b"{}")
    service.statuses["POST"] = 403
    with pytest.raises(DualError, match="403"):
        signing.seal(b"{}")
    with pytest.raises(UsageError, match="no key version"):
        GoogleKey("projects/p/keys/1")
