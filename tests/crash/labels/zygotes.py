"""Zygotes of `tests.crash.labels.victims`."""

import subprocess
import sys
from pathlib import Path
from queue import Queue

from tests.crash.victims import ROOT, Zygote, Zygotes


class LabelZygote(Zygote):
    """One that forks victims of rollouts by labels."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("w")
        command = [sys.executable, "-m", "tests.crash.labels.victims"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=ROOT)


class LabelZygotes(Zygotes):
    """Several of them."""

    def __init__(self, count: int, logs: Path) -> None:
        self.count = count
        self._idle: Queue[Zygote] = Queue()
        for number in range(count):
            self._idle.put(LabelZygote(logs / f"log-{number}"))
