"""A trained Keras 3 image classifier as a short list of the operations that an int8 runtime has.

Keras' MobileNetV3 (small, large, minimalistic) and what a classification head adds to it are read from the model's own
configuration. Batch normalisation becomes a gain and a bias of the convolution before it; the squeeze-excite gate
`relu6(x + 3) · 1/6` becomes a bias, a ReLU6 and a factor that the next convolution absorbs; dropout disappears. Pixels in,
probabilities out: the same function as the Keras model up to float rounding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.core.errors import UsageError

Kind = Literal["input", "affine", "conv", "depthwise", "dense", "pad", "mean", "flatten", "multiply", "add", "hard_swish", "softmax"]
HardSwish = Literal["operation", "arithmetic"]
Floats = NDArray[np.float32]
WEIGHTED = ("conv", "depthwise", "dense")


@dataclass(frozen=True)
class Node:
    """One operation; its output tensor has its name."""

    name: str
    kind: Kind
    inputs: tuple[str, ...] = ()
    activation: Literal["", "relu", "relu6"] = ""
    """Applied to the output of a convolution, dense layer, addition or `affine`, as part of the operation."""
    strides: tuple[int, int] = (1, 1)
    padding: Literal["VALID", "SAME"] = "VALID"
    pads: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    """Rows above and below, columns left and right (kind `pad`)."""
    keepdims: bool = False
    scale: float = 1.0
    offset: float = 0.0
    """output = activation(scale · input + offset) (kind `affine`)."""


@dataclass(frozen=True)
class Weights:
    """Of one convolution or dense layer: output = input ∗ (kernel · gain) + bias, gain and bias per output channel.

    Kernel: [h, w, in, out] (conv), [h, w, channels, 1] (depthwise), [in, out] (dense). The gain stays apart so that training
    goes on in the coordinates in which the network was trained.
    """

    kernel: Any
    gain: Any
    bias: Any


@dataclass(frozen=True)
class Network:
    """Operations in order of execution: the first is the input, the last the softmax."""

    nodes: tuple[Node, ...]
    weights: Mapping[str, Weights]
    height: int
    width: int
    classes: int

    def consumers(self, name: str) -> list[Node]:
        """The operations that read a tensor."""
        return [node for node in self.nodes if name in node.inputs]

    def feeds_hard_swish(self, name: str) -> bool:
        """Whether hard-swish, as one operation or as arithmetic, is all that reads a tensor: values below -3 are then alike."""
        readers = self.consumers(name)
        gates = [node.name for node in readers if node.kind == "affine" and (node.activation, node.offset) == ("relu6", 3.0)]
        products = [node for node in readers if node.kind == "multiply" and set(node.inputs) - {name} <= set(gates)]
        swishes = [node for node in readers if node.kind == "hard_swish"]
        return bool(readers) and len(gates) + len(products) + len(swishes) == len(readers) and len(gates) == len(products)

    def with_weights(self, changed: Mapping[str, Weights]) -> "Network":
        """A copy in which some layers' weights are replaced."""
        return replace(self, weights={**self.weights, **changed})


def shaped_gain(node: Node, gain: Any) -> Any:
    """The gain [channels] in the shape that multiplies the kernel: depthwise kernels have their channels last but one."""
    return gain[:, None] if node.kind == "depthwise" else gain


def identity(_: Node, value: Any) -> Any:
    """The tap that changes nothing."""
    return value


@dataclass(frozen=True)
class Spelling:
    """How `forward` writes the network down."""

    tap: Callable[[Node, Any], Any] = identity
    """Sees (and may change) every tensor before others read it."""
    weigh: Callable[[Node, Any], Any] = identity
    """Likewise every kernel with its gain in it."""
    for_converter: bool = False
    """Write `x · a + b` as a 1×1 depthwise convolution: the converter gives its constants int8 codes. Slower to train."""


def forward(network: Network, pixels: Any, spelling: Spelling = Spelling()) -> Any:
    """float32 [N, H, W, 3] in [0, 255] → probabilities [N, C], as TensorFlow operations."""
    tensors: dict[str, Any] = {}
    for node in network.nodes:
        value = pixels if node.kind == "input" else apply_node(network, node, [tensors[name] for name in node.inputs], spelling)
        tensors[node.name] = spelling.tap(node, value)
    return tensors[network.nodes[-1].name]


