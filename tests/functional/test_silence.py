"""silenced: the same outputs as with the readers' weights set to zero, and nothing left behind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from ncut.errors import InputError
from ncut.extract import read_graph
from ncut.functional import silenced
from ncut.types import Layer

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, prune  # noqa: E402

SCOPES = ("paper", "all")


def mlp():
    return nn.Sequential(
        nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3)
    )


def convnet():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(6, 6, 1, groups=6), nn.Sigmoid(), nn.Flatten(),
        nn.Linear(6 * 4, 5), nn.ReLU(), nn.Linear(5, 2),
    )  # fmt: skip


def pruned():
    model = mlp()
    for layer in (model[0], model[3], model[5]):
        prune.l1_unstructured(layer, "weight", amount=0.3)
    return model


def parametrized():
    model = mlp()
    parametrizations.weight_norm(model[3])
    parametrizations.spectral_norm(model[5])
    return model.eval()


MODELS = {"mlp": mlp, "conv": convnet, "pruned": pruned, "parametrized": parametrized}


def made(name):
    torch.manual_seed(3)
    model = MODELS[name]().eval()
    example = (torch.randn(7, 2, 4, 4) if name == "conv" else torch.randn(7, 5)).double()
    return model.double(), example


def reader_without(module, layer, neurons):
    """A plain copy of a layer with the weights from these neurons set to zero."""
    weight = module.weight.detach().clone()
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            positions = module.in_features // layer.size
            weight = weight.reshape(weight.shape[0], layer.size, positions)
            weight[:, neurons] = 0
            plain = nn.Linear(module.in_features, module.out_features)
            weight = weight.flatten(1)
        else:
            n_in, n_out = module.in_channels // module.groups, module.out_channels
            for neuron in neurons:
                group = neuron // n_in
                outputs = slice(
                    group * n_out // module.groups, (group + 1) * n_out // module.groups
                )
                weight[outputs, neuron % n_in] = 0
            plain = nn.Conv2d(
                module.in_channels, n_out, module.kernel_size, padding=module.padding,
                groups=module.groups,
            )  # fmt: skip
        plain.weight = nn.Parameter(weight)
        plain.bias = module.bias
    return plain


def with_zeros(model, layers, vertices):
    """The model with the outgoing weights of the vertices set to zero, layer by layer."""
    changed = copy.deepcopy(model)
    for layer in layers:
        inside = (vertices >= layer.start) & (vertices < layer.start + layer.size)
        neurons = (vertices[inside] - layer.start).tolist()
        if neurons:
            (reader,) = layer.read_by
            changed[int(reader)] = reader_without(model[int(reader)], layer, neurons)
    return changed


def hidden(graph):
    return np.concatenate([np.arange(x.start, x.start + x.size) for x in graph.layers if x.read_by])


def state(model):
    """Everything that silencing could leave behind."""
    return [
        (
            name,
            part.training,
            list(part._forward_pre_hooks),
            list(part._forward_hooks),
            list(part._forward_pre_hooks_with_kwargs),
            sorted(part.__dict__),
            [(key, id(value), value._version) for key, value in part._parameters.items()
             if value is not None],
        )
        for name, part in model.named_modules()
    ]  # fmt: skip


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", MODELS)
def test_a_module_outputs_the_same_as_without_the_weights(name, scope):
    model, example = made(name)
    layers = read_graph(model, scope=scope).layers
    rng = np.random.default_rng(1)
    everything = hidden(read_graph(model, scope=scope))
    before = state(model)
    with torch.no_grad():
        intact = model(example)
        for size in (1, 2, 5, everything.size):
            vertices = rng.choice(everything, size, replace=False)
            with silenced(model, layers, vertices) as silent:
                assert silent is model
                ours = silent(example)
            expected = with_zeros(model, layers, vertices)(example)
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
            assert not torch.equal(ours, intact)
        torch.testing.assert_close(model(example), intact, rtol=0, atol=0)
    assert state(model) == before


def test_each_neuron_alone():
    model, example = made("conv")
    graph = read_graph(model, scope="all")
    with torch.no_grad():
        for vertex in hidden(graph):
            with silenced(model, graph.layers, [vertex]):
                ours = model(example)
            expected = with_zeros(model, graph.layers, np.array([vertex]))(example)
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_unbatched_inputs_and_keyword_arguments():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv1d(2, 3, 2)
            self.b = nn.Conv1d(3, 4, 2)

        def forward(self, x):
            return self.b(input=torch.relu(self.a(x)))

    torch.manual_seed(0)
    model = Plain()
    layers = read_graph(model).layers
    batch = torch.randn(3, 2, 6)
    with silenced(model, layers, [1]), torch.no_grad():
        together = model(batch)
        torch.testing.assert_close(model(batch[0]), together[0])
        model.b.weight[:, 1] = 0
    torch.testing.assert_close(model(batch), together)


def test_infinite_values_are_not_read():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    layers = read_graph(model).layers
    with torch.no_grad():
        model[0].bias[0] = torch.inf
        with silenced(model, layers, [2]):
            assert torch.isfinite(model(torch.ones(1, 2))).all()
        assert not torch.isfinite(model(torch.ones(1, 2))).all()


def test_gradients_flow_through_the_other_neurons():
    model, example = made("mlp")
    layers = read_graph(model).layers
    with silenced(model, layers, [5, 6]):
        model(example).sum().backward()
    assert not model[3].weight.grad[:, :2].any()
    assert model[3].weight.grad[:, 2:].any()


def test_wrappers_and_compiled_models():
    model, example = made("mlp")
    layers = read_graph(model).layers
    with torch.no_grad(), silenced(model, layers, [6, 12]):
        expected = model(example)
    with torch.no_grad(), silenced(nn.DataParallel(model), layers, [6, 12]) as silent:
        torch.testing.assert_close(silent(example), expected)


@pytest.mark.filterwarnings("ignore")  # of torch's compiler about its own parts
def test_silencing_affects_compiled_models():
    model, example = made("mlp")
    layers = read_graph(model).layers
    compiled = torch.compile(model, backend="eager")
    outer = torch.compile(lambda x: model(x), backend="eager")
    with torch.no_grad():
        intact = compiled(example), outer(example)
        with silenced(model, layers, [6, 12]):
            expected = model(example)
        with silenced(compiled, layers, [6, 12]) as silent:
            torch.testing.assert_close(silent(example), expected)
            torch.testing.assert_close(outer(example), expected)
        torch.testing.assert_close((compiled(example), outer(example)), intact)


def test_the_module_is_restored_after_an_exception():
    model, example = made("mlp")
    model.train()
    model[1].eval()
    model[3].register_forward_pre_hook(lambda module, args: None)
    before = state(model)

    def fail():
        with silenced(model, layers, [5, 6, 12]):
            model(example)
            raise ZeroDivisionError

    layers = read_graph(model).layers
    with pytest.raises(ZeroDivisionError):
        fail()
    assert state(model) == before
    model[5] = nn.Identity()
    before = state(model)
    with pytest.raises(InputError, match="'5' is a Identity"), silenced(model, layers, [5, 12]):
        pass
    assert state(model) == before


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist, torch.from_numpy])
def test_a_list_of_matrices(kind):
    rng = np.random.default_rng(2)
    matrices = [rng.normal(size=shape) for shape in ((4, 5), (5, 6), (6, 2))]
    model = tuple(kind(matrix) for matrix in matrices)
    kept = copy.deepcopy(model)
    layers = read_graph(model).layers
    expected = [matrix.copy() for matrix in matrices]
    expected[0][1] = 0
    expected[1][[0, 3]] = 0
    with silenced(model, layers, [1, 4, 7]) as silent:
        assert isinstance(silent, list)
        assert silent[2] is model[2]
        for ours, theirs, given in zip(silent, expected, model, strict=True):
            assert isinstance(ours, list | np.ndarray if isinstance(given, list) else type(given))
            assert_array_equal(np.asarray(ours), theirs)
    for ours, theirs in zip(model, kept, strict=True):
        assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_lists_with_convolutions_and_flattened_layers():
    model, _ = made("conv")
    weights = [model[at].weight.detach().numpy() for at in (0, 3, 5)]
    weights += [model[at].weight.detach().numpy().T for at in (8, 10)]
    weights[1] = np.random.default_rng(0).normal(size=(6, 4, 3, 3))  # a list knows no groups of 2
    layers = read_graph(weights, scope="all").layers
    assert [layer.size for layer in layers] == [2, 4, 6, 6, 5, 2]
    with silenced(weights, layers, [0, 3, 8, 14, 20]) as silent:
        expected = [weight.copy() for weight in weights]
        expected[0][:, 0] = 0
        expected[1][:, 1] = 0
        expected[2][2, 0] = 0
        expected[3].reshape(6, 4, 5)[2] = 0
        expected[4][2] = 0
        for ours, theirs in zip(silent, expected, strict=True):
            assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["mlp", "conv", "pruned"])
def test_a_state_dict_has_the_torch_layout(name):
    model, example = made(name)
    if name == "conv":  # names and shapes tell no groups but depthwise ones
        model[3] = nn.Conv2d(4, 6, 3, padding=1).double()
    graph = read_graph(model, scope="all")
    weights = model.state_dict()
    layers = read_graph(weights, scope="all").layers
    vertices = np.random.default_rng(4).choice(hidden(graph), 7, replace=False)
    with silenced(weights, layers, vertices) as silent:
        assert isinstance(silent, dict)
        changed, _ = made(name)
        changed[3] = changed[3] if name != "conv" else copy.deepcopy(model[3])
        changed.load_state_dict(silent)
    with torch.no_grad(), silenced(model, graph.layers, vertices):
        torch.testing.assert_close(changed(example), model(example), rtol=0, atol=1e-12)
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())


def test_a_mapping_of_plain_names():
    rng = np.random.default_rng(5)
    model = {"first": rng.normal(size=(3, 4)), "second": rng.normal(size=(4, 2))}
    layers = read_graph(model).layers
    with silenced(model, layers, [4]) as silent:
        assert silent["first"] is model["first"]
        assert_array_equal(np.flatnonzero(~silent["second"].any(axis=1)), [1])
        assert_array_equal(silent["second"][[0, 2, 3]], model["second"][[0, 2, 3]])
    assert model["second"].all()
    bare = {"weight": rng.normal(size=(2, 3)), "out.weight": rng.normal(size=(4, 2))}
    with silenced(bare, read_graph(bare).layers, [0, 3]) as silent:
        assert_array_equal(silent["weight"][:, 0], 0)
        assert_array_equal(silent["out.weight"][:, 0], 0)


def test_silencing_nothing_changes_nothing():
    model, example = made("mlp")
    layers = read_graph(model).layers
    with torch.no_grad(), silenced(model, layers, []):
        silent = model(example)
    torch.testing.assert_close(silent, model(example), rtol=0, atol=0)


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 4)
        self.twice = nn.Linear(4, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.twice(torch.relu(self.first(x))))
        return self.last(torch.relu(self.twice(x)))


def test_a_module_that_reads_two_layers_is_refused():
    model = Shared()
    layers = read_graph(model).layers
    for vertex in (2, 6):
        with (
            pytest.raises(InputError, match="'twice' reads the values of several layers"),
            silenced(model, layers, [vertex]),
        ):
            pass
    with silenced(model, layers, [11]):
        model(torch.ones(1, 2))


LAYERS = (
    Layer("input", 0, 2, read_by=("0",)),
    Layer("0", 2, 3, read_by=("2",)),
    Layer("2", 5, 1),
)


def small():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


@pytest.mark.parametrize(
    ("model", "vertices", "message"),
    [
        (small, [5], "nothing reads the values of layer '2'"),
        (small, [6], "between 0 and 5"),
        (small, [-1], "between 0 and 5"),
        (small, np.ones(6, dtype=bool), "mask"),
        (small, [1.0], "vertices: must be the numbers"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), [2], "has no module '2'"),
        (lambda: nn.Linear(2, 3), [2], "has no module '2'"),
        (lambda: nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), [2], "3 neurons"),
        (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Tanh()), [2], "'2' is a Tanh"),
        (lambda: sparse.eye_array(6, format="csr"), [2], "csr_array cannot be silenced"),
        (lambda: read_graph([np.ones((2, 3)), np.ones((3, 1))]), [2], "NeuronGraph cannot"),
        (lambda: "model.npz", [2], "pass the model itself"),
        (lambda: ["a.npy", "b.npy"], [2], "paths"),
        (lambda: [np.ones((2, 3)), np.ones((3, 1))], [2], "no '2'"),
        (lambda: {"state_dict": {"2.weight": np.ones((1, 3))}}, [2], "no weights of '2'"),
        (lambda: {"2.weight": np.ones((1, 4))}, [2], "do not read the 3 neurons"),
        (lambda: {"2.weight": np.ones((1, 2, 1))}, [2], "do not read the 3 neurons"),
        (lambda: {"2.weight": np.ones((2, 1, 1))}, [2], "do not read the 3 neurons"),
        (lambda: {"2.weight": np.ones(3)}, [2], "do not read the 3 neurons"),
    ],
)
def test_refused(model, vertices, message):
    with pytest.raises(InputError, match=message), silenced(model(), LAYERS, vertices):
        pass
