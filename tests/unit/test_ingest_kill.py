"""kill -9 at every write of ingest: a second run must end as if nothing had happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

from components.core.digest import sha256_tree
from tests.unit.ingest_runs import class_folders, encoded, ingest, picture

# A fresh interpreter, because it forks: one child per write, which kills itself there, and one that runs again after it.
_HARNESS = """
import shutil, signal, sys
from pathlib import Path
from tests.kill.at_write import ends
from tests.unit.ingest_runs import ingest
from components.core.digest import sha256_tree

work, data = Path(sys.argv[1]), sys.argv[2]
ingest(data, work / "warm", workers=1, duplicate_distance=15)  # every import happens here, once
def run(kill_at):
    return ends(kill_at, lambda: ingest(data, work, workers=1, duplicate_distance=15))

kill_at = 1
while True:
    shutil.rmtree(work / "run", ignore_errors=True)
    first = run(kill_at)
    if first == 0:
        break
    assert first == -signal.SIGKILL, first
    manifest = work / "run" / "examples" / "examples.json"
    whole = manifest.exists() and sha256_tree(work / "run" / "examples")
    assert run(0) == 0
    print(kill_at, sha256_tree(work / "run" / "examples"), whole or "-", *sorted(p.name for p in (work / "run").iterdir()), flush=True)
    kill_at += 1
"""


def test_killed_at_every_write_a_rerun_repairs(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=5)
    (data / "cats" / "bad.jpg").write_bytes(b"no picture")
    (data / "dogs" / "copy.jpg").write_bytes(encoded(picture(1000), quality=50))
    expected = sha256_tree(ingest(data, tmp_path, "expected", duplicate_distance=15).root)
    command = [sys.executable, "-c", _HARNESS, str(tmp_path / "killed"), str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert len(lines) > 40
    for number, digest, whole, *left in lines:
        assert digest == expected, f"killed at write {number}"
        # examples.json is there only if everything else is.
        assert whole in ("-", expected), f"killed at write {number}"
        assert left == ["examples", "store"], f"killed at write {number}"


def test_killed_record_says_running_and_is_replaced(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", per_class=8)
    code = (
        "import os, signal\nfrom pathlib import Path\nimport components.ingest.ingest as target\n"
        "from tests.unit.ingest_runs import ingest\n"
        "target.write_shards = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"ingest({str(data)!r}, Path({str(tmp_path)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == -9
    saved = tmp_path / "run" / "store" / "runs" / "r" / "ingest" / "record.json"
    assert json.loads(saved.read_text())["status"] == "running"
    ingest(data, tmp_path)
    assert json.loads(saved.read_text())["status"] == "succeeded"
