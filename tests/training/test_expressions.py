"""Edges as functions of parameters, for each kind of weights: values, gradients, ties."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from models import drawn, mlp, move_, transformer
from test_live_graph import _assert_slope, assert_same, live_graph
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import ncut
from ncut import InputError

WIDTH = 6
SEQUENCE = {"example_inputs": torch.zeros(2, 5, WIDTH)}
ROWS = {"example_inputs": torch.zeros(3, WIDTH)}
WORDS = {"example_inputs": torch.zeros(2, 5, dtype=torch.long)}


class Around(nn.Module):
    """A layer before, one after, and what lies between: a module, or a function of parameters."""

    def __init__(self, middle: Any, n: int, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(n, 4)
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.empty(shape)))
        self.middle = middle
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        made = self.middle(h) if isinstance(self.middle, nn.Module) else self.middle(self, h)
        made = made[0] if isinstance(made, tuple) else made
        return self.last(torch.tanh(made))  # type: ignore[no-any-return]


class EncoderDecoder(nn.Module):
    """A decoder that starts from the encoder's last state."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(WIDTH, 5, batch_first=True)
        self.decoder = nn.GRU(WIDTH, 5, batch_first=True)
        self.out = nn.Linear(5, 3)
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.encoder(x)
        return self.out(self.decoder(x, state)[0])  # type: ignore[no-any-return]


class TiedWords(nn.Module):
    """An embedding whose table is the output layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.inner = nn.Embedding(9, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 9, bias=False)
        self.head.weight = self.words.weight
        drawn(self)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.relu(self.inner(self.words(words))))  # type: ignore[no-any-return]


class StackedExperts(nn.Module):
    """Two experts in one tensor, mixed by a router."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.router = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)
        self.up = nn.Parameter(torch.empty(2, WIDTH, 7))
        self.down = nn.Parameter(torch.empty(2, 7, 4))
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(x))
        shares = torch.softmax(self.router(x), -1)
        wide = torch.relu(torch.einsum("bi,eih->beh", x, self.up))
        return torch.einsum("beh,eho,be->bo", wide, self.down, shares)


def _lstm(**options: Any) -> Callable[[], nn.Module]:
    n = options.get("proj_size", 5) * (2 if options.get("bidirectional") else 1)
    return lambda: Around(nn.LSTM(WIDTH, 5, batch_first=True, **options), n, {})


def _mixtral() -> nn.Module:
    import transformers as t

    torch.manual_seed(0)
    return t.MixtralForCausalLM(
        t.MixtralConfig(
            num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, hidden_size=8,
            intermediate_size=10, num_local_experts=3, vocab_size=12,
        )
    )  # fmt: skip


def _weight_normed() -> nn.Module:
    model = mlp(WIDTH, 8, 7, 5)
    parametrizations.weight_norm(model[2])
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "lstm": (_lstm(), SEQUENCE),
    "lstm of two layers, both ways": (_lstm(num_layers=2, bidirectional=True), SEQUENCE),
    "lstm with a projection": (_lstm(proj_size=3), SEQUENCE),
    "gru": (lambda: Around(nn.GRU(WIDTH, 5, batch_first=True), 5, {}), SEQUENCE),
    "cell": (lambda: Around(nn.GRUCell(WIDTH, 5), 5, {}), ROWS),
    "states into a decoder": (EncoderDecoder, SEQUENCE),
    "tied words": (TiedWords, WORDS),
    "experts in one tensor": (StackedExperts, ROWS),
    "mixtral": (_mixtral, {}),
    "weight norm": (_weight_normed, ROWS),
    "attention in one matrix": (
        lambda: Around(
            lambda m, h: m.attention(h, h, h), WIDTH, {"w": (1,)}
        ),
        SEQUENCE,
    ),
    "1 + g": (lambda: Around(lambda m, h: h * (1 + m.g), WIDTH, {"g": (WIDTH,)}), ROWS),
    "its own multiples added": (
        lambda: Around(
            lambda m, h: h + m.s * h - 0.3 * h / m.t, WIDTH, {"s": (WIDTH,), "t": (WIDTH,)}
        ),
        ROWS,
    ),
    "bilinear": (lambda: Around(lambda m, h: torch.nn.functional.bilinear(h, h, m.w), 5,
                                {"w": (5, WIDTH, WIDTH)}), ROWS),
    "low rank": (
        lambda: Around(
            lambda m, h: h @ (m.w + 0.5 * m.u @ m.v), 7,
            {"w": (WIDTH, 7), "u": (WIDTH, 2), "v": (2, 7)},
        ),
        ROWS,
    ),
    "a sum of products": (
        lambda: Around(lambda m, h: (h[:, :, None] * m.w).sum(1), 5, {"w": (WIDTH, 5)}), ROWS
    ),
    "a product in groups": (
        lambda: Around(
            lambda m, h: torch.einsum("bgi,gio->bgo", h.reshape(-1, 2, 3), m.w).flatten(1), 8,
            {"w": (2, 3, 4)},
        ),
        ROWS,
    ),
    "slices of one matrix": (
        lambda: Around(
            lambda m, h: torch.cat([h @ m.w[:, :3], h @ m.w[:, 3:].abs()], 1), 7,
            {"w": (WIDTH, 7)},
        ),
        ROWS,
    ),
    "detached": (lambda: Around(lambda m, h: h @ m.w.detach(), 5, {"w": (WIDTH, 5)}), ROWS),
}  # fmt: skip