def apply_node(network: Network, node: Node, inputs: list[Any], spelling: Spelling) -> Any:
    """The output of one operation, before the spelling's tap sees it."""
    import tensorflow as tf

    if node.kind in WEIGHTED:
        return _weighted(node, network.weights[node.name], inputs[0], spelling.weigh)
    x = inputs[0]
    simple: dict[str, Callable[[], Any]] = {
        "affine": lambda: _activate(node, _affine(node, x) if spelling.for_converter else x * node.scale + node.offset),
        "pad": lambda: tf.pad(x, [[0, 0], *node.pads, [0, 0]]),
        "mean": lambda: tf.reduce_mean(x, axis=[1, 2], keepdims=node.keepdims),
        "flatten": lambda: tf.reshape(x, [-1, int(np.prod(x.shape[1:]))]),
        "multiply": lambda: inputs[0] * inputs[1],
        "add": lambda: _activate(node, inputs[0] + inputs[1]),
        # The converter knows this spelling as one HARD_SWISH operation.
        "hard_swish": lambda: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
        "softmax": lambda: tf.nn.softmax(x),
    }
    return simple[node.kind]()


def _weighted(node: Node, weights: Weights, x: Any, weigh: Callable[[Node, Any], Any]) -> Any:
    import tensorflow as tf

    kernel = weigh(node, weights.kernel * shaped_gain(node, weights.gain))
    strides = [1, *node.strides, 1]
    if node.kind == "conv":
        value = tf.nn.conv2d(x, kernel, strides, node.padding)
    elif node.kind == "depthwise":
        value = tf.nn.depthwise_conv2d(x, kernel, strides, node.padding)
    else:
        value = tf.matmul(x, kernel)
    return _activate(node, tf.nn.bias_add(value, weights.bias))


def _affine(node: Node, x: Any) -> Any:
    import tensorflow as tf

    channels = int(x.shape[-1])
    kernel = tf.constant(node.scale, tf.float32, [1, 1, channels, 1])
    return tf.nn.bias_add(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "VALID"), tf.constant(node.offset, tf.float32, [channels]))


def _activate(node: Node, value: Any) -> Any:
    import tensorflow as tf

    return {"": tf.identity, "relu": tf.nn.relu, "relu6": tf.nn.relu6}[node.activation](value)


def read_network(model: Any, hard_swish: HardSwish = "operation") -> Network:
    """Read a Keras 3 functional model; `UsageError` names the first layer that is none of those this module knows.

    `hard_swish="arithmetic"` writes x · relu6(x + 3) / 6 as an addition and a multiplication, the 1/6 being absorbed by the next
    convolution: the same function of operations that every accelerated int8 runtime has.
    """
    reader = _Reader(hard_swish)
    config = model.get_config()
    source = config["input_layers"]
    shape = model.inputs[0].shape
    result = reader.walk(model, config, [_Value("pixels")])
    if result.factor != 1 or reader.nodes[result.node].kind != "softmax":
        raise UsageError("the model does not end in a softmax", where=str(source), fix=_FIX)
    classes = int(model.outputs[0].shape[-1])
    return Network(tuple(reader.nodes.values()), reader.weights, int(shape[1]), int(shape[2]), classes)


_FIX = "Train one of the MobileNetV3 backbones with train_mobile, or leave only the rungs `ptq` and `dynamic_range`"


@dataclass(frozen=True)
class _Value:
    """A tensor while reading: `factor` times the output of a node, the factor being absorbed further down."""

    node: str
    factor: float = 1.0


