"""The program beside a server in a pod that tells how much memory the server took, on real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.peak import find_peak, printed_peak
from tests.conftest import ROOT

HUNGRY = "b = bytearray(180 << 20); del b; print('fed', flush=True); input()"


@pytest.fixture
def hungry() -> Iterator[int]:
    """A process that took 180 MB for a moment and gave them back."""
    with subprocess.Popen([sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"fed\n"
        yield process.pid
        process.kill()


@pytest.fixture
def proc(tmp_path: Path, hungry: int) -> Path:
    """A /proc with two processes: that one, and the test's own. And what else lies in a /proc."""
    for pid in (hungry, os.getpid()):
        (tmp_path / str(pid)).symlink_to(f"/proc/{pid}")
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "status").write_text("Name:\tkthreadd\nPid:\t2\n")
    (tmp_path / "9").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    return tmp_path


def test_it_is_the_largest_other_process_at_its_largest(proc: Path, hungry: int) -> None:
    peak = find_peak(proc, os.getpid())
    assert peak is not None
    assert 180 << 10 < peak.kilobytes < 230 << 10
    assert peak.process.startswith("python")
    (proc / str(hungry)).unlink()
    assert find_peak(proc, os.getpid()) is None


def test_it_prints_what_is_read_and_takes_little_itself(proc: Path) -> None:
    program = f"from pathlib import Path; from serving.peak import main; main(Path({str(proc)!r}))"
    (proc / str(os.getpid())).unlink()
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        line = process.stdout.readline()
        own = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        process.kill()
    mark = printed_peak(f"peak: 5 kB, x\n{line}")
    assert mark is not None
    assert 180 < mark < 230
    assert int(own) < 40 << 10


def test_without_a_line_there_is_no_peak() -> None:
    assert printed_peak("") is None
    assert printed_peak("/usr/bin/python: No module named serving.peak\n") is None
