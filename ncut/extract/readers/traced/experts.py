"""Mixtures of experts whose weights are stacked in one tensor, as in transformers."""

from __future__ import annotations

from typing import Any

from torch import nn

from ncut.extract.program.values import Value
from ncut.extract.readers.traced.tensor import is_traced
from ncut.extract.readers.traced.tracing import Call


def are_experts(module: nn.Module) -> bool:
    """Test if a module holds all experts of a layer: weights (experts, ..., ...) and a gate."""
    name = type(module).__name__
    weights = [getattr(module, part, None) for part in ("gate_up_proj", "down_proj")]
    stacked = all(isinstance(weight, nn.Parameter) and weight.ndim == 3 for weight in weights)
    return name.endswith("Experts") and stacked and hasattr(module, "_apply_gate")


def experts(call: Call) -> Any:
    """Every expert reads the layer's input and writes to its output.

    A forward pass runs only the experts that the router chooses for its data; the graph has all
    of them. The router's shares scale their outputs by numbers that depend on the data.
    """
    module: Any = call.module
    hidden = call.arg(0, "hidden_states")
    path = call.tracing.path
    transposed = bool(getattr(module, "is_transposed", False))
    for bias in ("gate_up_proj_bias", "down_proj_bias"):
        if isinstance(getattr(module, bias, None), nn.Parameter):
            call.program.ignore([f"{path}.{bias}"], "bias")

    def linear(value: Any, part: str, number: int) -> Any:
        weight = call.tracing.weight(getattr(module, part)[number], part)
        made = call.program.linear(
            value.value, weight.values if transposed else weight.values.T,
            name=f"{path}.{number}.{part}", module=path, parameters=weight.parameters,
        )  # fmt: skip
        return call.tracing.made(made, value)

    written: list[Value] = []
    for number in range(module.gate_up_proj.shape[0]):
        gated = module._apply_gate(linear(hidden, "gate_up_proj", number))
        assert is_traced(gated)
        written.append(linear(gated, "down_proj", number).value)
    return call.program.add(*written)
