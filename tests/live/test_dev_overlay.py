"""Profile `server` of skaffold.yaml without Skaffold: a file is copied into a running pod as Skaffold does it, and the server is new."""

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import yaml

from serving.rollout.cluster.api import connect
from tests.conftest import ROOT
from tests.live.cluster import LiveCluster, LiveSite, kustomization, served
from tests.live.releases import make_releases
from tests.live.steps import Step, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(900)]

SOURCE = "serving/server/catalog.py"
BEFORE, AFTER = "Could not find any versions of model", "A changed line: no versions of model"


@pytest.fixture
def dev_site(cluster: LiveCluster, tmp_path: Path) -> Iterator[LiveSite]:
    """What overlays/dev adds, to one pod that gets its model from a folder of this machine."""
    releases = make_releases(tmp_path, {"a": "good"})
    namespace, folder = f"dev-{uuid4().hex[:6]}", tmp_path / "overlay"
    folder.mkdir()
    with served(Path(releases.store.uri.removeprefix("file://")), cluster.host) as url:
        overlay = kustomization(folder, namespace, url, replicas=1)
        overlay["patches"].append({"patch": (ROOT / "manifests" / "overlays" / "dev" / "code.yaml").read_text()})
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        cluster.kubectl("apply", "-k", folder)
        site = LiveSite(cluster, namespace, releases, connect(namespace, kubeconfig=cluster.kubeconfig))
        site.keep_plan()
        yield site
        site.delete()


def sync(site: LiveSite, pod: str, name: str, text: str) -> None:
    """As pkg/skaffold/sync in Skaffold's source: a tar of whole paths to `tar xmf - -C / --no-same-owner` in the container."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(f"opt/code/{name}")
        entry.size, entry.mode = len(text.encode()), 0o644
        tar.addfile(entry, io.BytesIO(text.encode()))
    command = ["kubectl", "-n", site.namespace, "exec", "-i", pod, "-c", "server", "--", "tar", "xmf", "-", "-C", "/", "--no-same-owner"]
    done = subprocess.run(command, env=site.cluster.environment, input=packed.getvalue(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_saved_file_is_what_the_server_runs_a_moment_later(dev_site: LiveSite, tmp_path: Path) -> None:
    step = Step(dev_site, tmp_path, "start", dev_site.releases["a"], settings=dev_site.settings())
    assert step.wait() == 0, step.output
    (pod,) = dev_site.pods()
    name, url = pod["metadata"]["name"], f"http://{pod['status']['podIP']}:8501/v1/models"

    def said() -> str:
        try:
            return httpx.get(f"{url}/none", trust_env=False, timeout=5).text
        except httpx.TransportError:
            return ""

    assert BEFORE in said()
    changed = (ROOT / SOURCE).read_text().replace(BEFORE, AFTER)
    assert AFTER in changed
    sync(dev_site, name, SOURCE, changed)
    wait_for(lambda: AFTER in said(), "the changed server", timeout=60)
    wait_for(lambda: httpx.get(f"{url}/classifier/metadata", trust_env=False).is_success, "the model, loaded again", timeout=60)
    # The container is the same one: nothing was pulled, built or rolled out.
    (after,) = dev_site.pods()
    assert after["metadata"]["name"] == name
    assert [each["restartCount"] for each in after["status"]["containerStatuses"]] == [0]
