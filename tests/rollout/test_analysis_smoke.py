"""Smoke traffic against real HTTP servers: what counts as failed, as another answer, and as a pod that is gone."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import DataError, DualError, UsageError
from components.core.stores import open_store
from serving.rollout.analysis.labelled import LabelledImage, folder_images, golden_images
from serving.rollout.analysis.pods import DirectAccess, PodTarget, UnreachableError, read_prediction
from serving.rollout.analysis.smoke import check_preview, connected, labelled_traffic, shared_agreement, smoke_traffic
from serving.rollout.traffic import golden_queries
from tests.release_pieces import GoldenImage, make_release
from tests.rollout.fake_pod import CLASSES, MODEL, FakePod, answers_always, expected, golden, right_answer
from tests.rollout.web import Reply, reply, unused_port


@pytest.fixture
def pods() -> Iterator[list[FakePod]]:
    """Two pods of a candidate and two of the stable version."""
    with ExitStack() as stack:
        names = [("canary-1", "new"), ("canary-2", "new"), ("stable-1", "old"), ("stable-2", "old")]
        yield [stack.enter_context(FakePod(name, revision)) for name, revision in names]


def direct(target: PodTarget) -> DirectAccess:
    return DirectAccess(target, MODEL)


def gone(name: str = "gone", revision: str = "new") -> PodTarget:
    return PodTarget(name, "127.0.0.1", unused_port(), 0, revision)


def test_every_pod_gets_its_share_and_answers_are_compared(pods: list[FakePod]) -> None:
    pods[1].classify = answers_always("daisy")
    pods[3].classify = answers_always("tulips")
    targets = [pod.target for pod in pods]
    with connected(targets[:2], direct) as ours, connected(targets[2:], direct) as theirs:
        candidate, stable = smoke_traffic(ours, theirs, golden(), per_pod=6, concurrency=3)
    assert [len(pod.predictions()) for pod in pods] == [6, 6, 6, 6]
    assert (candidate.sent, candidate.errors, len(candidate.disagreements), len(candidate.samples)) == (12, [], 4, 12)
    assert candidate.agreement() == pytest.approx(8 / 12)
    assert candidate.error_rate() == 0
    assert candidate.disagreements[0].endswith("answered daisy, expected roses")
    assert str(pods[1].target) in candidate.disagreements[0]
    # The stable version may rightly answer differently.
    assert (stable.sent, stable.disagreements) == (12, [])


def test_the_next_round_goes_on_with_the_next_image(pods: list[FakePod]) -> None:
    asked: list[bytes] = []
    pods[0].classify = lambda image: [asked.append(image), right_answer(image)][1]  # type: ignore[func-returns-value]
    with connected([pods[0].target], direct) as ours:
        smoke_traffic(ours, {}, golden(5), per_pod=3, concurrency=1)
        smoke_traffic(ours, {}, golden(5), per_pod=3, concurrency=1, first=3)
    assert [image.decode()[0] for image in asked] == ["0", "1", "2", "3", "4", "0"]


def test_connections_are_used_again(pods: list[FakePod]) -> None:
    with connected([pods[0].target], direct) as ours:
        smoke_traffic(ours, {}, golden(), per_pod=40, concurrency=3)
    assert len({asked.connection for asked in pods[0].predictions()}) <= 3


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (reply({"error": "out of memory"}, 500), "answered 500"),
        (Reply("not json"), "answered no classification: not json"),
        (reply({"predictions": [{"label": "daisy"}]}), "answered no classification"),
        (reply({"predictions": [{"label": "daisy", "probabilities": "high"}]}), "answered no classification"),
        (reply({"predictions": []}), "answered no classification"),
        (Reply(cut=True), "gave no usable answer"),
    ],
)
def test_an_answer_that_helps_nobody_is_a_failed_request(pods: list[FakePod], answer: Reply, text: str) -> None:
    pods[0].classify = lambda _: answer
    with connected([pods[0].target], direct) as ours:
        candidate, _ = smoke_traffic(ours, {}, golden(), per_pod=2, concurrency=1)
    assert (candidate.sent, len(candidate.errors), candidate.unreachable) == (2, 2, {})
    assert text in candidate.errors[0]
    assert str(pods[0].target) in candidate.errors[0]
    assert candidate.agreement() == 0
    assert candidate.error_rate() == 1


def test_a_pod_that_is_gone_has_not_failed_and_is_asked_only_once() -> None:
    asked: list[bytes] = []

    class Counting(DirectAccess):
        def predict(self, image: bytes) -> dict[str, Any]:
            asked.append(image)
            return super().predict(image)

    with connected([gone()], lambda target: Counting(target, MODEL)) as ours:
        candidate, _ = smoke_traffic(ours, {}, golden(), per_pod=50, concurrency=1)
    assert (candidate.sent, candidate.errors, len(asked)) == (0, [], 1)
    assert list(candidate.unreachable) == ["gone"]
    assert "can't be reached" in candidate.problem()


def test_a_connection_closed_while_idle_is_no_failure(pods: list[FakePod]) -> None:
    times: list[int] = []

    def once_cut(image: bytes) -> dict | Reply:
        times.append(1)
        return Reply(cut=True) if len(times) == 2 else right_answer(image)

    pods[0].classify = once_cut
    with connected([pods[0].target], direct) as ours:
        candidate, _ = smoke_traffic(ours, {}, golden(), per_pod=3, concurrency=1)
    assert (candidate.sent, candidate.errors, len(times)) == (3, [], 4)


def test_answers_of_both_versions_are_compared(pods: list[FakePod]) -> None:
    pods[2].classify = answers_always("roses")
    with connected([pods[0].target], direct) as ours, connected([pods[2].target], direct) as theirs:
        candidate, stable = smoke_traffic(ours, theirs, golden(), per_pod=3, concurrency=2)
    assert shared_agreement(candidate, stable) == pytest.approx(1 / 3)


def test_other_probabilities_are_another_answer(pods: list[FakePod]) -> None:
    pods[0].classify = lambda image: right_answer(image) | {"probabilities": [0.79, 0.11, 0.1]}
    with connected([pods[0].target], direct) as ours:
        candidate, _ = smoke_traffic(ours, {}, golden(1), per_pod=1, concurrency=1)
    assert candidate.disagreements[0].endswith("answered daisy with other probabilities, expected daisy")


def test_labelled_images_are_spread_over_the_pods(pods: list[FakePod]) -> None:
    pods[1].classify = answers_always("daisy")
    images = [LabelledImage(str(n), f"x {CLASSES[n % 3]}".encode(), CLASSES[n % 3]) for n in range(12)]
    with connected([pods[0].target, pods[1].target], direct) as ours:
        seen = labelled_traffic(ours, images, concurrency=2)
    assert [len(pod.predictions()) for pod in pods[:2]] == [6, 6]
    assert seen.agreement() == pytest.approx(8 / 12)


def test_a_preview_asks_every_pod_every_image(pods: list[FakePod]) -> None:
    targets = [pod.target for pod in pods[:2]]
    reasons = check_preview(targets, golden(7), MODEL)
    assert [(reason.metric, reason.slice, reason.passed, reason.value) for reason in reasons] == [
        ("preview", "canary-1", True, 1.0),
        ("preview", "canary-2", True, 1.0),
    ]
    assert [len(pod.predictions()) for pod in pods[:2]] == [7, 7]


def test_a_preview_names_the_pod_and_what_it_answered(pods: list[FakePod]) -> None:
    pods[1].classify = answers_always("roses")
    good, bad, missing = check_preview([pods[0].target, pods[1].target, gone()], golden(), MODEL)
    assert good.passed
    assert not bad.passed
    assert "1 of 3 golden answers met (must be >= 1 of them), 0 failed; for example 00.jpg: pod canary-2" in bad.text
    assert not missing.passed
    assert "can't be reached" in missing.text
    (lenient,) = check_preview([pods[1].target], golden(), MODEL, min_agreement=0.3)
    assert lenient.passed


def test_a_preview_fails_on_a_request_without_an_answer_however_low_the_bound(pods: list[FakePod]) -> None:
    pods[0].classify = lambda image: Reply("boom", 500) if image.startswith(b"1") else right_answer(image)
    (reason,) = check_preview([pods[0].target], golden(), MODEL, min_agreement=0.0)
    assert not reason.passed
    assert "1 failed; for example 01.jpg" in reason.text


@pytest.mark.parametrize(("pods_", "images"), [(0, 3), (1, 0)])
def test_a_preview_of_nothing_fails(pods: list[FakePod], pods_: int, images: int) -> None:
    (reason,) = check_preview([pod.target for pod in pods[:pods_]], golden(images), MODEL)
    assert not reason.passed
    assert reason.text.startswith("preview: there is no ")


def test_an_answer_keeps_what_else_the_model_gives() -> None:
    text = '{"predictions": [{"label": "daisy", "probabilities": [1, 0], "score": 0.5}]}'
    assert read_prediction(text, where="x") == {"label": "daisy", "probabilities": [1.0, 0.0], "score": 0.5}
    with pytest.raises(DualError, match="x: answered no classification"):
        read_prediction("[]", where="x")


def test_errors_of_one_pod_are_told_apart(pods: list[FakePod]) -> None:
    with pytest.raises(UnreachableError):
        direct(gone()).predict(b"")
    pods[0].classify = lambda _: Reply("no", 503)
    with pytest.raises(DualError) as raised:
        direct(pods[0].target).predict(b"x daisy")
    assert not isinstance(raised.value, UnreachableError)


def test_an_address_may_be_ipv6() -> None:
    assert PodTarget("a", "fd00::1", 8501, 8500, "r").url() == "http://[fd00::1]:8501"


def test_labelled_images_of_a_folder_are_even_and_always_the_same(tmp_path: Path) -> None:
    for label, count in {"b": 5, "a": 1, "empty": 0}.items():
        (tmp_path / label).mkdir()
        for number in range(count):
            (tmp_path / label / f"{number}.JPG").write_bytes(f"{label}{number}".encode())
    (tmp_path / "b" / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no folder")
    assert [image.name for image in folder_images(tmp_path, 4)] == ["a/0.JPG", "b/0.JPG", "b/1.JPG", "b/2.JPG"]
    assert folder_images(tmp_path, 1) == [LabelledImage("a/0.JPG", b"a0", "a")]


@pytest.mark.parametrize("folder", ["nowhere", ""])
def test_a_folder_without_images_is_a_mistake(tmp_path: Path, folder: str) -> None:
    with pytest.raises(UsageError, match=r"holds no class folder .* analysis\.smoke_accuracy\.folder"):
        folder_images(tmp_path / folder, 4)


def test_golden_images_have_true_labels(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    release = make_release(store, tmp_path, 0, golden=[GoldenImage("0.jpg", b"picture", "roses", expected("roses"))])
    assert golden_images(golden_queries(store, release)) == [LabelledImage("0.jpg", b"picture", "roses")]
    name = f"{release.folder()}/golden/golden.json"
    (tmp_path / "store" / name).write_text('{"images": [{"file": "0.jpg"}]}')
    with pytest.raises(DataError, match=r"golden/golden\.json"):
        golden_queries(store, release)