def _made(name: str) -> tuple[nn.Module, dict[str, Any]]:
    make, more = MODELS[name]
    model = make().eval()
    if name == "attention in one matrix":
        model.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True).eval()
        drawn(model)
    return model, more


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("residual", "norm"), [("readers", "l1"), ("stream", "l2")])
def test_edges_are_followed(name: str, residual: str, norm: str) -> None:
    model, more = _made(name)
    options = {"scope": "all", "residual": residual, "norm": norm, **more}
    live = live_graph(model, **options)
    assert_same(live, model, **options)
    move_(model)
    assert_same(live, model, **options)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_match_differences(name: str) -> None:
    model, more = _made(name)
    model = model.double()
    more = {k: v.double() if v.is_floating_point() else v for k, v in more.items()}
    which = (2, 3, 4, 5)

    def value() -> Tensor:
        return ncut.laplacian_eigenvalues(model, which, scope="all", **more).sum()

    value().backward()
    # Every weight of two axes and more has edges.
    without = [n for n, p in model.named_parameters() if p.ndim > 1 and p.grad is None]
    assert without == []
    known = [p for p in model.parameters() if p.grad is not None and p.grad.any()]
    generator = torch.Generator().manual_seed(0)
    for parameter in known:
        _assert_slope(value, [parameter], generator)


# --- ties ---------------------------------------------------------------------------------------


def _ties(model: nn.Module, **options: Any) -> list[str]:
    return [block.tie for block in ncut.graph(model, scope="all", **options).blocks if block.tie]


def test_a_table_that_is_also_the_head_is_a_tie() -> None:
    assert _ties(TiedWords(), **WORDS) == ["words", "words"]
    model = TiedWords()
    # Another parameter in the same memory is the same weights.
    model.head.weight = nn.Parameter(model.words.weight.data)
    assert _ties(model, **WORDS) == ["words", "words"]


def test_equal_weights_of_two_parameters_are_no_tie() -> None:
    """As in layers copied from one and not trained yet."""
    model = mlp(5, 5, 5, 5)
    model[2], model[4] = copy.deepcopy(model[0]), copy.deepcopy(model[0])
    assert _ties(model) == []
    again = nn.Sequential(model[0], nn.ReLU(), model[0], nn.ReLU(), model[2])
    assert _ties(again) == ["0", "0"]
    # A list of arrays does not tell.
    arrays = [model[at].weight.detach().numpy().T for at in (0, 2, 4)]
    assert [block.tie for block in ncut.graph(arrays).blocks] == ["w0"] * 3


def test_slices_of_one_parameter_are_no_tie() -> None:
    def middle(m: Any, h: Tensor) -> Tensor:
        return torch.tanh(h @ m.w[0]) @ m.w[1]

    model = Around(middle, WIDTH, {"w": (2, WIDTH, WIDTH)})
    with torch.no_grad():
        model.w[1] = model.w[0]
    assert _ties(model, **ROWS) == []


def test_experts_that_begin_as_copies_of_one_are_several() -> None:
    model = StackedExperts()
    expected = [layer.size for layer in ncut.graph(model, **ROWS).layers]
    with torch.no_grad():
        model.up[1], model.down[1] = model.up[0], model.down[0]
    assert [layer.size for layer in ncut.graph(model, **ROWS).layers] == expected


def test_a_matrix_that_is_repeated_is_one() -> None:
    def middle(m: Any, h: Tensor) -> Tensor:
        return torch.bmm(h[:, None], m.w.expand(len(h), *m.w.shape))[:, 0]

    model = Around(middle, 5, {"w": (WIDTH, 5)})
    assert_same(live_graph(model, **ROWS), model, **ROWS)
    assert [layer.size for layer in ncut.graph(model, **ROWS).layers] == [6, 6, 5, 4]


def test_weights_computed_twice_from_one_parameter_are_tied() -> None:
    layer = parametrizations.weight_norm(nn.Linear(5, 5))
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(5, 3))
    assert _ties(model) == ["0", "0"]


def test_a_transformer_names_its_tied_weights() -> None:
    model = transformer("gpt2")
    assert set(_ties(model)) == {"transformer.wte"}


# --- what cannot be followed --------------------------------------------------------------------


def test_a_part_of_a_parameter_that_no_module_holds_is_refused() -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both = nn.Linear(WIDTH, 10)
            self.parts = [self.both.weight.data[:5], self.both.weight.data[5:]]
            self.last = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(x @ self.parts[0].T))  # type: ignore[no-any-return]

    with pytest.raises(InputError, match="cannot follow"):
        ncut.laplacian_eigenvalues(Kept(), **ROWS)


def test_weights_that_a_rule_computes_with_numpy_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cubed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ (self.weight**3).T

    def rule(call: Any) -> Any:
        weight = call.tracing.weight(call.module.weight)
        named = {"name": weight.name, "parameters": weight.parameters}
        return call.program.linear(call.signal(), np.asarray(weight.values).T ** 3, **named)

    from ncut.extract import registry

    monkeypatch.setattr(registry, "declared", {**registry.declared})
    model = nn.Sequential(Cubed(4, 5), nn.ReLU(), nn.Linear(5, 3))
    registry.register_operation(Cubed, rule)
    from ncut.extract.readers.traced import rules

    monkeypatch.setattr(rules, "declared", registry.declared)
    assert [layer.size for layer in ncut.graph(model).layers] == [4, 5, 3]
    with pytest.raises(InputError, match="cannot follow"):
        ncut.laplacian_eigenvalues(model)
