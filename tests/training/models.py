"""Torch models that the tests of the training side share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with all parameters and running statistics drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.data = torch.randn(parameter.shape, generator=generator)
        if isinstance(module, _BatchNorm) and module.running_var is not None:
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator))
    return model


def move_(model: nn.Module, seed: int = 1) -> None:
    """Change weights, scales and running statistics in place, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * noise.to(parameter))
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_var is not None:
                noise = torch.rand(module.num_features, generator=generator)
                module.running_var.mul_(noise.to(module.running_var) + 0.5)
    for module in model.modules():  # what pruning and weight norm compute before a forward pass
        for hook in module._forward_pre_hooks.values():
            hook(module, None)


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    """Linear layers of these widths with ReLUs between them."""
    modules: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        modules += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    drawn(model, seed)
    return model


def cnn(*middle: nn.Module, channels: int = 6, first: nn.Module | None = None) -> nn.Sequential:
    """A convolution 3 -> 8, the modules given, and a linear layer that reads `channels`."""
    first = nn.Conv2d(3, 8, 3) if first is None else first
    end = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(channels * 4, 3))
    model = nn.Sequential(first, *middle, *end)
    drawn(model)
    return model


def batch_norm_cnn() -> nn.Sequential:
    """Batch norms with and without a scale, a depthwise convolution, flattened channels."""
    return cnn(
        nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
        nn.Conv2d(8, 12, 1), nn.BatchNorm2d(12, affine=False), nn.ReLU(), channels=12,
    )  # fmt: skip


def transposed_cnn() -> nn.Sequential:
    """Transposed convolutions with as many inputs as outputs, and others."""
    return cnn(
        nn.ReLU(), nn.ConvTranspose2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.ReLU(),
    )  # fmt: skip


class Residual(nn.Module):
    """A residual CNN with batch norms after its convolutions, or before them, and a depthwise one.

    Parameters
    ----------
    channels : int
    before : bool
        Whether a block begins with batch norm and ReLU.
    """

    def __init__(self, channels: int = 8, before: bool = False) -> None:
        super().__init__()
        self.before = before
        self.first = nn.Conv2d(3, channels, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(channels)
        self.wide = nn.Conv2d(channels, channels, 3, padding=1)
        self.wide_norm = nn.BatchNorm2d(channels)
        self.deep = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.deep_norm = nn.BatchNorm2d(channels)
        self.last = nn.Conv2d(channels, 6, 1, groups=2)
        self.out = nn.Linear(24, 5)
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_norm(self.first(x)).relu()
        if self.before:
            x = x + self.wide(self.wide_norm(x).relu())
        else:
            x = x + self.wide_norm(self.wide(x)).relu()
        x = x + self.deep_norm(self.deep(x))
        x = self.last(x).relu()
        return self.out(functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Tied(nn.Module):
    """A layer that is called three times, with one more after it."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(10, 10)
        self.out = nn.Linear(10, 5)
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.again(x).relu()
        return self.out(x)


class Computed(nn.Module):
    """A layer of 8 neurons, a function of them given, and an output layer.

    Parameters
    ----------
    compute : callable
        From the module and the neurons' values, shape (rows, 8), to the output.
    """

    def __init__(self, compute: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 8)
        self.out = nn.Linear(8, 3)
        self.other = nn.Parameter(torch.empty(8))
        self.compute = compute
        drawn(self)

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, self.hidden(x))


IMAGE = {"example_inputs": torch.zeros(1, 3, 8, 8)}


def transformer(name: str) -> nn.Module:
    """A small model of the transformers package."""
    import transformers as t

    torch.manual_seed(0)
    n = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
    if name == "gpt2":
        return t.GPT2LMHeadModel(
            t.GPT2Config(
                n_embd=16, n_layer=2, n_head=2, vocab_size=30, bos_token_id=0, eos_token_id=0
            )
        )
    if name == "bert":
        return t.BertModel(t.BertConfig(**n, intermediate_size=32, vocab_size=30))
    if name == "llama":
        return t.LlamaForCausalLM(
            t.LlamaConfig(**n, num_key_value_heads=1, intermediate_size=40, vocab_size=30)
        )
    return t.ViTModel(t.ViTConfig(**n, intermediate_size=32, image_size=16, patch_size=4))
