"""Models that change after they were read: followed correctly, or refused by name."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from models import mlp
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import ncut
from ncut.errors import InputError
from ncut.training.live_graph import live_graphs

NUMBERS = (2, 3, 4)


def dense_mean(model: nn.Module, **options: Any) -> float:
    """Mean of the eigenvalues of the graph that `ncut.graph` reads, by LAPACK."""
    adjacency = ncut.graph(model, **options).adjacency.toarray().astype(float)
    kept = adjacency.sum(1) > 0
    adjacency = adjacency[kept][:, kept]
    scale = adjacency.sum(1) ** -0.5
    values = np.linalg.eigvalsh(np.eye(len(adjacency)) - scale[:, None] * adjacency * scale)
    return float(values[[number - 1 for number in NUMBERS]].mean())


def regularizer_of(model: nn.Module, **options: Any) -> ncut.EigenvalueRegularizer:
    return ncut.EigenvalueRegularizer(
        model, NUMBERS, 1.0, tolerance=1e-9, disconnect="ignore", **options
    )


class TiedCoder(nn.Module):
    """An encoder and a decoder with one weight, both of them `nn.Linear`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(9, 9), nn.Linear(9, 9)
        self.b.weight = self.a.weight
        self.out = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.relu(self.b(torch.relu(self.a(x)))))
        return out


def moved(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def grown(model: nn.Module) -> None:
    model[2].weight.data = torch.rand(14, 12, dtype=torch.float64)


def shrunk_input(model: nn.Module) -> None:
    model[0].weight.data = model[0].weight.data[:, :7].clone()


def pruned(model: nn.Module) -> None:
    prune.l1_unstructured(model[2], "weight", amount=0.5)


def normed(model: nn.Module) -> None:
    parametrizations.weight_norm(model[2])


def assigned(model: nn.Module) -> None:
    state = {name: 2 * value + 0.1 for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def frozen(model: nn.Module) -> None:
    model[0].requires_grad_(False)


def new_parameter(model: nn.Module) -> None:
    model[2].weight = nn.Parameter(torch.rand(12, 12, dtype=torch.float64))


@pytest.mark.parametrize(
    "change", [moved, pruned, normed, assigned, frozen, new_parameter], ids=lambda f: f.__name__
)
def test_a_changed_model_is_followed(change: Any) -> None:
    model = mlp(9, 12, 12, 6).double()
    regularizer = regularizer_of(model)
    modules = None if change is normed else ncut.CutDropout(model, 3)
    change(model)
    term = regularizer()
    assert float(term.detach()) == pytest.approx(dense_mean(model), abs=1e-9)
    term.backward()
    for name, parameter in model.named_parameters():
        wanted = "bias" not in name and parameter.requires_grad
        assert (parameter.grad is not None and bool(parameter.grad.any())) == wanted, name
    if modules is not None:
        again = ncut.CutDropout(model, 3)
        x = torch.rand(4, 9, dtype=torch.float64)
        torch.testing.assert_close(modules.apart(x), again.apart(x))
        torch.testing.assert_close(modules.between(), again.between())


@pytest.mark.parametrize("change", [grown, shrunk_input], ids=lambda f: f.__name__)
def test_another_shape_is_refused(change: Any) -> None:
    model = mlp(9, 12, 12, 6).double()
    made = [
        regularizer_of(model),
        ncut.SoftCutRegularizer(model, 3),
        ncut.PartitionRegularizer(model, 3),
        ncut.CutDropout(model, 3).penalty,
    ]
    change(model)
    for term in made:
        with pytest.raises(InputError, match=r"^model: '?[02]\.weight'? .*shape \(1?[249], \d+\)"):
            term()


def test_weights_that_grew_in_a_part_of_a_tensor_are_refused() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True).double()
    x = torch.rand(1, 3, 8, dtype=torch.float64)
    regularizer = regularizer_of(model, example_inputs=x, residual="stream")
    assert regularizer().requires_grad
    weight = model.self_attn.in_proj_weight
    weight.data = torch.rand(30, 8, dtype=torch.float64)
    with pytest.raises(InputError, match=r"self_attn\.in_proj_weight has shape \(30, 8\)"):
        regularizer()


def test_tied_weights_get_one_gradient() -> None:
    model = TiedCoder().double()
    regularizer = regularizer_of(model)
    moved(model)
    term = regularizer()
    assert float(term.detach()) == pytest.approx(dense_mean(model), abs=1e-9)
    term.backward()
    direction = torch.rand(9, 9, dtype=torch.float64)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            model.a.weight += step * direction
            values.append(dense_mean(model))
            model.a.weight -= step * direction
    slope = float((model.a.weight.grad * direction).sum())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4)


