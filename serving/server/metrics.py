"""Prometheus metrics under TF Serving's names (they start with a colon) and in its text format.

Source: tensorflow_serving/util/prometheus_exporter.cc and servables/tensorflow/util.cc. `prometheus_client` renames counters to
`…_total`, which TF Serving does not, so the page is written here.
"""

from bisect import bisect_left
from collections import defaultdict
from threading import Lock

from serving.server.status import Code

_BOUNDS = [10 * 1.8**power for power in range(33)]
_PREFIX = ":tensorflow:serving:"
_LOAD_LATENCY = ":tensorflow:cc:saved_model:load_latency"
Labels = tuple[tuple[str, str], ...]


class _Histogram:
    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(_BOUNDS, value)] += 1
        self.sum += value


class Metrics:
    """Counts and latencies of one server; every method may be called from any thread."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = Lock()
        self._counters: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._histograms: dict[str, dict[Labels, _Histogram]] = defaultdict(lambda: defaultdict(_Histogram))

    def requested(self, model: str, code: Code, *, api: str, entrypoint: str, seconds: float) -> None:
        """Count a finished request; its latency (in microseconds) is recorded only when it was OK."""
        with self._lock:
            self._counters[f"{_PREFIX}request_count"][("model_name", model), ("status", code.name)] += 1
            if code is Code.OK:
                labels = (("model_name", model), ("API", api), ("entrypoint", entrypoint))
                self._histograms[f"{_PREFIX}request_latency"][labels].add(seconds * 1e6)

    def ran(self, model: str, seconds: float) -> None:
        """Record one run of a model in TensorFlow, after batching."""
        with self._lock:
            labels = (("model_name", model), ("API", "Predict"), ("runtime", "TF1"))
            self._histograms[f"{_PREFIX}runtime_latency"][labels].add(seconds * 1e6)

    def loaded(self, path: str, seconds: float) -> None:
        """Add the time that loading a SavedModel took (TensorFlow's own metric: a sum in microseconds by path)."""
        with self._lock:
            self._counters[_LOAD_LATENCY][(("model_path", path),)] += seconds * 1e6

    def warmed(self, path: str, seconds: float) -> None:
        """Record the replay of a model's warm-up file."""
        with self._lock:
            labels = (("model_path", path), ("status", Code.OK.name))
            self._histograms[f"{_PREFIX}model_warmup_latency"][labels].add(seconds * 1e6)

    def page(self) -> str:
        """The page that Prometheus scrapes."""
        with self._lock:
            lines = [line for name, cells in self._counters.items() for line in _counter_lines(name, cells)]
            lines += [line for name, cells in self._histograms.items() for line in _histogram_lines(name, cells)]
        return "\n".join(lines) + "\n"


def _counter_lines(name: str, cells: dict[Labels, float]) -> list[str]:
    return [f"# TYPE {name} counter", *(f"{name}{{{_text(labels)}}} {value:.0f}" for labels, value in cells.items())]


def _histogram_lines(name: str, cells: dict[Labels, _Histogram]) -> list[str]:
    lines = [f"# TYPE {name} histogram"]
    for labels, histogram in cells.items():
        total = 0
        for bound, count in zip([*(f"{b:g}" for b in _BOUNDS), "+Inf"], histogram.buckets, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{_text(labels)},le="{bound}"}} {total}')
        lines += [f"{name}_sum{{{_text(labels)}}} {histogram.sum:g}", f"{name}_count{{{_text(labels)}}} {total}"]
    return lines


def _text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
