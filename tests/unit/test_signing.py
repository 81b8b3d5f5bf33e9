"""Keys and who signs: made once, kept to oneself, rotated with an overlap; a channel is built on only if its signature is known."""

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.core.channel import read_stored_channel
from components.core.envelope import trusted_signatures
from components.core.errors import DataError, DualError, StaleError, UsageError
from components.core.keyring import Keyring, read_keyring
from components.core.stores import Store, open_store
from components.publish_mobile.history import read_history
from components.publish_mobile.key_folder import KeyFolder, read_private_key, stamp
from components.publish_mobile.private_key import make_key, parse_keys
from components.publish_mobile.publication import publish_release, undo_publication
from components.publish_mobile.publish import publish
from components.publish_mobile.signing import find_signing, local_keys, own_keyring, signing_as
from components.publish_mobile.steer import sign
from components.publish_mobile.verify import verify_store
from tests.conftest import ROOT
from tests.release_pieces import CHANNEL, make_store, manifest_of, put_manifest, record_of
from tests.unit.test_channel import put_first_version
from tests.unit.test_publish import promote

CLOUD = open_store("gs://bucket/store")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyFolder:
    """A user without keys."""
    monkeypatch.setenv("DUAL_KEYS", str(tmp_path / "keys"))
    for name in ("DUAL_SIGNING_KEY", "DUAL_SIGNING_KEY_FILE", "DUAL_KEYRING", "DUAL_PUBLISH_MOBILE__SIGNING"):
        monkeypatch.delenv(name, raising=False)
    return KeyFolder()


def signed_by(store: Store) -> list[str]:
    found = read_stored_channel(store)
    assert found is not None
    assert found.envelope is not None
    return [each.keyid for each in found.envelope.signatures]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_key_is_kept_for_its_owner_only_and_its_public_half_for_all(folder: KeyFolder) -> None:
    key = folder.new("stable", days=30)
    path = folder.folder / f"{key.key_id}.pem"
    assert (mode(path), mode(folder.folder)) == (0o600, 0o700)
    assert read_private_key(path).public.key_id == key.key_id
    assert folder.keyring().keys == [key]
    assert (key.name, key.not_after[:10]) == ("stable", stamp(30)[:10])
    secret = path.read_text()
    assert secret.splitlines()[1] not in (folder.folder / "keyring.json").read_text() + repr(read_private_key(path))
    assert [p.name for p in folder.folder.iterdir() if p.name.startswith(".") and p.name != ".lock"] == []


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no private key in PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "damaged"),
        ("rsa", "not Ed25519"),
        ("encrypted", "encrypted"),
    ],
)
def test_a_wrong_key_file_is_named_and_not_shown(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_text(other_key(content) if content in ("rsa", "encrypted") else content)
    with pytest.raises(UsageError, match=text) as caught:
        read_private_key(path)
    assert str(path) in str(caught.value)
    assert "AAAA" not in str(caught.value)


def other_key(kind: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

    secret = generate_private_key(65537, 2048) if kind == "rsa" else make_key().secret
    encryption = NoEncryption() if kind == "rsa" else BestAvailableEncryption(b"secret")
    return secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()


def test_a_key_that_others_may_read_is_refused(folder: KeyFolder) -> None:
    path = folder.folder / f"{folder.new().key_id}.pem"
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        find_signing(CLOUD)


def test_a_folder_that_cannot_be_made_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DUAL_KEYS", str(tmp_path / "file" / "keys"))
    with pytest.raises(DualError, match="DUAL_SIGNING_KEY_FILE"):
        KeyFolder().new()


def test_a_local_store_makes_its_key_once_and_says_so(tmp_path: Path, folder: KeyFolder) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    assert "made now" in find_signing(store).note
    publish_release(store, first.id)
    publish_release(store, second.id)
    (key,) = local_keys().keyring().keys
    assert signed_by(store) == [key.key_id]
    assert folder.keyring().keys == []
    assert verify_store(store) == []


def test_first_publishers_at_once_make_one_key(tmp_path: Path) -> None:
    code = "from components.publish_mobile.signing import local_keys; print(local_keys().ensure('x')[0][0].public.key_id)"

    def start(_: int) -> str:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(start, range(4)))) == 1
    assert len(local_keys().private_keys()) == len(local_keys().keyring().keys) == 1


def test_a_required_key_that_is_missing_is_a_clear_error() -> None:
    local_keys().ensure("x")
    with pytest.raises(UsageError, match="no key to sign") as caught:
        find_signing(CLOUD, "required")
    assert "DUAL_SIGNING_KEY_FILE" in str(caught.value)
    with pytest.raises(UsageError, match="no key to sign"):
        find_signing(open_store("/anywhere"), "required")


