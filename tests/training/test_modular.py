"""CutDropout and PartitionAnnealing: weights, gradients, resuming, effects."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

import ncut
from ncut.errors import InputError

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from models import mlp  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

from ncut.training.batches import joined  # noqa: E402

K = 3


def network(seed: int = 0) -> nn.Sequential:
    return mlp(9, 12, 12, 6, seed=seed)


def by_hand(model: nn.Sequential, labels: Any, factor: float, x: Any) -> Any:
    """The network with weights between clusters times a factor."""
    linear = [module for module in model if isinstance(module, nn.Linear)]
    at = 0
    for number, layer in enumerate(linear):
        n_in, n_out = layer.in_features, layer.out_features
        ours, theirs = labels[at : at + n_in], labels[at + n_in : at + n_in + n_out]
        scale = torch.where(theirs[:, None] == ours, 1.0, factor).to(layer.weight.dtype)
        x = nn.functional.linear(x, layer.weight * scale, layer.bias)
        x = x.relu() if number < len(linear) - 1 else x
        at += n_in
    return x


def test_the_default_partition() -> None:
    modules = ncut.CutDropout(network(), K)
    assert modules.layers == {
        "input": slice(0, 9), "0": slice(9, 21), "2": slice(21, 33), "4": slice(33, 39)
    }  # fmt: skip
    assert np.bincount(modules.labels[:9]).tolist() == [3] * 3
    assert modules.labels[9:21].tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("k", [2, 3, 4, 5])
@pytest.mark.parametrize("width", [8, 14, 28, 32])
def test_each_cluster_sees_all_of_an_image(width: int, k: int) -> None:
    modules = ncut.CutDropout(mlp(width * width, 2 * k, 5), k)
    image = modules.labels[: width * width].reshape(width, width).numpy()
    counts = np.bincount(image.ravel())
    assert counts.max() - counts.min() <= 1
    half = width // 2
    for part in (
        image[:half, :half],
        image[half:, :half],
        image[:half, half:],
        image[half:, half:],
    ):
        share = np.bincount(part.ravel(), minlength=k) / part.size
        assert share.min() > 0.6 / k
    for lines in (image, image.T):
        assert min(len(np.unique(lines[at : at + 2])) for at in range(width - 1)) == k


def test_a_part_of_each_batch_runs_without_cut_weights() -> None:
    model, x = network(), torch.randn(10, 9)
    modules = ncut.CutDropout(model, K, share=0.3)
    apart, intact = by_hand(model, modules.labels, 0.0, x), model(x)
    torch.testing.assert_close(modules.apart(x), apart)
    found = modules(x)
    torch.testing.assert_close(found[:3], apart[:3])
    torch.testing.assert_close(found[3:], intact[3:])
    assert torch.equal(modules.eval()(x), intact)


def test_fractions_of_an_example_are_carried_over() -> None:
    model = network()
    modules = ncut.CutDropout(model, K, share=0.5)
    x = torch.randn(1, 9)
    intact, apart = model(x), modules.apart(x)
    for expected in (intact, apart, intact, apart):
        assert torch.equal(modules(x), expected)


def convolutions() -> tuple[nn.Module, Any]:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 2), nn.Tanh(),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip
    prune.random_unstructured(model[3], "weight", 0.3)
    return model, torch.randn(4, 2, 5, 5, dtype=torch.float64)


def attention() -> tuple[nn.Module, Any]:
    block = nn.TransformerEncoderLayer(6, 3, 9, dropout=0.0, batch_first=True, activation="gelu")
    return nn.Sequential(block, nn.Linear(6, 3)), torch.randn(4, 3, 6, dtype=torch.float64)


GRADIENTS: dict[str, Any] = {
    "a network": lambda: (network(), torch.randn(4, 9, dtype=torch.float64)),
    "convolutions": convolutions,
    "attention": attention,
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("kind", ["cut", "annealing"])
def test_gradients(kind: str, name: str) -> None:
    """Gradients of outputs and penalty, by finite differences."""
    torch.manual_seed(0)
    model, x = GRADIENTS[name]()
    model = model.double()
    wrapped: Any
    if kind == "cut":
        wrapped = ncut.CutDropout(model, K, weight=0.7, example_inputs=x)
    else:
        wrapped = ncut.PartitionAnnealing(model, K, end_step=4, example_inputs=x)
        for _ in range(2):
            wrapped.step()
        assert wrapped.factor == 0.75
    for part in wrapped.train().modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()  # a pass must not change its averages

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrapped = wrapped

        def forward(self, x: Any) -> Any:
            return wrapped(x).tanh().sum() + 3 * wrapped.between()

    whole = Whole()
    names = [name for name, _ in whole.named_parameters()]

    def loss(*parameters: Any) -> Any:
        return torch.func.functional_call(whole, dict(zip(names, parameters, strict=True)), (x,))

    parameters = [p.detach().requires_grad_() for p in whole.parameters()]
    assert torch.autograd.gradcheck(loss, parameters)


def test_the_penalty() -> None:
    model = network().double()
    modules = ncut.CutDropout(model, K, weight=0.7)
    labels = modules.labels
    shares, at = [], 0
    for layer in (model[0], model[2], model[4]):
        n_out, n_in = layer.weight.shape
        other = labels[at + n_in : at + n_in + n_out][:, None] != labels[at : at + n_in]
        squares = layer.weight.detach() ** 2
        shares.append(float(squares[other].sum() / squares.sum()))
        at += n_in
    assert float(modules.between().detach()) == pytest.approx(np.mean(shares))
    assert float(modules.penalty().detach()) == pytest.approx(0.7 * np.mean(shares))
    modules.penalty().backward()
    step = 1e-6
    with torch.no_grad():
        before = float(modules.penalty())
        model[2].weight[3, 7] += step
        slope = (float(modules.penalty()) - before) / step
    assert float(model[2].weight.grad[3, 7]) == pytest.approx(slope, rel=1e-4)


def test_annealing_follows_its_schedule() -> None:
    model, x = network(), torch.randn(5, 9)
    annealed = ncut.PartitionAnnealing(model, K, end_step=12, begin_step=2, free=["0"])
    assert [annealed.factor_at(step) for step in (0, 2, 7, 12, 50)] == [1, 1, 0.5, 0, 0]
    for _ in range(8):
        annealed.step()
    assert annealed.factor == 0.5
    free = copy.deepcopy(model)
    expected = free[0](x).relu()
    tail = nn.Sequential(free[2], nn.ReLU(), free[4])
    expected = by_hand(tail, annealed.labels[9:], 0.5, expected)
    torch.testing.assert_close(annealed(x), expected)
    for _ in range(5):
        annealed.step()
    last = annealed(x)
    assert annealed.cut_() is model
    torch.testing.assert_close(model(x), last)
    graph = ncut.graph([model[2].weight.detach().T, model[4].weight.detach().T])
    assert ncut.normalized_cut(graph, annealed.labels[9:].numpy()) == pytest.approx(0)


def trained(wrapped: Any, optimizer: Any, steps: range) -> None:
    for number in steps:
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(7, 9, generator=generator)
        wrapped.step()
        loss = (wrapped(x) - x[:, :6]).square().mean()
        if isinstance(wrapped, ncut.CutDropout):
            loss = loss + wrapped.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


MAKES = {
    "cut": lambda model: ncut.CutDropout(model, K, share=lambda step: 0.5 * (step > 3)),
    "learned": lambda model: ncut.CutDropout(model, K, relabel_every=5),
    "annealing": lambda model: ncut.PartitionAnnealing(model, K, end_step=15, free=["4"]),
}


@pytest.mark.parametrize("name", MAKES)
def test_a_resumed_training_equals_an_uninterrupted_one(name: str) -> None:
    def made() -> tuple[Any, Any]:
        wrapped = MAKES[name](network())
        return wrapped, torch.optim.Adam(wrapped.parameters(), 1e-2)

    whole, optimizer = made()
    trained(whole, optimizer, range(12))
    saved = io.BytesIO()
    torch.save((whole.state_dict(), optimizer.state_dict()), saved)
    trained(whole, optimizer, range(12, 24))
    saved.seek(0)
    states = torch.load(saved, weights_only=False)
    again, optimizer = made()
    again.load_state_dict(states[0])
    optimizer.load_state_dict(states[1])
    trained(again, optimizer, range(12, 24))
    assert torch.equal(again.labels, whole.labels)
    for ours, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_better_partition_of_the_same_sizes_is_found() -> None:
    rng = np.random.default_rng(0)
    model = mlp(12, 12, 12)
    hidden = np.concatenate([rng.permutation(np.arange(12) * 3 // 12) for _ in range(3)])
    with torch.no_grad():
        for number, layer in enumerate((model[0], model[2])):
            ours, theirs = hidden[12 * number :][:12], hidden[12 * (number + 1) :][:12]
            layer.weight.copy_(torch.from_numpy(0.1 + 1.0 * (theirs[:, None] == ours)))
    start = hidden.copy()
    start[[0, 5, 14, 20, 30]] = (start[[0, 5, 14, 20, 30]] + 1) % 3
    modules = ncut.CutDropout(model, K, labels=start)
    counts = [np.bincount(start[at : at + 12], minlength=3) for at in (0, 12, 24)]
    before = float(modules.between().detach())
    assert modules.relabel() > 0
    found = modules.labels.numpy()
    assert [np.bincount(found[at : at + 12], minlength=3).tolist() for at in (0, 12, 24)] == [
        count.tolist() for count in counts
    ]
    assert float(modules.between().detach()) < before


def test_modules_are_learned_and_found() -> None:
    """Cut-dropout gives clusters that ncut finds by itself and that work alone."""
    data = pytest.importorskip("sklearn.datasets", reason="pip install scikit-learn").load_digits()
    x = torch.tensor(data.data / 16, dtype=torch.float32)
    target = torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    modules = ncut.CutDropout(model, 2, weight=2.0)
    optimizer = torch.optim.Adam(modules.parameters(), 5e-3)
    for _ in range(300):
        modules.step()
        rows = torch.randint(0, len(x), (64,))
        loss = nn.functional.cross_entropy(modules(x[rows]), target[rows]) + modules.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def accuracy(network: Any) -> float:
        with torch.no_grad():
            return float((network(x).argmax(1) == target).double().mean())

    report = ncut.analyze(model, k=2, shuffles=0, refine=True)
    found = report.separate(accuracy)
    assert found.score > 0.9
    assert found.kept is not None
    assert found.kept > 0.9
    assert found.p_value == pytest.approx(1 / 21)
    assert found.worst_layer is not None
    assert found.worst_layer > 1.8


def test_outputs_are_put_together() -> None:
    made = joined(
        {"a": torch.zeros(2, 3), "loss": torch.tensor(1.0), "no": None},
        {"a": torch.ones(1, 3), "loss": torch.tensor(4.0), "no": None},
        2, 1,
    )  # fmt: skip
    assert made["a"].shape == (3, 3)
    assert float(made["loss"]) == 2.0
    assert made["no"] is None
    with pytest.raises(InputError, match="cannot be put together"):
        joined(torch.zeros(4, 2), torch.zeros(4, 2), 2, 1)


def test_a_transformer_with_heads() -> None:
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = transformers.GPT2Config(n_layer=1, n_embd=16, n_head=4, vocab_size=20, n_positions=8)
    model = transformers.GPT2LMHeadModel(config)
    modules = ncut.CutDropout(model, 2, free=["*wte*", "*wpe*", "lm_head"])
    ids = torch.randint(0, 20, (4, 6))
    out = modules(input_ids=ids, labels=ids)
    assert out.logits.shape == (4, 6, 20)
    out.loss.backward()
    block = model.transformer.h[0]
    modules.cut_()
    # Queries, keys and values of two of the four heads read one half of the stream.
    cut = (block.attn.c_attn.weight == 0).reshape(2, 8, 3, 2, 8).all(4).all(1)
    assert cut.tolist() == [[[False, True]] * 3, [[True, False]] * 3]
    cut = (block.attn.c_proj.weight == 0).reshape(2, 8, 2, 8).all(3).all(1)
    assert cut.tolist() == [[False, True], [True, False]]


def test_a_pruned_model() -> None:
    model = network()
    prune.l1_unstructured(model[2], "weight", amount=0.5)
    modules = ncut.CutDropout(model, K)
    x = torch.randn(4, 9)
    expected = modules.apart(x)
    modules.cut_()
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 1}, "k: must be a whole number from 2"),
        ({"share": 1.5}, "share: must be a number from 0 to 1"),
        (
            {"weight": lambda step: None},
            "weight: must be a number of at least 0, got None",
        ),
        ({"relabel_every": -1}, "relabel_every: must be a whole number"),
        ({"free": ["nothing"]}, "free: 'nothing' matches no layer"),
        ({"free": "0"}, "free: must be a sequence"),
        ({"free": ["*"]}, "labels: no weight is between two clusters"),
        ({"labels": [0, 1]}, "labels: 'labels' needs 39 whole numbers"),
        ({"labels": {"0": [7] * 12}}, "labels: must be below k"),
        ({"labels": {"x": [0]}}, "labels: no layer 'x'"),
        ({"model": 3}, "model: must be a torch.nn.Module"),
        ({"model": nn.DataParallel(network())}, "wrap this module in it instead"),
    ],
)
def test_bad_arguments(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ncut.CutDropout(**({"model": network(), "k": K} | change))
    assert message in str(caught.value)


def test_weights_that_are_computed_are_refused() -> None:
    model = network()
    parametrizations.weight_norm(model[2])
    with pytest.raises(InputError, match="'2' computes its weight"):
        ncut.PartitionAnnealing(model, K, end_step=3)
