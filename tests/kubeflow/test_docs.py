"""docs/kubeflow.md: every `dual` command in it is run, in the situation that its heading describes."""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from pipelines.cli import cli
from pipelines.submission.kubeflow.connection import SECRETS, Connection
from tests.cluster.conftest import control_plane
from tests.conftest import ROOT
from tests.kubeflow.fake_kfp import FakeKfp, serving
from tests.kubeflow.fake_kubernetes import FakeKubernetes, api_service, kubernetes, ready_pod
from tests.kubeflow.gates import PASSWORD, Dex, tokens
from tests.kubeflow.plays import Frame, Play, waiting
from tests.kubeflow.records import ships
from tests.kubeflow.test_argo import ArgoServer
from tests.kubeflow.test_cluster import _crd
from tests.kubeflow.workflows import NAME, workflow

PAGE = ROOT / "docs" / "kubeflow.md"
TOKEN, SESSION = "doc-token", "doc-session"
NOT_OURS = ("kubectl ",)
DIGEST = "@sha256:" + "0" * 64


def blocks() -> list[tuple[str, list[str]]]:
    """(heading, lines) of every block of commands."""
    found, heading = [], ""
    for part in re.split(r"(^#+ [^\n]*$|^```bash\n.*?^```$)", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL):
        if part.startswith("#"):
            heading = part.lstrip("# ").strip()
        elif part.startswith("```bash"):
            found.append((heading, [line for line in part.splitlines()[1:-1] if line]))
    return found


BLOCKS = blocks()
ON_A_CLUSTER = [number for number, (_, lines) in enumerate(BLOCKS) if any("--engine argo" in line and " -o " not in line for line in lines)]
Commands = Callable[[int], None]


