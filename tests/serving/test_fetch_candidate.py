"""A candidate on its way from the step to a pod: offered, fetched like a release, withdrawn; and what killed steps leave."""

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.core import candidate
from components.core.candidate import candidate_folder, offer_candidate, withdraw_candidate, withdraw_leftovers
from components.core.digest import sha256_bytes
from components.core.stores.local import LocalStore
from serving.fetch import __main__ as program
from serving.fetch import stage as staging
from serving.fetch.__main__ import main
from tests.serving.test_fetch import files_of, leavings, served


@pytest.fixture
def saved_model(tmp_path: Path) -> Path:
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/tf_serving_warmup_requests"):
        (tmp_path / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "model" / name).write_text(f"bytes of {name}")
    return tmp_path / "model"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def models(tmp_path: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(program, "Patience", functools.partial(staging.Patience, first_wait=0.0))
    monkeypatch.setenv("DUAL_STORE", store.uri)
    monkeypatch.setenv("DUAL_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.delenv("DUAL_RELEASE", raising=False)
    return tmp_path / "models"


def offer(store: LocalStore, saved_model: Path, run_id: str = "run") -> str:
    return offer_candidate(store, saved_model, name="classifier", run_id=run_id)


def test_a_candidate_is_staged_whole(store: LocalStore, saved_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = offer(store, saved_model)
    monkeypatch.setenv("DUAL_CANDIDATE", digest)
    with served(store.root) as address:
        monkeypatch.setenv("DUAL_STORE", address)
        assert main() == 0
    target = models / str(int(digest[:12], 16))
    assert files_of(target) == files_of(saved_model)
    assert leavings(models, target) == []


def test_nothing_else_passes(
    store: LocalStore, saved_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = offer(store, saved_model)

    def outcome(asked: str) -> tuple[int, str]:
        monkeypatch.setenv("DUAL_CANDIDATE", asked)
        return main(), capsys.readouterr().err.splitlines()[-1]

    manifest, file = (store.root / candidate_folder(digest) / name for name in ("candidate.json", "cloud/saved_model.pb"))
    assert outcome("abc") == (
        2,
        "error: DUAL_CANDIDATE: 'abc' is no SHA-256. Give the 64 hex digits of candidate.json's: validate_infra sets it.",
    )
    code, said = outcome("0" * 64)
    assert (code, "there is no candidate" in said, "classifier-store" in said) == (4, True, True)
    file.unlink()
    file.write_text("other bytes")
    code, said = outcome(digest)
    assert (code, "cloud/saved_model.pb: " in said) == (4, True)
    manifest.write_text(manifest.read_text().replace("run", "ran"))
    code, said = outcome(digest)
    assert (code, "candidate.json: sha256 is" in said) == (4, True)
    assert list(models.glob("[0-9]*")) == []


def test_two_attempts_share_nothing(store: LocalStore, saved_model: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = offer(store, saved_model, "mine"), offer(store, saved_model, "other")
    withdraw_candidate(store, mine)
    assert {name.split("/")[1] for name in store.list("candidates/")} == {other}
    monkeypatch.setenv("DUAL_CANDIDATE", other)
    assert main() == 0
    withdraw_candidate(store, other)
    withdraw_candidate(store, other)
    assert list(store.list("")) == []
    assert files_of(saved_model), "the step's own copy is untouched"


class Killed(LocalStore):
    """A store whose writer dies before its second file."""

    files = 0

    def put_file(self, name: str, path: Path) -> None:
        self.files += 1
        if self.files == 2:
            raise KeyboardInterrupt
        super().put_file(name, path)


def test_leftovers_go_and_living_ones_stay(store: LocalStore, saved_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        offer(Killed(store.root), saved_model, "retried")
    living = offer(store, saved_model, "living")
    with monkeypatch.context() as yesterday:
        yesterday.setattr(candidate, "datetime", Yesterday)
        forgotten = offer(store, saved_model, "forgotten")
    store.put("candidates/foreign/candidate.json", b"{}")
    assert len(left := withdraw_leftovers(store, "retried")) == 2
    assert forgotten in left
    assert {name.split("/")[1] for name in store.list("candidates/")} == {living, "foreign"}


class Yesterday(datetime):
    """A clock that is 25 hours late."""

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime.now(UTC) - timedelta(hours=25)


def test_the_digest_is_the_manifests(store: LocalStore, saved_model: Path) -> None:
    digest = offer(store, saved_model)
    assert sha256_bytes(store.get(f"candidates/{digest}/candidate.json").data) == digest