def test_tied_weights_that_are_untied_are_refused() -> None:
    model = TiedCoder()
    regularizer = regularizer_of(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert model.a.weight is not model.b.weight
    with pytest.raises(InputError, match=r"^model: 'a.weight' and 'b.weight' were one tensor"):
        regularizer()


def test_tied_weights_are_cut_where_any_of_their_edges_is() -> None:
    model = TiedCoder()
    modules = ncut.CutDropout(model, 3)
    x = torch.rand(5, 9)
    apart = modules.apart(x)
    modules.cut_()
    torch.testing.assert_close(model(x), apart)
    assert float(modules.between().detach()) == 0


@pytest.mark.parametrize("kind", ["spectral_norm", "orthogonal", "noise"])
def test_reading_in_training_mode_leaves_states_and_generators_alone(kind: str) -> None:
    class Noise(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight + 0.01 * torch.rand_like(weight)

    model = mlp(9, 12, 6)
    if kind == "noise":
        parametrize.register_parametrization(model[0], "weight", Noise())
    else:
        getattr(parametrizations, kind)(model[0])
    model.train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    regularizer = ncut.EigenvalueRegularizer(model, disconnect="ignore")
    regularizer().backward()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_modes_of_a_parametrization_are_restored_after_an_error() -> None:
    class Failing(nn.Module):
        fails = False

        def forward(self, weight: Tensor) -> Tensor:
            if self.fails:
                raise RuntimeError("no weight today")
            return weight

    model = mlp(9, 12, 6)
    parametrize.register_parametrization(model[0], "weight", Failing())
    regularizer = regularizer_of(model)
    Failing.fails = True
    with pytest.raises(RuntimeError, match="no weight today"):
        regularizer()
    assert all(module.training for module in model.modules())


def test_gradients_accumulate() -> None:
    model = mlp(9, 12, 6).double()
    regularizer = regularizer_of(model)
    regularizer.step()
    regularizer().backward()
    once = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    regularizer().backward()
    twice = [p.grad for p in model.parameters() if p.grad is not None]
    for first, both in zip(once, twice, strict=True):
        torch.testing.assert_close(both, 2 * first, rtol=1e-6, atol=1e-9)
    assert regularizer.n_steps == 1


def test_cut_dropout_under_autocast_and_compiled() -> None:
    model = mlp(9, 12, 6)
    modules = ncut.CutDropout(model, 3)
    x = torch.rand(6, 9)
    expected = modules(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = modules(x)
        penalty = modules.penalty()
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.05)
    assert float(penalty.detach()) == pytest.approx(float(modules.penalty().detach()))
    compiled = torch.compile(modules, backend="eager")
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.parametrize("kind", ["cut", "annealing"])
def test_modules_can_be_pickled_and_copied(kind: str) -> None:
    model = mlp(9, 12, 6)
    made: Any = ncut.CutDropout(model, 3, labels={"0": np.arange(12) % 3})
    if kind == "annealing":
        made = ncut.PartitionAnnealing(model, 3, end_step=4)
    made.step()
    x = torch.rand(5, 9)
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for again in (pickle.loads(pickle.dumps(made)), copy.deepcopy(made), loaded):
        assert again.n_steps == 1
        assert again.model is not model
        torch.testing.assert_close(again.apart(x), made.apart(x))


def test_transforms_of_torch_func_are_refused() -> None:
    model = mlp(9, 12, 6)
    regularizer = regularizer_of(model)
    weights = [torch.rand(9, 12), torch.rand(12, 6)]

    def penalty(first: Tensor) -> Tensor:
        return ncut.laplacian_eigenvalues([first, weights[1]]).sum()

    for call in (
        lambda: torch.func.grad(penalty)(weights[0]),
        lambda: torch.func.vmap(lambda x: model(x).sum() + regularizer())(torch.rand(3, 9)),
        lambda: torch.func.jacrev(penalty)(weights[0]),
    ):
        with pytest.raises(InputError, match=r"^torch.func: its transforms"):
            call()


class Sharded(Tensor):
    """Stands in for the class that FSDP2 puts in place of parameters, by its name."""


Sharded.__name__ = "DTensor"


def sharded(model: nn.Module) -> None:
    data = torch.rand(12, 12).as_subclass(Sharded)
    model[2].weight = nn.Parameter(data)


def test_sharded_weights_are_refused_by_name() -> None:
    model = mlp(9, 12, 12, 6)
    regularizer, modules = regularizer_of(model), ncut.CutDropout(model, 3)
    sharded(model)
    for call in (
        regularizer,
        modules.penalty,
        lambda: live_graphs(model),
        lambda: ncut.CutDropout(model, 3),
        lambda: ncut.laplacian_eigenvalues(model),
    ):
        with pytest.raises(InputError, match=r"^model: '2.weight' is a DTensor, of which"):
            call()


KINDS: dict[str, Any] = {
    "eigenvalues": ncut.EigenvalueRegularizer,
    "soft cut": lambda model: ncut.SoftCutRegularizer(model, 3),
    "partition": lambda model: ncut.PartitionRegularizer(model, 3),
}


@pytest.mark.parametrize("make", [*KINDS.values(), lambda model: ncut.CutDropout(model, 3)])
def test_partitioned_parameters_are_refused(make: Any) -> None:
    """DeepSpeed ZeRO-3 leaves empty vectors with an attribute, FSDP those without."""
    model: Any = mlp(9, 12, 6)
    made = make(model)
    whole = model[0].weight.data
    for data, attribute, kind in (
        (torch.empty(0), {}, "parameter without entries"),
        (torch.empty(0), {"ds_id": 3}, "parameter of DeepSpeed ZeRO-3"),
        (whole, {}, "parameter of DeepSpeed ZeRO-3"),  # gathered, but only for now
    ):
        model[0].weight.data = data
        vars(model[0].weight).update(attribute)
        for call in (lambda: make(model), getattr(made, "penalty", made)):
            with pytest.raises(InputError, match=f"^model: '0.weight' is a {kind}, of which"):
                call()


def test_models_wrapped_by_fsdp_are_refused_by_name() -> None:
    class FullyShardedDataParallel(nn.Sequential):
        """Stands in for FSDP's wrapper, by its name."""

    model = FullyShardedDataParallel(mlp(9, 12, 6))
    for make in (regularizer_of, lambda model: ncut.CutDropout(model, 3)):
        with pytest.raises(InputError, match=r"^model: 'the model' is a FullyShardedDataParallel"):
            make(model)


class Adapted(nn.Module):
    """A layer with an update of low rank, as LoRA makes it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Any) -> Any:
        return self.base_layer(x) + self.up(self.down(x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_replaced_layer_is_refused(kind: str) -> None:
    model = mlp(40, 50, 30, 20)
    regularizer = KINDS[kind](model)
    before = model[2]
    model[2] = nn.Linear(50, 30)
    with pytest.raises(InputError, match="'2' is a new Linear since the regularizer was made"):
        regularizer()
    model[2] = Adapted(before)
    with pytest.raises(InputError, match="'2' is a new Adapted since"):
        regularizer()
    model[2] = nn.Sequential(before)  # a wrapper without weights, as for checkpointing
    regularizer().backward()
    assert before.weight.grad is not None
    model[2] = before
    del model[4]
    with pytest.raises(InputError, match="'4' was removed since"):
        regularizer()


def test_a_replaced_norm_is_refused() -> None:
    model = nn.Sequential(nn.Linear(9, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)).eval()
    regularizer = regularizer_of(model)
    model[2] = nn.LeakyReLU()  # no weights: the graph is what it was
    regularizer()
    model[1] = nn.BatchNorm1d(8).eval()
    with pytest.raises(InputError, match="'1' is a new BatchNorm1d since"):
        regularizer()


def test_a_layer_that_is_not_penalized_may_be_replaced() -> None:
    model = mlp(40, 50, 50, 20)
    regularizer = ncut.EigenvalueRegularizer(model, layers=["0", "2"])
    model[4] = nn.Linear(50, 7)
    regularizer(model).backward()
    assert model[0].weight.grad is not None
    assert model[4].weight.grad is None


def test_groups_have_their_own_weights() -> None:
    model = mlp(9, 12, 12, 12, 6).double()
    first, last = regularizer_of(model, layers=["0"]), regularizer_of(model, layers=["4", "6"])
    values = [float(part().detach()) for part in (first, last)]
    groups: Any = {"0": 0.5, ("4", "6"): lambda step: 2.0 + step}
    both = regularizer_of(model, layers=groups)
    assert float(both().detach()) == pytest.approx(0.5 * values[0] + 2 * values[1])
    assert both.log()["value of 4, 6"] == pytest.approx(2 * values[1])
    term = both()
    assert float(term.detach()) == pytest.approx(0.5 * values[0] + 3 * values[1])
    term.backward()
    assert model[2].weight.grad is None
    assert model[0].weight.grad.any()
    assert model[6].weight.grad.any()
    own = first()
    model.zero_grad()
    own.backward()
    alone = model[0].weight.grad.clone()
    model.zero_grad()
    both().backward()
    torch.testing.assert_close(model[0].weight.grad, 0.5 * alone, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "layers: has no groups"),
        ({"0": -1.0}, r"layers\['0'\]: must be a number of at least 0, got -1.0"),
        ({"0": 1.0, "nothing": 1.0}, "layers: 'nothing' matches none of the graph's layers"),
        ({(): 1.0}, "layers: chooses no layer"),
        ([], "layers: chooses no layer"),
    ],
)
def test_bad_groups_are_refused(layers: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        ncut.EigenvalueRegularizer(mlp(9, 12, 6), layers=layers)


def test_more_than_fifteen_eigenvalues() -> None:
    model = mlp(60, 70, 80, 50).double()
    numbers = tuple(range(2, 31))
    adjacency = ncut.graph(model).adjacency.toarray()
    scale = adjacency.sum(1) ** -0.5
    exact = np.linalg.eigvalsh(np.eye(len(adjacency)) - scale[:, None] * adjacency * scale)
    found = ncut.laplacian_eigenvalues(model, numbers)
    np.testing.assert_allclose(found.detach(), exact[1:30], atol=1e-9)
    regularizer = ncut.EigenvalueRegularizer(model, numbers, 1.0, tolerance=1e-6)
    regularizer().backward()
    assert regularizer.n_restarts == 1
    blocks = [model[at].weight for at in (0, 2, 4)]
    (expected,) = torch.autograd.grad(ncut.laplacian_eigenvalues(model, numbers).mean(), blocks[:1])
    torch.testing.assert_close(blocks[0].grad, expected, rtol=1e-3, atol=1e-7)
    moved(model)
    with torch.no_grad():
        term = float(regularizer())
    assert term == pytest.approx(float(ncut.laplacian_eigenvalues(model, numbers).mean().detach()))


def test_gradcheck_of_many_eigenvalues() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = [
        torch.rand(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((30, 24), (24, 26))
    ]

    def total(*blocks: Tensor) -> Tensor:
        return ncut.laplacian_eigenvalues([*blocks], tuple(range(2, 21)), tolerance=1e-11).sum()

    assert torch.autograd.gradcheck(total, weights, fast_mode=True)
