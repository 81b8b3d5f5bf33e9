"""A site's file: read whole, and refused with the key, the file and what was found."""

from pathlib import Path
from typing import Any

import pytest

from components.core.errors import UsageError
from pipelines.targets import Site
from pipelines.targets.quantities import quantity
from pipelines.targets.site import load_site


def test_no_file_is_the_defaults() -> None:
    assert load_site(None) == Site()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("")
    assert load_site(tmp_path / "site.yaml") == Site()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("kubeflw: {}", ["no key 'kubeflw'"]),
        ("kubeflow: {pol: {}}", ["no key 'kubeflow.pol'"]),
        ("vertex: {spot: true}", ["no key 'vertex.spot'"]),
        ("kubeflow: {steps: {train_clod: {}}}", ["no step 'train_clod'", "did you mean 'train_cloud'"]),
        ("kubeflow: {steps: {train_cloud: {memory: 4 GB}}}", ["kubeflow.steps.train_cloud.memory", "'4 GB'"]),
        ("kubeflow: {steps: {train_cloud: {memory: 1.5G}}}", ["kubeflow.steps.train_cloud.memory", "'1.5G'"]),
        ("kubeflow: {steps: {train_cloud: {cpu: 4}}}", ["kubeflow.steps.train_cloud.cpu", "4 (int)"]),
        ("kubeflow: {accelerators: {type: NVIDIA_L4}}", ["kubeflow.accelerators.type", "'NVIDIA_L4'"]),
        ("vertex: {accelerators: {type: nvidia.com/gpu}}", ["vertex.accelerators.type", "'nvidia.com/gpu'"]),
        ("kubeflow: {secrets: [{name: x, env: {a: 1BAD}}]}", ["kubeflow.secrets.0.env.a", "'1BAD'"]),
        ("kubeflow: {secrets: [{name: Not_A_Name, env: {a: B}}]}", ["kubeflow.secrets.0.name", "'Not_A_Name'"]),
        ("kubeflow: {secrets: [{name: x, env: {a: B}, steps: [ship]}]}", ["kubeflow.secrets.0.steps.0", "no step 'ship'", "ingest"]),
        ("kubeflow: {pool: {tolerations: [{effect: Never}]}}", ["kubeflow.pool.tolerations.0.effect", "'Never'"]),
        ("kubeflow: {run_as_user: 0}", ["kubeflow.run_as_user", "0 (int)"]),
        ("kubeflow: {image_pull_policy: always}", ["kubeflow.image_pull_policy", "'always'"]),
        ("vertex: {pipeline_root: s3://bucket}", ["vertex.pipeline_root", "'s3://bucket'"]),
        ("kubeflow: {settings: {seed: x}}", ["kubeflow.settings", "seed", "'x'"]),
        ("vertex: {profile: fast}", ["vertex.profile", "no profile 'fast'"]),
        ("- a", ["holds a list"]),
        ("a: [", ["is not YAML"]),
    ],
)
def test_an_error_names_key_file_and_what_was_found(content: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_site(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), caught.value


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("2", 2), (".5", 0.5), ("1.5", 1.5), ("2K", 2e3), ("512M", 512e6), ("4G", 4e9), ("1Ki", 1024), ("4Gi", 4 * 2**30)],
)
def test_quantities_are_numbers(text: str, number: float) -> None:
    assert float(quantity(text)) == number


@pytest.mark.parametrize("example", sorted((Path(__file__).resolve().parents[2] / "docs" / "sites").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_examples_of_the_documents_compile(example: Path) -> None:
    from pipelines.compile import compile_pipeline
    from pipelines.targets import make_target

    site = load_site(example)
    said: set[Any] = set(site.model_fields_set)
    assert said
    for target in said:
        assert compile_pipeline(make_target(str(target), site)).text