def test_a_bucket_or_a_cluster_without_a_key_is_unsigned_and_says_so(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    for signing in (find_signing(CLOUD), find_signing(store, local=False)):
        assert signing.signers == ()
        assert "no key was given by DUAL_SIGNING_KEY_FILE" in signing.note
        assert "dual publish sign" in signing.note
    # Nobody is thrown back from a signed channel to an unsigned one.
    publish_release(store, first.id, signing=find_signing(store))
    with pytest.raises(UsageError, match="the channel is signed, and this publisher has no key"):
        publish_release(store, second.id, signing=find_signing(store, local=False))


def test_keys_come_from_files_and_variables(tmp_path: Path, folder: KeyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = make_key(), make_key(), make_key()
    files = [tmp_path / "one.pem", tmp_path / "two.pem"]
    for path, key in zip(files, (one, two), strict=True):
        path.touch(0o600)
        path.write_bytes(key.pem())
    monkeypatch.setenv("DUAL_SIGNING_KEY", three.pem().decode())
    monkeypatch.setenv("DUAL_SIGNING_KEY_FILE", str(files[1]))
    folder.new()
    found = find_signing(CLOUD, key_files=[str(files[0])])
    assert sorted(found.key_ids()) == sorted(key.public.key_id for key in (one, two, three))
    monkeypatch.setenv("DUAL_SIGNING_KEY_FILE", str(tmp_path / "missing.pem"))
    with pytest.raises(UsageError, match=r"missing\.pem"):
        find_signing(CLOUD)


def test_a_secret_of_several_keys_signs_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [make_key(), make_key()]
    monkeypatch.setenv("DUAL_SIGNING_KEY", "\n".join(f"comment\n{key.pem().decode()}" for key in keys))
    assert find_signing(CLOUD).key_ids() == [key.public.key_id for key in keys]
    assert [key.public for key in parse_keys(os.environ["DUAL_SIGNING_KEY"], "")] == [key.public for key in keys]


def test_rotation_signs_with_both_until_the_old_key_ends(tmp_path: Path, folder: KeyFolder) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    old = folder.new("stable")
    publish_release(store, first.id)
    new, ending = folder.rotate(90)
    assert [key.key_id for key in ending] == [old.key_id]
    assert (new.not_after, new.name, ending[0].not_after[:10]) == ("", "stable", stamp(90)[:10])
    publish_release(store, second.id)
    assert sorted(signed_by(store)) == sorted([old.key_id, new.key_id])
    end(folder, old.key_id)
    publish_release(store, third.id)
    assert signed_by(store) == [new.key_id]
    found = read_stored_channel(store)
    assert found is not None
    assert found.envelope is not None
    assert trusted_signatures(found.envelope, Keyring(keys=[old])) == []


def end(folder: KeyFolder, key_id: str) -> None:
    """Let a key's end be yesterday."""
    keyring = folder.keyring()
    key = keyring.find(key_id)
    assert key is not None
    ended = keyring.with_key(key.model_copy(update={"not_after": stamp(-1)}))
    (folder.folder / "keyring.json").write_bytes(ended.to_json())


def test_keys_past_their_end_sign_nothing(folder: KeyFolder) -> None:
    end(folder, folder.new().key_id)
    with pytest.raises(UsageError, match="past its end"):
        find_signing(CLOUD)
    with pytest.raises(UsageError, match="no key to rotate"):
        folder.rotate(90)


def test_a_second_rotation_moves_no_end_outwards(folder: KeyFolder) -> None:
    old = folder.new()
    folder.rotate(10)
    _, ending = folder.rotate(90)
    ends = {key.key_id: key.not_after[:10] for key in ending}
    assert ends[old.key_id] == stamp(10)[:10]


def test_current_pair_is_signed_anew_after_a_rotation(tmp_path: Path, folder: KeyFolder) -> None:
    store, (release,) = make_store(tmp_path, 1)
    old = folder.new()
    publish_release(store, release.id)
    new, _ = folder.rotate(90)
    channel = sign(store, reason="rotation")
    assert (channel.sequence, channel.release) == (2, release.id)
    assert sorted(signed_by(store)) == sorted([old.key_id, new.key_id])
    assert verify_store(store) == []


def test_a_channel_of_unknown_signers_is_not_built_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    theirs, mine = make_key(), make_key()
    monkeypatch.setenv("DUAL_SIGNING_KEY", theirs.pem().decode())
    publish_release(store, first.id)
    monkeypatch.setenv("DUAL_SIGNING_KEY", mine.pem().decode())
    for change in (lambda: publish_release(store, second.id), lambda: sign(store)):
        with pytest.raises(DataError, match="not known here") as caught:
            change()
        assert theirs.public.key_id in str(caught.value)
    path = tmp_path / "keyring.json"
    path.write_bytes(Keyring(keys=[theirs.public]).to_json())
    monkeypatch.setenv("DUAL_KEYRING", str(path))
    assert publish_release(store, second.id).sequence == 2


def test_an_edited_channel_is_not_built_on(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    put_manifest(store, manifest_of(store) | {"sequence": 1_000_000})
    with pytest.raises(DataError, match="not known here"):
        publish_release(store, second.id)


def test_a_signed_channel_does_not_become_unsigned(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id)
    with pytest.raises(UsageError, match="this publisher has no key"):
        publish_release(store, second.id, signing=find_signing(store, "unsigned"))
    put_manifest(store, manifest_of(store), signatures=[])
    with pytest.raises(DataError, match="was signed before"):
        publish_release(store, second.id)


def test_a_store_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    publish_release(store, first.id, signing=find_signing(store, "unsigned"))
    put_first_version(store)
    version = json.loads(store.get(f"mobile/versions/{first.id}.json").data)
    store.put(f"mobile/versions/{first.id}.json", json.dumps(version | {"schema": "dual.mobile/v1"}).encode())
    assert verify_store(store) == []
    assert sign(store).sequence == 2
    assert (len(signed_by(store)), manifest_of(store)["schema"]) == (1, "dual.channel/v2")
    assert verify_store(store) == []
    publish_release(store, second.id)
    assert undo_publication(store, "")[0].release == first.id


def test_a_migration_that_was_killed_before_its_swap_is_repeated(tmp_path: Path) -> None:
    store, (first,) = make_store(tmp_path, 1)
    publish_release(store, first.id, signing=find_signing(store, "unsigned"))
    generation = store.get(CHANNEL).generation

    class Dead(type(store)):
        def swap(self, name: str, data: bytes, generation: str | None) -> str:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        sign(Dead(Path(store.uri)))  # type: ignore[call-arg]
    assert store.get(CHANNEL).generation == generation
    sign(store)
    assert len(read_history(store)) == 2


def test_an_undo_of_an_unsigned_channel_needs_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    for release in (first, second):
        publish_release(store, release.id, signing=find_signing(store, "unsigned"))
    signing = find_signing(CLOUD, stays_unsigned=True)
    assert "as before" in signing.note
    assert undo_publication(store, "", signing)[0].release == first.id
    assert signed_by(store) == []


def test_step_notes_who_signed_and_warns_if_nobody_does(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    promote(store, first.id, "run-1")
    record = record_of(store, "publish_mobile")
    publish(record, release=first.id, settings='{"publish_mobile": {"signing": "unsigned"}}')
    assert any("unsigned" in text for text in record.record.warnings)
    promote(store, second.id, "run-1", sequence=1)
    record = record_of(store, "publish_mobile")
    publish(record, release=second.id, settings="{}")
    (key,) = own_keyring().keys
    assert any(key.key_id in text for text in record.record.notes)
    everything = record.record.model_dump_json() + "".join(read.model_dump_json() for read in read_history(store))
    secret = (local_keys().folder / f"{key.key_id}.pem").read_text().splitlines()[1]
    assert secret not in everything


def test_what_the_settings_say_reaches_an_undo_deep_in_a_rollout(tmp_path: Path) -> None:
    store, (first, second) = make_store(tmp_path, 2)
    key = make_key()
    path = tmp_path / "run.pem"
    path.touch(0o600)
    path.write_bytes(key.pem())
    with signing_as("required", [str(path)], None):
        for release in (first, second):
            publish_release(store, release.id)
        undo_publication(store, "aborted meanwhile")
        assert signed_by(store) == [key.public.key_id]
    with pytest.raises(DataError, match="not known here"):
        publish_release(store, second.id)


def test_step_without_a_key_takes_the_rollout_back(tmp_path: Path) -> None:
    store, (release,) = make_store(tmp_path, 1)
    promote(store, release.id, "run-1")
    with pytest.raises(UsageError, match="no key"):
        publish(record_of(store, "publish_mobile"), release=release.id, settings='{"publish_mobile": {"signing": "required"}}')
    assert read_stored_channel(store) is None


def test_wrong_mode_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUAL_PUBLISH_MOBILE__SIGNING", "maybe")
    with pytest.raises(UsageError, match="maybe"):
        find_signing(CLOUD)


def test_a_keyring_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    with pytest.raises(UsageError, match="dual keys list --json"):
        read_keyring(path)
    path.write_text('{"schema": "dual.keyring/v2"}')
    with pytest.raises(UsageError, match="schema"):
        read_keyring(path)


def test_a_race_between_signers_is_a_conflict_as_before(tmp_path: Path) -> None:
    store, (first, second, third) = make_store(tmp_path, 3)
    publish_release(store, first.id)
    publish_release(store, second.id)
    with pytest.raises(StaleError):
        publish_release(store, third.id, after=1)
