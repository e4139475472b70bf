"""A network written once, as a torch module, as ONNX nodes and as a Keras configuration.

A network is a function `body(net, *inputs)` that calls the methods of `Net`. The three kinds of
`Net` do the same arithmetic: `TorchNet` runs it, `OnnxNet` and `KerasNet` write it down and run
it beside, on zeros, to know the shapes. Weights are drawn from their names.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from onnx import helper, numpy_helper
from torch import nn
from torch.nn import functional

Body = Callable[..., Any]


def drawn(name: str, *shape: int) -> np.ndarray:
    """Weights that a name and a shape determine."""
    rng = np.random.default_rng(zlib.crc32(f"{name}{shape}".encode()))
    return rng.standard_normal(shape).astype(np.float32)


def positive(name: str, *shape: int) -> np.ndarray:
    """Positive factors that a name and a shape determine."""
    return np.abs(drawn(name, *shape)) + np.float32(0.5)


class TorchNet(nn.Module):
    """The network as a module; parameters are registered when the body first asks for them."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    def forward(self, *inputs: Any) -> Any:
        return self.body(self, *inputs)

    def part(self, name: str, make: Callable[[], nn.Module]) -> Any:
        """A part of the module, made when it is first asked for."""
        if name not in self._modules:
            self.add_module(name, make())
        return self._modules[name]

    def factor(self, name: str, values: np.ndarray) -> Any:
        if name not in self._parameters:
            self.register_parameter(name, nn.Parameter(torch.tensor(values)))
        return self._parameters[name]

    # --- weights

    def linear(self, x: Any, name: str, n_in: int, n_out: int) -> Any:
        def make() -> nn.Module:
            layer = nn.Linear(n_in, n_out, bias=False)
            layer.weight.data = torch.tensor(drawn(name, n_in, n_out).T.copy())
            return layer

        return self.part(name, make)(x)

    def conv(self, x: Any, name: str, n_in: int, n_out: int, size: int = 1, groups: int = 1) -> Any:
        def make() -> nn.Module:
            layer = nn.Conv2d(n_in, n_out, size, groups=groups, bias=False)
            layer.weight.data = torch.tensor(drawn(name, n_out, n_in // groups, size, size))
            return layer

        return self.part(name, make)(x)

    def batch_norm(self, x: Any, name: str, n: int) -> Any:
        def make() -> nn.Module:
            layer = nn.BatchNorm2d(n, eps=1e-3) if x.ndim == 4 else nn.BatchNorm1d(n, eps=1e-3)
            layer.weight.data = torch.tensor(positive(name, n))
            layer.running_var = torch.tensor(positive(f"{name} variance", n))
            return layer.eval()

        return self.part(name, make)(x)

    def layer_norm(self, x: Any, name: str, n: int) -> Any:
        def make() -> nn.Module:
            layer = nn.LayerNorm(n, bias=False)
            layer.weight.data = torch.tensor(positive(name, n))
            return layer

        return self.part(name, make)(x)

    def embedding(self, ids: Any, name: str, n: int, width: int) -> Any:
        def make() -> nn.Module:
            layer = nn.Embedding(n, width)
            layer.weight.data = torch.tensor(drawn(name, n, width))
            return layer

        return self.part(name, make)(ids)

    def recurrent(
        self, x: Any, name: str, kind: str, n_in: int, n: int, state: Sequence[Any] = ()
    ) -> Any:
        """The sequence of states (batch, time, n), and the last ones (batch, n)."""
        gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]

        def make() -> nn.Module:
            layer = getattr(nn, kind)(n_in, n, batch_first=True, bias=False)
            layer.weight_ih_l0.data = torch.tensor(drawn(f"{name} in", gates * n, n_in))
            layer.weight_hh_l0.data = torch.tensor(drawn(f"{name} own", gates * n, n))
            return layer

        first = [s.unsqueeze(0) for s in state]
        given = None if not first else tuple(first) if kind == "LSTM" else first[0]
        sequence, last = self.part(name, make)(x, given)
        states = list(last) if kind == "LSTM" else [last]
        return [sequence, *(s.squeeze(0) for s in states)]

    def scaled(self, x: Any, name: str, values: np.ndarray) -> Any:
        return x * self.factor(name, np.asarray(values, dtype=np.float32))

    def times(self, x: Any, number: float) -> Any:
        return x * number

    # --- arithmetic

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def plus(self, x: Any, number: float) -> Any:
        return x + number

    def subtract(self, x: Any, y: Any) -> Any:
        return x - y

    def multiply(self, x: Any, y: Any) -> Any:
        return x * y

    def divide(self, x: Any, y: Any) -> Any:
        return x / y

    def above(self, x: Any, number: float) -> Any:
        return torch.maximum(x, torch.tensor(number))

    def below(self, x: Any, number: float) -> Any:
        return torch.minimum(x, torch.tensor(number))

    def pointwise(self, x: Any, function: str) -> Any:
        return getattr(torch, function)(x)

    def softmax(self, x: Any, axis: int) -> Any:
        return x.softmax(axis)

    def matmul(self, x: Any, y: Any) -> Any:
        return x @ y

    def noise(self, x: Any) -> Any:
        return torch.randn_like(x)

    # --- axes

    def reduce(self, x: Any, kind: str, axes: Sequence[int], keep: bool = True) -> Any:
        function = {"mean": torch.mean, "sum": torch.sum, "max": torch.amax}[kind]
        return function(x, tuple(axes), keepdim=keep)

    def reshape(self, x: Any, *shape: int) -> Any:
        return x.reshape(x.shape[0], *shape)

    def permute(self, x: Any, *order: int) -> Any:
        return x.permute(order)

    def concatenate(self, parts: Sequence[Any], axis: int) -> Any:
        return torch.cat(list(parts), axis)

    def stack(self, parts: Sequence[Any], axis: int) -> Any:
        return torch.stack(list(parts), axis)

    def take(self, x: Any, axis: int, start: int, stop: int) -> Any:
        return x.narrow(axis, start, stop - start)

    def pool(self, x: Any) -> Any:
        return functional.max_pool2d(x, 2)

    def average(self, x: Any) -> Any:
        return x.mean((2, 3))

    def largest(self, x: Any, k: int) -> Any:
        return x.topk(k, -1)[0]


class OnnxNet:
    """The network as ONNX nodes; values are pairs of a name and zeros of its shape."""

    def __init__(self, body: Body) -> None:
        self.twin = TorchNet(body)
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._n = 0

    def node(self, operator: str, inputs: Sequence[Any], result: Any, **attributes: Any) -> Any:
        names = [self._name(value) for value in inputs]
        many = isinstance(result, list)
        outputs = [self._new() for _ in (result if many else [result])]
        self.nodes.append(helper.make_node(operator, names, outputs, **attributes))
        made = list(zip(outputs, result if many else [result], strict=True))
        return made if many else made[0]

    def array(self, name: str, values: Any) -> str:
        self.arrays[name] = np.asarray(values)
        return name

    def _new(self) -> str:
        self._n += 1
        return f"t{self._n}"

    def _name(self, value: Any) -> str:
        if isinstance(value, tuple):
            return str(value[0])
        if isinstance(value, str):
            return value
        return self.array(self._new(), value)

    # --- weights

    def linear(self, x: Any, name: str, n_in: int, n_out: int) -> Any:
        made = self.twin.linear(x[1], name, n_in, n_out)
        return self.node(
            "MatMul", [x, self.array(f"{name}.weight", drawn(name, n_in, n_out))], made
        )

    def conv(self, x: Any, name: str, n_in: int, n_out: int, size: int = 1, groups: int = 1) -> Any:
        made = self.twin.conv(x[1], name, n_in, n_out, size, groups)
        kernel = self.array(f"{name}.weight", drawn(name, n_out, n_in // groups, size, size))
        return self.node("Conv", [x, kernel], made, group=groups)

    def batch_norm(self, x: Any, name: str, n: int) -> Any:
        made = self.twin.batch_norm(x[1], name, n)
        zeros = np.zeros(n, np.float32)
        inputs = [
            self.array(f"{name}.weight", positive(name, n)), self.array(f"{name}.bias", zeros),
            self.array(f"{name}.mean", zeros),
            self.array(f"{name}.var", positive(f"{name} variance", n)),
        ]  # fmt: skip
        return self.node("BatchNormalization", [x, *inputs], made, epsilon=1e-3)

    def layer_norm(self, x: Any, name: str, n: int) -> Any:
        made = self.twin.layer_norm(x[1], name, n)
        gamma = self.array(f"{name}.weight", positive(name, n))
        return self.node("LayerNormalization", [x, gamma], made)

    def embedding(self, ids: Any, name: str, n: int, width: int) -> Any:
        made = self.twin.embedding(ids[1], name, n, width)
        return self.node("Gather", [self.array(f"{name}.weight", drawn(name, n, width)), ids], made)

    def recurrent(
        self, x: Any, name: str, kind: str, n_in: int, n: int, state: Sequence[Any] = ()
    ) -> Any:
        made = self.twin.recurrent(x[1], name, kind, n_in, n, [s[1] for s in state])
        gates = {"RNN": [0], "GRU": [1, 0, 2], "LSTM": [0, 3, 1, 2]}[kind]
        own = [
            np.concatenate([w.reshape(len(gates), n, -1)[at] for at in gates])[None]
            for w in (
                drawn(f"{name} in", len(gates) * n, n_in), drawn(f"{name} own", len(gates) * n, n)
            )
        ]  # fmt: skip
        first = [self.node("Unsqueeze", [s, np.array([0])], s[1].unsqueeze(0)) for s in state]
        swapped = self.node("Transpose", [x], x[1].transpose(0, 1), perm=[1, 0, 2])
        weights = [self.array(f"{name}.{k}", w) for k, w in zip("WR", own, strict=True)]
        zeros = [made[0].transpose(0, 1).unsqueeze(1), *(s.unsqueeze(0) for s in made[1:])]
        options = {"linear_before_reset": 1} if kind == "GRU" else {}
        inputs = [swapped, *weights, "", "", *first]
        outputs = self.node(kind, inputs, zeros, hidden_size=n, **options)
        sequence = self.node("Squeeze", [outputs[0], np.array([1])], zeros[0].squeeze(1))
        back = self.node("Transpose", [sequence], made[0], perm=[1, 0, 2])
        last = [self.node("Squeeze", [s, np.array([0])], s[1].squeeze(0)) for s in outputs[1:]]
        return [back, *last]

    def scaled(self, x: Any, name: str, values: np.ndarray) -> Any:
        made = self.twin.scaled(x[1], name, values)
        return self.node("Mul", [x, self.array(name, np.asarray(values, np.float32))], made)

    def times(self, x: Any, number: float) -> Any:
        return self.node("Mul", [x, np.array(number, np.float32)], x[1] * number)

    # --- arithmetic

    def add(self, x: Any, y: Any) -> Any:
        return self.node("Add", [x, y], x[1] + y[1])

    def plus(self, x: Any, number: float) -> Any:
        return self.node("Add", [x, np.array(number, np.float32)], x[1])

    def subtract(self, x: Any, y: Any) -> Any:
        return self.node("Sub", [x, y], x[1] - y[1])

    def multiply(self, x: Any, y: Any) -> Any:
        return self.node("Mul", [x, y], x[1] * y[1])

    def divide(self, x: Any, y: Any) -> Any:
        return self.node("Div", [x, y], x[1] / y[1])

    def above(self, x: Any, number: float) -> Any:
        return self.node("Max", [x, np.array(number, np.float32)], x[1])

    def below(self, x: Any, number: float) -> Any:
        return self.node("Min", [x, np.array(number, np.float32)], x[1])

    def pointwise(self, x: Any, function: str) -> Any:
        if function in ("square", "rsqrt"):
            if function == "square":
                return self.node("Mul", [x, x], x[1])
            root = self.node("Sqrt", [x], x[1])
            return self.node("Reciprocal", [root], x[1])
        return self.node(function.capitalize(), [x], x[1])

    def softmax(self, x: Any, axis: int) -> Any:
        return self.node("Softmax", [x], x[1], axis=axis)

    def matmul(self, x: Any, y: Any) -> Any:
        return self.node("MatMul", [x, y], x[1] @ y[1])

    def noise(self, x: Any) -> Any:
        return self.node("RandomNormalLike", [x], x[1])

    # --- axes

    def reduce(self, x: Any, kind: str, axes: Sequence[int], keep: bool = True) -> Any:
        made = self.twin.reduce(x[1], kind, axes, keep)
        operator = f"Reduce{kind.capitalize()}"
        return self.node(operator, [x, np.array(axes)], made, keepdims=int(keep))

    def reshape(self, x: Any, *shape: int) -> Any:
        made = self.twin.reshape(x[1], *shape)
        return self.node("Reshape", [x, np.array(made.shape)], made)

    def permute(self, x: Any, *order: int) -> Any:
        return self.node("Transpose", [x], x[1].permute(order), perm=list(order))

    def concatenate(self, parts: Sequence[Any], axis: int) -> Any:
        made = torch.cat([part[1] for part in parts], axis)
        return self.node("Concat", list(parts), made, axis=axis)

    def stack(self, parts: Sequence[Any], axis: int) -> Any:
        wide = [
            self.node("Unsqueeze", [part, np.array([axis])], part[1].unsqueeze(axis))
            for part in parts
        ]
        return self.concatenate(wide, axis)

    def take(self, x: Any, axis: int, start: int, stop: int) -> Any:
        made = x[1].narrow(axis, start, stop - start)
        at = [np.array([n]) for n in (start, stop, axis)]
        return self.node("Slice", [x, *at], made)

    def pool(self, x: Any) -> Any:
        made = functional.max_pool2d(x[1], 2)
        return self.node("MaxPool", [x], made, kernel_shape=[2, 2], strides=[2, 2])

    def average(self, x: Any) -> Any:
        made = self.node("GlobalAveragePool", [x], x[1].mean((2, 3), keepdim=True))
        return self.node("Flatten", [made], x[1].mean((2, 3)))

    def largest(self, x: Any, k: int) -> Any:
        made = x[1].narrow(-1, 0, k)
        return self.node("TopK", [x, np.array([k])], [made, made], axis=-1)[0]

    def write(self, path: Path, inputs: Sequence[Any]) -> Path:
        names = [f"x{at}" if at else "x" for at in range(len(inputs))]
        with torch.no_grad():
            made = self.twin.body(self, *zip(names, inputs, strict=True))
        results = made if isinstance(made, list | tuple) and isinstance(made[0], tuple) else [made]
        kinds = {torch.int64: 7}
        graph = helper.make_graph(
            self.nodes, "g",
            [
                helper.make_tensor_value_info(n, kinds.get(x.dtype, 1), list(x.shape))
                for n, x in zip(names, inputs, strict=True)
            ],
            [helper.make_tensor_value_info(str(r[0]), 1, None) for r in results],
            [numpy_helper.from_array(v, k) for k, v in self.arrays.items()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        path.write_bytes(model.SerializeToString())
        return path


class Called(str):
    """The name of a layer, and which of its calls it is."""

    node: int

    def __new__(cls, name: str, node: int = 0) -> Called:
        made = super().__new__(cls, name)
        made.node = node
        return made


class KerasNet:
    """The network as a Keras configuration with channels first, and its variables."""

    def __init__(self, body: Body) -> None:
        self.twin = TorchNet(body)
        self.layers: list[Any] = []
        self.variables: dict[str, list[np.ndarray]] = {}
        self._n: dict[str, int] = {}

    def tensor(self, value: Any) -> Any:
        layer, made = value[:2]
        return {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": [None, *made.shape[1:]], "dtype": "float32",
                "keras_history": [str(layer), layer.node, value[2] if len(value) > 2 else 0],
            },
        }  # fmt: skip

    def layer(
        self,
        cls: str,
        args: Sequence[Any],
        result: Any,
        config: dict[str, Any] | None = None,
        *,
        name: str = "",
        module: str = "keras.layers",
        variables: Sequence[np.ndarray] = (),
        kwargs: dict[str, Any] | None = None,
        part: str = "",
    ) -> Any:
        number = self._n.get(cls, 0)
        name = name or f"{cls.lower()}_{number}"

        def content(value: Any) -> Any:
            if isinstance(value, tuple):
                return self.tensor(value)
            return [content(v) for v in value] if isinstance(value, list) else value

        call = {
            "args": [content(arg) for arg in args],
            "kwargs": {k: content(v) for k, v in (kwargs or {}).items()},
        }
        known = next((layer for layer in self.layers if layer["name"] == name), None)
        if known is not None:  # called again
            known["inbound_nodes"].append(call)
            return Called(name, len(known["inbound_nodes"]) - 1), result
        self._n[cls] = number + 1
        self.layers.append(
            {
                "module": module, "class_name": cls, "name": name, "registered_name": None,
                "config": {"name": name, **(config or {})}, "inbound_nodes": [call],
            }
        )  # fmt: skip
        if variables:
            place = "".join(f"_{c.lower()}" if c.isupper() else c for c in cls).lstrip("_")
            place = (
                place.replace("_r_n_n", "_rnn").replace("l_s_t_m", "lstm").replace("g_r_u", "gru")
            )
            place = place.replace("2_d", "2d") + (f"_{number}" if number else "")
            self.variables[f"layers/{place}{part}"] = list(variables)
        return Called(name), result

    # --- weights

    def linear(self, x: Any, name: str, n_in: int, n_out: int) -> Any:
        made = self.twin.linear(x[1], name, n_in, n_out)
        config = {"units": n_out, "use_bias": False, "activation": "linear"}
        weights = [drawn(name, n_in, n_out)]
        return self.layer("Dense", [x], made, config, name=name, variables=weights)

    def conv(self, x: Any, name: str, n_in: int, n_out: int, size: int = 1, groups: int = 1) -> Any:
        made = self.twin.conv(x[1], name, n_in, n_out, size, groups)
        kernel = drawn(name, n_out, n_in // groups, size, size).transpose(2, 3, 1, 0)
        config = {
            "filters": n_out, "kernel_size": [size, size], "strides": [1, 1], "padding": "valid",
            "data_format": "channels_first", "dilation_rate": [1, 1], "groups": groups,
            "use_bias": False, "activation": "linear",
        }  # fmt: skip
        return self.layer("Conv2D", [x], made, config, name=name, variables=[kernel])

    def batch_norm(self, x: Any, name: str, n: int) -> Any:
        made = self.twin.batch_norm(x[1], name, n)
        config = {"axis": 1, "epsilon": 1e-3, "center": True, "scale": True}
        zeros = np.zeros(n, np.float32)
        variables = [positive(name, n), zeros, zeros, positive(f"{name} variance", n)]
        return self.layer("BatchNormalization", [x], made, config, name=name, variables=variables)

    def layer_norm(self, x: Any, name: str, n: int) -> Any:
        made = self.twin.layer_norm(x[1], name, n)
        config = {"axis": [-1], "epsilon": 1e-5, "center": False, "scale": True}
        gamma = [positive(name, n)]
        return self.layer("LayerNormalization", [x], made, config, name=name, variables=gamma)

    def embedding(self, ids: Any, name: str, n: int, width: int) -> Any:
        made = self.twin.embedding(ids[1], name, n, width)
        config = {"input_dim": n, "output_dim": width}
        table = [drawn(name, n, width)]
        return self.layer("Embedding", [ids], made, config, name=name, variables=table)

    def recurrent(
        self, x: Any, name: str, kind: str, n_in: int, n: int, state: Sequence[Any] = ()
    ) -> Any:
        made = self.twin.recurrent(x[1], name, kind, n_in, n, [s[1] for s in state])
        gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
        own = [drawn(f"{name} in", gates * n, n_in).T, drawn(f"{name} own", gates * n, n).T]
        config = {
            "units": n, "return_sequences": True, "return_state": True, "use_bias": False,
            "activation": "tanh",
        }  # fmt: skip
        kwargs = {"initial_state": list(state) if len(state) > 1 else state[0]} if state else {}
        cls = {"RNN": "SimpleRNN"}.get(kind, kind)
        called, _ = self.layer(
            cls, [x], made[0], config, name=name, variables=own, kwargs=kwargs, part="/cell"
        )
        return [(called, result, at) for at, result in enumerate(made)]

    def scaled(self, x: Any, name: str, values: np.ndarray) -> Any:
        made = self.twin.scaled(x[1], name, values)
        return self._function("Multiply", [x, np.asarray(values, np.float64).tolist()], made)

    def times(self, x: Any, number: float) -> Any:
        return self._constant("Multiply", x, number)

    # --- arithmetic

    def _function(self, cls: str, args: Sequence[Any], made: Any, config: Any = None) -> Any:
        return self.layer(cls, args, made, config, module="keras.src.ops.numpy")

    def _constant(self, cls: str, x: Any, value: Any) -> Any:
        return self._function(cls, [x, value], x[1])

    def add(self, x: Any, y: Any) -> Any:
        return self.layer("Add", [[x, y]], x[1] + y[1])

    def plus(self, x: Any, number: float) -> Any:
        return self._constant("Add", x, number)

    def subtract(self, x: Any, y: Any) -> Any:
        return self._function("Subtract", [x, y], x[1] - y[1])

    def multiply(self, x: Any, y: Any) -> Any:
        return self._function("Multiply", [x, y], x[1] * y[1])

    def divide(self, x: Any, y: Any) -> Any:
        return self._function("Divide", [x, y], x[1] / y[1])

    def above(self, x: Any, number: float) -> Any:
        return self._constant("Maximum", x, number)

    def below(self, x: Any, number: float) -> Any:
        return self._constant("Minimum", x, number)

    def pointwise(self, x: Any, function: str) -> Any:
        module = "keras.src.ops.nn" if function in ("relu", "sigmoid") else "keras.src.ops.numpy"
        return self.layer(function.capitalize(), [x], x[1], module=module)

    def softmax(self, x: Any, axis: int) -> Any:
        return self.layer("Softmax", [x], x[1], {"axis": axis})

    def matmul(self, x: Any, y: Any) -> Any:
        return self._function("Matmul", [x, y], x[1] @ y[1])

    # --- axes

    def reduce(self, x: Any, kind: str, axes: Sequence[int], keep: bool = True) -> Any:
        made = self.twin.reduce(x[1], kind, axes, keep)
        config = {"axis": list(axes), "keepdims": keep}
        return self._function(kind.capitalize(), [x], made, config)

    def reshape(self, x: Any, *shape: int) -> Any:
        made = self.twin.reshape(x[1], *shape)
        return self.layer("Reshape", [x], made, {"target_shape": list(shape)})

    def permute(self, x: Any, *order: int) -> Any:
        return self._function("Transpose", [x], x[1].permute(order), {"axes": list(order)})

    def concatenate(self, parts: Sequence[Any], axis: int) -> Any:
        made = torch.cat([part[1] for part in parts], axis)
        return self.layer("Concatenate", [list(parts)], made, {"axis": axis})

    def stack(self, parts: Sequence[Any], axis: int) -> Any:
        made = torch.stack([part[1] for part in parts], axis)
        return self._function("Stack", [list(parts)], made, {"axis": axis})

    def take(self, x: Any, axis: int, start: int, stop: int) -> Any:
        made = x[1].narrow(axis, start, stop - start)
        whole = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}
        part = {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": None}}
        key = [part if at == axis else whole for at in range(x[1].ndim)]
        return self._function("GetItem", [x, key], made)

    def pool(self, x: Any) -> Any:
        config = {"pool_size": [2, 2], "strides": [2, 2], "data_format": "channels_first"}
        return self.layer("MaxPooling2D", [x], functional.max_pool2d(x[1], 2), config)

    def average(self, x: Any) -> Any:
        config = {"data_format": "channels_first", "keepdims": False}
        return self.layer("GlobalAveragePooling2D", [x], x[1].mean((2, 3)), config)

    def write(self, path: Path, inputs: Sequence[Any]) -> Path:
        given = []
        for at, x in enumerate(inputs):
            name = f"x{at}" if at else "x"
            self.layers.append(
                {
                    "module": "keras.layers", "class_name": "InputLayer", "name": name,
                    "registered_name": None, "inbound_nodes": [],
                    "config": {"name": name, "batch_shape": [None, *x.shape[1:]]},
                }
            )  # fmt: skip
            given.append((Called(name), x))
        with torch.no_grad():
            made = self.twin.body(self, *given)
        results = [made] if isinstance(made, tuple) and isinstance(made[0], str) else list(made)
        config = {
            "module": "keras.src.models.functional", "class_name": "Functional",
            "registered_name": "Functional",
            "config": {
                "name": "m", "layers": self.layers,
                "input_layers": [[str(name), 0, 0] for name, _ in given],
                "output_layers": [
                    [str(r[0]), r[0].node, r[2] if len(r) > 2 else 0] for r in results
                ],
            },
        }  # fmt: skip
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            for place, values in self.variables.items():
                for number, value in enumerate(values):
                    file.create_dataset(f"{place}/vars/{number}", data=value)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", content.getvalue())
        return path


def torch_module(body: Body, inputs: Sequence[Any]) -> TorchNet:
    """The network as a module whose parts are there already."""
    net = TorchNet(body)
    with torch.no_grad():
        net(*inputs)
    return net.eval()


def exported(module: nn.Module, inputs: Sequence[Any], path: Path) -> Path:
    """The module as torch's exporter writes it."""
    torch.onnx.export(module, tuple(inputs), str(path), dynamo=False, opset_version=17)
    return path