@dataclass
class _Reader:
    hard_swish: HardSwish
    nodes: dict[str, Node] = field(default_factory=lambda: {"pixels": Node("pixels", "input")})
    weights: dict[str, Weights] = field(default_factory=dict)

    def walk(self, model: Any, config: Mapping[str, Any], inputs: list[_Value]) -> _Value:
        values: dict[str, _Value] = {}
        for entry in config["layers"]:
            name, layer = entry["name"], entry["class_name"]
            if layer == "InputLayer":
                values[name] = inputs[0]
                continue
            arguments = _arguments(entry)
            sources = [values[a] for a in arguments if isinstance(a, str)]
            constants = [a for a in arguments if isinstance(a, float)]
            values[name] = self._read(model.get_layer(name) if _is_layer(entry) else None, entry, sources, constants)
        return values[_first_name(config["output_layers"])]

    def _read(self, layer: Any, entry: Mapping[str, Any], sources: list[_Value], constants: list[float]) -> _Value:
        kind, config = entry["class_name"], entry["config"]
        if kind == "Functional":
            return self.walk(layer, config, sources)
        if not sources or (layer is None and len(sources) + len(constants) != 2):
            raise _unknown(entry)
        if layer is None and constants:
            return self._constant(entry, sources[0], constants[0])
        read = getattr(self, f"_read_{kind.lower()}", None)
        if read is None:
            raise _unknown(entry)
        return read(entry, layer, config, sources)

    def _add(self, node: Node, factor: float = 1.0) -> _Value:
        self.nodes[node.name] = node
        return _Value(node.name, factor)

    def _constant(self, entry: Mapping[str, Any], source: _Value, constant: float) -> _Value:
        """`x + c` joins the bias of the convolution before it, `x · c` waits for the next one."""
        if entry["class_name"] == "Multiply":
            return replace(source, factor=source.factor * constant)
        node = self.nodes[source.node]
        if entry["class_name"] != "Add" or node.kind not in WEIGHTED or node.activation or source.factor != 1:
            raise _unknown(entry)
        weights = self.weights[node.name]
        self.weights[node.name] = replace(weights, bias=weights.bias + np.float32(constant))
        return source

    def _weighted(self, node: Node, layer: Any, config: Mapping[str, Any], source: _Value) -> _Value:
        kernel = _array(layer.kernel)
        channels = kernel.shape[2] if node.kind == "depthwise" else kernel.shape[-1]
        bias = _array(layer.bias) if config["use_bias"] else np.zeros(channels, np.float32)
        self.weights[node.name] = Weights(kernel, np.full(channels, source.factor, np.float32), bias)
        return self._activation(node.name, config["activation"], self._add(node))

    def _activation(self, name: str, activation: Any, source: _Value) -> _Value:
        if activation in (None, "linear"):
            return source
        if activation == "relu":
            return self._fuse(source, "relu")
        if activation in ("hard_swish", "hard_silu") and source.factor == 1:
            return self._hard_swish(name, source.node)
        if activation == "softmax" and source.factor == 1:
            return self._add(Node(f"{name}/softmax", "softmax", (source.node,)))
        raise UsageError(f"activation '{activation}' can't be rebuilt", where=name, fix=_FIX)

    def _hard_swish(self, name: str, source: str) -> _Value:
        if self.hard_swish == "operation":
            return self._add(Node(f"{name}/hard_swish", "hard_swish", (source,)))
        gate = self._add(Node(f"{name}/gate", "affine", (source,), activation="relu6", offset=3.0))
        return self._add(Node(f"{name}/hard_swish", "multiply", (source, gate.node)), 1.0 / 6.0)

    def _fuse(self, source: _Value, activation: Literal["relu", "relu6"]) -> _Value:
        node = self.nodes[source.node]
        used = any(node.name in other.inputs for other in self.nodes.values())
        if node.kind not in (*WEIGHTED, "add") or node.activation or used or source.factor != 1:
            raise UsageError("the ReLU does not directly follow a convolution or an addition", where=node.name, fix=_FIX)
        return self._add(replace(node, activation=activation))

    def _read_conv2d(self, entry: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        if tuple(config["dilation_rate"]) != (1, 1) or config["groups"] != 1:
            raise _unknown(entry)
        node = Node(layer.name, "conv", (sources[0].node,), strides=tuple(config["strides"]), padding=config["padding"].upper())
        return self._weighted(node, layer, config, sources[0])

    def _read_depthwiseconv2d(self, entry: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        if tuple(config["dilation_rate"]) != (1, 1) or config["depth_multiplier"] != 1:
            raise _unknown(entry)
        node = Node(layer.name, "depthwise", (sources[0].node,), strides=tuple(config["strides"]), padding=config["padding"].upper())
        return self._weighted(node, layer, config, sources[0])

    def _read_dense(self, _: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        return self._weighted(Node(layer.name, "dense", (sources[0].node,)), layer, config, sources[0])

    def _read_batchnormalization(self, entry: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        """Y = γ (x - μ) / √(σ² + ε) + β in inference, folded into the convolution that made x."""
        source = sources[0]
        node = self.nodes[source.node]
        if node.kind not in WEIGHTED or node.activation or source.factor != 1:
            raise _unknown(entry)
        gamma = _array(layer.gamma) if config["scale"] else 1.0
        beta = _array(layer.beta) if config["center"] else 0.0
        gain = gamma / np.sqrt(_array(layer.moving_variance) + config["epsilon"])
        old = self.weights[node.name]
        bias = beta + (old.bias - _array(layer.moving_mean)) * gain
        self.weights[node.name] = Weights(old.kernel, (old.gain * gain).astype(np.float32), bias.astype(np.float32))
        return source

    def _read_rescaling(self, entry: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        if sources[0].factor != 1:
            raise _unknown(entry)
        return self._add(Node(layer.name, "affine", (sources[0].node,), scale=float(config["scale"]), offset=float(config["offset"])))

    def _read_relu(self, entry: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        limit = config["max_value"]
        if config["negative_slope"] or config["threshold"] or limit not in (None, 6.0):
            raise _unknown(entry)
        return self._fuse(sources[0], "relu" if limit is None else "relu6")

    def _read_activation(self, _: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        return self._activation(layer.name, config["activation"], sources[0])

    def _read_softmax(self, _: Any, layer: Any, __: Any, sources: list[_Value]) -> _Value:
        return self._activation(layer.name, "softmax", sources[0])

    def _read_zeropadding2d(self, _: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        top_bottom, left_right = config["padding"]
        node = Node(layer.name, "pad", (sources[0].node,), pads=(tuple(top_bottom), tuple(left_right)))
        return self._add(node, sources[0].factor)

    def _read_globalaveragepooling2d(self, _: Any, layer: Any, config: Any, sources: list[_Value]) -> _Value:
        return self._add(Node(layer.name, "mean", (sources[0].node,), keepdims=config["keepdims"]), sources[0].factor)

    def _read_flatten(self, _: Any, layer: Any, __: Any, sources: list[_Value]) -> _Value:
        return self._add(Node(layer.name, "flatten", (sources[0].node,)), sources[0].factor)

    def _read_dropout(self, _: Any, __: Any, ___: Any, sources: list[_Value]) -> _Value:
        return sources[0]

    def _read_multiply(self, entry: Any, _: Any, __: Any, sources: list[_Value]) -> _Value:
        if len(sources) != 2:
            raise _unknown(entry)
        node = Node(entry["name"], "multiply", (sources[0].node, sources[1].node))
        return self._add(node, sources[0].factor * sources[1].factor)

    def _read_add(self, entry: Any, _: Any, __: Any, sources: list[_Value]) -> _Value:
        if len(sources) != 2:
            raise _unknown(entry)
        return self._add(Node(entry["name"], "add", (self._plain(sources[0]), self._plain(sources[1]))))

    def _plain(self, source: _Value) -> str:
        """The tensor with its factor multiplied in, for readers that can't absorb it."""
        if source.factor == 1:
            return source.node
        return self._add(Node(f"{source.node}/scaled", "affine", (source.node,), scale=source.factor)).node


def _array(variable: Any) -> Floats:
    return np.asarray(variable.numpy(), np.float32)


def _is_layer(entry: Mapping[str, Any]) -> bool:
    """Operations such as `x + 3.0` are entries of the configuration too, but no layers."""
    return not str(entry.get("module", "")).startswith("keras.src.ops")


def _arguments(entry: Mapping[str, Any]) -> list[str | float]:
    """Names of the layers whose outputs go in, and constants, in order."""
    node = entry["inbound_nodes"][0]
    flat: list[Any] = []
    for argument in [*node["args"], *node["kwargs"].values()]:
        flat += argument if isinstance(argument, list | tuple) else [argument]
    names = [a["config"]["keras_history"][0] if isinstance(a, dict) else a for a in flat]
    return [name if isinstance(name, str) else float(name) for name in names if isinstance(name, str | int | float) and name is not False]


def _first_name(layers: Any) -> str:
    return layers if isinstance(layers, str) else _first_name(layers[0])


def _unknown(entry: Mapping[str, Any]) -> UsageError:
    return UsageError(f"a layer of type {entry['class_name']} in this place can't be rebuilt", where=str(entry["name"]), fix=_FIX)