class Site:
    """Where the commands of a block are run: an installation, files, variables."""

    def __init__(self, kfp: FakeKfp, folder: Path, pipeline: str = "") -> None:
        self.kfp, self.folder = kfp, folder
        self.environment = {"DUAL_KFP_HOST": kfp.url, "STORE": str(folder / "store")}
        self._put("build.json", json.dumps({"builds": [{"imageName": name, "tag": f"r.example.com/{name}{DIGEST}"} for name in _IMAGES]}))
        self._put("site.yaml", "kubeflow: {profile: quick}\n")
        self._put("kubeflow.yaml", f"host: {kfp.url}\ntimeout: 20\n")
        self._put("token", TOKEN)
        self._put("pipeline.yaml", pipeline)

    def _put(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def run(self, line: str) -> None:
        """One line of a block."""
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = self._expanded(value)
            return
        if line.startswith(NOT_OURS):
            return
        words = shlex.split(self._expanded(line))
        assert words[0] == "dual", f"{line}: nobody runs this"
        short = ["--every", "0.02"] if "--watch" in words or words[1:3] == ["runs", "watch"] else []
        result = CliRunner(env=self.environment).invoke(cli, [*words[1:], *short], prog_name="dual")
        assert result.exit_code == 0, f"{line}: {result.exit_code}\n{result.output}\n{result.exception!r}"

    def _expanded(self, text: str) -> str:
        """Variables by their values, and the page's addresses by those of the fakes."""
        text = re.sub(r"\$([A-Z_]+)", lambda match: self.environment[match[1]], text)
        text = re.sub(r"https?://[a-z.-]*(example\.com|localhost:8080|cloud\.goog)", self.kfp.url, text)
        return text.replace("argo.example.com:2746", self.environment.get("_ARGO", ""))

    def start(self, name: str, play: Callable[[dict[str, Any]], Play] = lambda _: waiting()) -> None:
        """Start a run and keep its id as a variable."""
        self.kfp.state.play = play
        self.run(f"dual submit --package pipeline.yaml --data drawn --store {self.folder}/store --name {name}")
        self.environment[name] = list(self.kfp.state.runs)[-1]


_IMAGES = ("dual-trainer", "dual-deployer")


@pytest.fixture(scope="module")
def pipeline() -> str:
    """The real pipeline, compiled once, its images pinned."""
    from pipelines.compile import compile_pipeline
    from pipelines.compile_images import Images
    from pipelines.targets import make_target

    return compile_pipeline(make_target("kubeflow"), Images("test", {name: f"r.example.com/{name}{DIGEST}" for name in _IMAGES})).text


@pytest.fixture
def site(kfp: FakeKfp, tmp_path: Path, pipeline: str) -> Site:
    """An installation, and the pipeline compiled in a file."""
    return Site(kfp, tmp_path, pipeline)


def _submitted(site: Site, stack: ExitStack) -> None:
    site.run("dual submit --package pipeline.yaml --upload-only")
    site.environment["VERSION"] = next(iter(site.kfp.state.versions.values()))["name"]
    del stack


def _followed(site: Site, stack: ExitStack) -> None:
    site.start("RUN", ships)
    del stack


def _listed(site: Site, stack: ExitStack) -> None:
    site.start("FAILED_RUN", lambda _: Play([Frame("FAILED")]))
    site.start("RUN")
    del stack


def _noded(site: Site, stack: ExitStack) -> None:
    site.start("RUN")
    fake = FakeKubernetes({"workflows": [workflow(site.environment["RUN"])]})
    for number in (5, 7, 8):
        fake.logs[f"{NAME}-system-container-impl-{number}", "main"] = "a line\n"
    stack.enter_context(kubernetes(fake, site.folder / "kubeconfig"))
    argo = stack.enter_context(serving(ArgoServer(fake.objects["workflows"]).answer))
    site.environment |= {"KUBECONFIG": str(site.folder / "kubeconfig"), "_ARGO": argo.removeprefix("http://"), "ARGO_SECURE": "false"}


def _forwarded(site: Site, stack: ExitStack) -> None:
    fake = FakeKubernetes({"services": [api_service()], "pods": [ready_pod("ml-pipeline-1", {"app": "ml-pipeline"})]})
    fake.ports["ml-pipeline-1", 8888] = urlsplit(site.kfp.url).port or 0
    stack.enter_context(kubernetes(fake, site.folder / "kubeconfig"))
    site.environment["KUBECONFIG"] = str(site.folder / "kubeconfig")


def _guarded_by_tokens(site: Site, stack: ExitStack) -> None:
    site.kfp.guard = tokens(TOKEN)
    site.environment["TOKEN"] = TOKEN
    del stack


def _guarded_by_dex(site: Site, stack: ExitStack) -> None:
    site.kfp.prefix, site.kfp.state.multi_user = "/pipeline", True
    site.kfp.guard = Dex(sessions={SESSION}).guard
    # Quoted: a shell would need that as well, if the password had a blank.
    site.environment |= {"PASSWORD": PASSWORD, "SESSION": SESSION}
    del stack


def _guarded_by_google(site: Site, stack: ExitStack) -> None:
    from google.oauth2 import id_token

    site.kfp.guard = tokens(TOKEN)
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setattr(id_token, "fetch_id_token", lambda _, audience: TOKEN if audience == "1234.apps.googleusercontent.com" else "")


def _plain(site: Site, stack: ExitStack) -> None:
    del site, stack


SITUATIONS: dict[str, Callable[[Site, ExitStack], None]] = {
    "Submit": _submitted,
    "Parameters": _plain,
    "Follow": _followed,
    "Runs": _listed,
    "Nodes and logs": _noded,
    "Reach the installation": _plain,
    "Standalone, by port-forward": _forwarded,
    "A bearer token": _guarded_by_tokens,
    "Kubeflow with Dex (oauth2-proxy or oidc-authservice)": _guarded_by_dex,
    "In the cluster": _guarded_by_tokens,
    "Google's Identity-Aware Proxy": _guarded_by_google,
    "Schedules": _plain,
    "By Argo": _plain,
}


def _name(number: int) -> str:
    return f"{BLOCKS[number][0]}-{number}"


@pytest.mark.parametrize("number", [each for each in range(len(BLOCKS)) if each not in ON_A_CLUSTER], ids=_name)
def test_the_commands_of_a_block_run(site: Site, number: int) -> None:
    heading, lines = BLOCKS[number]
    with ExitStack() as stack:
        SITUATIONS[heading](site, stack)
        for line in lines:
            site.run(line)


@pytest.mark.cluster
@pytest.mark.parametrize("number", ON_A_CLUSTER, ids=_name)
def test_the_commands_of_a_block_run_on_a_cluster(site: Site, number: int, argo_cluster: str) -> None:
    site.environment["KUBECONFIG"] = argo_cluster
    for line in BLOCKS[number][1]:
        site.run(line)


@pytest.fixture(scope="module")
def argo_cluster() -> Iterator[str]:
    """The kubeconfig of an API server that knows CronWorkflows."""
    with control_plane() as found:
        found.apply(_crd("CronWorkflow", "cronworkflows"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubeflow"}})
        found.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/cronworkflows.argoproj.io")
        yield found.environment["KUBECONFIG"]


def test_there_is_something_to_run() -> None:
    assert sum(line.startswith("dual ") for _, lines in BLOCKS for line in lines) > 40
    assert ON_A_CLUSTER


def test_every_setting_of_the_connection_is_on_the_page() -> None:
    table = PAGE.read_text()
    missing = [name for name in Connection.model_fields if f"`{name}`" not in table]
    assert missing == []
    assert all(f"`{name}`" in table for name in SECRETS)


def test_no_line_is_too_long_to_read() -> None:
    long = [line for line in PAGE.read_text().splitlines() if len(line) > 180 and not line.startswith(("|", "dual ", "["))]
    assert long == []


def test_the_page_names_no_variable_that_nothing_reads() -> None:
    named = set(re.findall(r"DUAL_KFP_([A-Z_]+)", PAGE.read_text()))
    assert {name.lower() for name in named} <= set(Connection.model_fields)
    assert "DUAL_KFP_HOST" not in os.environ
