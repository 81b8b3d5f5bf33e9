"""How fast and how lean ingest is: its rate against a bare parallel decode loop, and its peak memory for few and many images.

    python benchmarks/ingest.py [--data DIR] [--images 1000] [--many 20000] [--repeats 3] [--json FILE]

Both sides of the rate decode the same files with the same number of threads, taking turns in one process; the best of the repeats
counts. The bare loop opens and decodes, nothing else; ingest also hashes, looks for duplicates, splits, scales, and writes shards.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from PIL import Image

from components.core.record import open_step
from components.ingest.ingest import ingest_data

CLASSES = 5
FEW = 1_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="class folders to measure the rate on, instead of generated images")
    parser.add_argument("--images", type=int, default=FEW, help="generated images for the rate")
    parser.add_argument("--many", type=int, default=20 * FEW, help="the larger number of images for the memory; 0 = leave it out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.peak_of:
            run_ingest(options.peak_of, Path(scratch))
            print(own_peak())
            return
        results = measure(options, Path(scratch))
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, float]:
    """All figures; rates in images per second, memory in MiB."""
    if options.data:
        results = rates("data", options.data, options.repeats, scratch)
    else:
        results = rates("plain_384x256", generate(scratch / "plain", options.images, (384, 256)), options.repeats, scratch)
        results |= rates("large_1600x1200", generate(scratch / "large", options.images // 10, (1600, 1200)), options.repeats, scratch)
    if options.many:
        few, many = (peak_memory(generate(scratch / str(count), count, (96, 64))) for count in (FEW, options.many))
        results |= {f"peak_mib_{FEW}": few, f"peak_mib_{options.many}": many, "peak_growth": many / few}
    return results


def generate(root: Path, count: int, size: tuple[int, int]) -> Path:
    """Class folders of different pictures with the file size of photographs."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 40, (size[1], size[0], 3), dtype=np.uint8)
    for index in range(count):
        cells = Image.fromarray(rng.integers(0, 216, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        path = root / f"class{index % CLASSES}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(cells) // 2 + noise).save(path, quality=90)
    return root


def rates(name: str, data: Path, repeats: int, scratch: Path) -> dict[str, float]:
    """Images per second of both sides, their ratio, and the ratio of their CPU times, which a busy machine leaves alone."""
    paths = sorted(path for path in data.rglob("*.jpg"))
    run_ingest(data, scratch)
    turns = [(seconds(lambda: decode_all(paths)), seconds(lambda: run_ingest(data, scratch))) for _ in range(repeats)]
    (bare, bare_cpu), (full, full_cpu) = (tuple(min(turn[side][kind] for turn in turns) for kind in (0, 1)) for side in (0, 1))
    return {
        f"{name}_bare_per_s": len(paths) / bare,
        f"{name}_ingest_per_s": len(paths) / full,
        f"{name}_ratio": bare / full,
        f"{name}_cpu_ratio": bare_cpu / full_cpu,
    }


def seconds(action: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and CPU time of one call."""
    began, cpu = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - began, time.process_time() - cpu


def decode_all(paths: list[Path]) -> None:
    """The bare loop."""

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(decode, paths):
            pass


def run_ingest(data: Path, work: Path) -> None:
    """The whole step into a new folder with a store of its own, so that nothing comes from a cache."""
    target = Path(tempfile.mkdtemp(dir=work))
    with redirect_stdout(io.StringIO()), open_step("ingest", store=str(target / "store"), run_id="benchmark") as record:
        ingest_data(record, data=str(data), settings="{}", output=target / "examples")


def peak_memory(data: Path) -> float:
    """Peak resident memory in MiB of a process that ingests `data`."""
    done = subprocess.run([sys.executable, __file__, "--peak-of", str(data)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def own_peak() -> float:
    """Peak resident memory of this process in MiB. Linux; getrusage would count the parent's memory before exec too.

    https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def table(results: dict[str, float]) -> str:
    """One figure a line."""
    return "\n".join(f"{name:<32}{value:>12,.2f}" for name, value in results.items())


if __name__ == "__main__":
    main()
