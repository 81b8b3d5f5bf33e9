"""Pictures of a quantization, as PNG."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.quantize_mobile.network import WEIGHTED, Network, Node, shaped_gain
from components.quantize_mobile.quantization import LayerError, Quantization, Rung

_SMALLEST = 1e-4
_MOST_DECIBELS = 70.0
_MET, _MISSED, _FLOAT = "#2e7d32", "#c62828", "#1565c0"


def draw_rungs(result: Quantization) -> bytes:
    """Bars: accuracy, size and latency of the float model and of each method that made a usable one."""
    rungs = [rung for rung in result.rungs if not rung.failed]
    names = ["float", *(rung.rung for rung in rungs)]
    colours = [_FLOAT, *(_MET if rung.verdict.blessed else _MISSED for rung in rungs)]
    figure = _figure(10, 3.2)
    accuracy, size, latency = figure.subplots(1, 3)
    reference = result.float_reference
    _bars(accuracy, names, [reference.accuracy, *(r.accuracy for r in rungs)], colours, "accuracy", "{:.3f}", errors=_errors(rungs))
    _bars(size, names, [x / 1000 for x in (reference.size_bytes, *(r.size_bytes for r in rungs))], colours, "size, kB", "{:.0f}")
    _bars(latency, names, [reference.latency_ms, *(r.latency_ms for r in rungs)], colours, "ms per image, 1 thread", "{:.2f}")
    figure.suptitle(f"Methods on {result.examples} {result.split} images (green: meets the gate, red: does not); shipped: {result.method}")
    return _png(figure)


def draw_spread(network: Network) -> bytes:
    """Per layer, the largest weight of each output channel: the smallest, the median and the largest of these, on a log scale."""
    nodes = [node for node in network.nodes if node.kind in WEIGHTED]
    largest = [channel_maxima(network, node) for node in nodes]
    figure = _figure(10, 3.4)
    axes = figure.subplots()
    for position, (node, values) in enumerate(zip(nodes, largest, strict=True)):
        positive = values[values > 0]
        low, middle, high = np.quantile(positive, [0, 0.5, 1]) if len(positive) else (np.nan, np.nan, np.nan)
        colour = _MISSED if node.kind == "depthwise" else _FLOAT
        axes.plot([position, position], [low, high], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot(position, middle, "o", color="black", markersize=3)
    axes.set(yscale="log", xlabel="layer, from the input on (red: depthwise)", ylabel="largest weight of a channel")
    # What is smaller is a channel that was pruned away in the weights' own training; its exact nothingness says nothing.
    axes.set_ylim(bottom=_SMALLEST)
    axes.set_title("Channels of one layer that differ by orders of magnitude need a scale each", fontsize=10)
    axes.grid(alpha=0.3)
    return _png(figure)


def draw_layers(layers: list[LayerError], worst: list[LayerError]) -> bytes:
    """Per tensor, from the input on: its own and the accumulated ratio of signal to noise in decibels; the `worst` by their rank."""
    figure = _figure(10, 3.6)
    axes = figure.subplots()
    axes.plot([layer.signal_to_noise_db for layer in layers], color="grey", linewidth=1, label="all noise so far")
    ranks = {layer.tensor: rank for rank, layer in enumerate(worst, 1)}
    for position, layer in enumerate(layers):
        rank, height = ranks.get(layer.tensor), min(layer.own_signal_to_noise_db, _MOST_DECIBELS)
        axes.plot(position, height, "o", color=_FLOAT if rank is None else _MISSED, markersize=4)
        if rank is not None:
            axes.annotate(str(rank), (position, height), xytext=(0, 5), textcoords="offset points", fontsize=8, ha="center", color=_MISSED)
    axes.set(xlabel="tensor, from the input on", ylabel="signal over noise, dB", ylim=(0, _MOST_DECIBELS + 3))
    axes.set_title("Signal over noise in int8 (dots: the layer's own; red: the worst, numbered as in the table)", fontsize=10)
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return _png(figure)


def channel_maxima(network: Network, node: Node) -> NDArray[np.float32]:
    """Per output channel of a layer, the largest absolute weight, batch normalisation folded in."""
    weights = network.weights[node.name]
    kernel = np.abs(np.asarray(weights.kernel) * shaped_gain(node, np.asarray(weights.gain)))
    return kernel.max(axis=(0, 1, 3) if node.kind == "depthwise" else tuple(range(kernel.ndim - 1)))


def _bars(axes: Any, names: list[str], values: list[float], colours: list[str], title: str, spelling: str, errors: Any = None) -> None:
    bars = axes.bar(names, values, color=colours, yerr=errors, ecolor="black", capsize=3)
    axes.bar_label(bars, [spelling.format(value) for value in values], label_type="center", color="white", fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.tick_params(axis="x", labelsize=7, rotation=20)


def _errors(rungs: list[Rung]) -> NDArray[np.float64]:
    """[2, 1 + rungs]: how far the accuracy may lie below and above, by the interval of the drop."""
    below = [max(0.0, rung.drop_interval[1] - rung.drop) for rung in rungs]
    above = [max(0.0, rung.drop - rung.drop_interval[0]) for rung in rungs]
    return np.array([[0.0, *below], [0.0, *above]])


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
