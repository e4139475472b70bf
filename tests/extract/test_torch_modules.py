"""torch modules: what is read, what is refused, and that the module stays as it was."""

from __future__ import annotations

import copy
import warnings

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402


def dense(graph, number):
    weights = graph.blocks[number].weights
    return weights if isinstance(weights, np.ndarray) else weights.toarray()


def layers_of(graph):
    return [(layer.name, layer.size) for layer in graph.layers]


def magnitude(layer):
    """|w| of a linear layer as (in, out), channel norms of a convolution as (in, out)."""
    weight = layer.weight.detach().abs().numpy()
    return weight.reshape(*weight.shape[:2], -1).sum(axis=2).T


def trained(norm):
    """Give a batch norm statistics and weights that are not 0 and 1."""
    generator = torch.Generator().manual_seed(norm.num_features)
    with torch.no_grad():
        if norm.running_var is not None:
            norm.running_var.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
        if norm.weight is not None:
            norm.weight.copy_(torch.randn(norm.num_features, generator=generator))
    return norm


def factor(norm):
    gamma = 1.0 if norm.weight is None else norm.weight.detach().numpy()
    return np.abs(gamma / np.sqrt(norm.running_var.numpy() + norm.eps))


class Handwritten(nn.Module):
    """LeNet-like, with functions in place of modules."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3, padding=1)
        self.conv2 = nn.Conv2d(3, 4, 3, padding=1)
        self.bn2 = trained(nn.BatchNorm2d(4))
        self.fc1 = nn.Linear(4 * 4, 6)
        self.fc2 = nn.Linear(6, 2)

    def forward(self, x, temperature=None, return_hidden=False):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.dropout(torch.relu(self.bn2(self.conv2(x))), 0.1, self.training)
        x = F.adaptive_avg_pool2d(x, (2, 2))
        x = x.view(x.size(0), -1)
        if return_hidden:
            return x
        x = self.fc1(x).clamp(min=0)
        if temperature is not None:
            x = x / temperature
        return F.log_softmax(self.fc2(x), dim=1)


def test_sequential_mlp():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))
    graph = read_graph(model)
    assert graph.name == "Sequential"
    assert layers_of(graph) == [("input", 4), ("1", 3), ("4", 2)]
    assert_array_equal(dense(graph, 0), magnitude(model[1]))
    assert_array_equal(dense(graph, 1), magnitude(model[4]))
    assert graph.left_out == ()


def test_nested_sequential_has_qualified_names():
    model = nn.Sequential(
        nn.Sequential(nn.Conv1d(2, 3, 2), nn.LeakyReLU(), nn.AvgPool1d(2)),
        nn.Sequential(nn.Sequential(nn.Conv1d(3, 4, 1), nn.PReLU()), nn.Identity()),
    )
    graph = read_graph(model)
    assert layers_of(graph) == [("0.0", 3), ("1.0.0", 4)]
    assert_allclose(dense(graph, 0), magnitude(model[1][0][0]), rtol=1e-6)


def test_handwritten_forward():
    torch.manual_seed(1)
    model = Handwritten()
    graph = read_graph(model, scope="all")
    names = [("input", 1), ("conv1", 3), ("conv2", 4), ("fc1", 6), ("fc2", 2)]
    assert layers_of(graph) == names
    assert_allclose(dense(graph, 0), magnitude(model.conv1), rtol=1e-6)
    assert_allclose(dense(graph, 1), magnitude(model.conv2) * factor(model.bn2), rtol=1e-6)
    by_position = np.abs(model.fc1.weight.detach().numpy()).reshape(6, 4, 4)
    assert_allclose(dense(graph, 2), by_position.sum(axis=2).T, rtol=1e-6)
    assert_array_equal(dense(graph, 3), magnitude(model.fc2))

    hidden = read_graph(model)
    assert layers_of(hidden) == [("conv1", 3), ("conv2", 4)]
    assert_array_equal(dense(hidden, 0), dense(graph, 1))
    assert [item.name for item in hidden.left_out] == ["conv1", "fc1", "fc2"]


def test_grouped_and_depthwise_convolutions():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 2, groups=2), nn.Conv2d(6, 12, 2, groups=6)
    )
    graph = read_graph(model)
    within = magnitude(model[1])
    expected = np.zeros((4, 6))
    expected[:2, :3], expected[2:, 3:] = within[:, :3], within[:, 3:]
    assert_allclose(dense(graph, 0), expected, rtol=1e-6)
    expected = np.zeros((6, 12))
    for channel in range(6):
        outputs = slice(2 * channel, 2 * channel + 2)
        expected[channel, outputs] = magnitude(model[2])[0, outputs]
    assert_allclose(dense(graph, 1), expected, rtol=1e-6)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_after_a_linear_layer_scales_its_outputs(affine):
    model = nn.Sequential(
        nn.Linear(3, 4), nn.Dropout(), trained(nn.BatchNorm1d(4, affine=affine)), nn.ReLU(),
        nn.Linear(4, 2),
    )  # fmt: skip
    graph = read_graph(model)
    assert_allclose(dense(graph, 0), magnitude(model[0]) * factor(model[2]), rtol=1e-6)
    assert_array_equal(dense(graph, 1), magnitude(model[4]))


def test_batch_norm_after_an_activation_scales_the_next_layer():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2), nn.ReLU(), trained(nn.BatchNorm2d(2)), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(8, 3), nn.ReLU(), trained(nn.BatchNorm1d(3)), nn.Linear(3, 2),
    )  # fmt: skip
    graph = read_graph(model, scope="all")
    assert_allclose(dense(graph, 0), magnitude(model[0]), rtol=1e-6)
    by_channel = magnitude(model[5]).reshape(2, 4, 3).sum(axis=1)
    assert_allclose(dense(graph, 1), by_channel * factor(model[2])[:, None], rtol=1e-6)
    assert_allclose(dense(graph, 2), magnitude(model[8]) * factor(model[7])[:, None], rtol=1e-6)


def test_batch_norm_on_the_input_scales_the_first_layer():
    model = nn.Sequential(trained(nn.BatchNorm1d(3)), nn.Linear(3, 4), nn.Linear(4, 2))
    graph = read_graph(model)
    assert_allclose(dense(graph, 0), magnitude(model[1]) * factor(model[0])[:, None], rtol=1e-6)


def test_batch_norm_over_flattened_features_scales_each_feature():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 1), nn.Flatten(), trained(nn.BatchNorm1d(6)), nn.Linear(6, 3)
    )
    graph = read_graph(model, scope="all")
    # The features of a channel have different factors, so that it is not the channel's own.
    assert_allclose(dense(graph, 0), magnitude(model[0]), rtol=1e-6)
    scaled = magnitude(model[3]) * factor(model[2])[:, None]
    assert_allclose(dense(graph, 1), scaled.reshape(2, 3, 3).sum(axis=1), rtol=1e-6)


def test_factors_that_differ_by_position_are_left_out():
    model = nn.Sequential(nn.Linear(4, 3), trained(nn.BatchNorm1d(6)), nn.Linear(3, 2))
    graph = read_graph(model, example_inputs=torch.zeros(2, 6, 4))
    assert_array_equal(dense(graph, 0), magnitude(model[0]))
    assert_array_equal(dense(graph, 1), magnitude(model[2]))
    (item,) = graph.left_out
    assert (item.name, item.shape) == ("1.weight", (6,))
    assert "differs by position" in item.reason


def test_batch_norms_per_channel_and_per_feature_multiply():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 1), nn.ReLU(), trained(nn.BatchNorm1d(2)), nn.Flatten(),
        trained(nn.BatchNorm1d(6)), nn.Linear(6, 3),
    )  # fmt: skip
    graph = read_graph(model, scope="all")
    factors = np.repeat(factor(model[2]), 3) * factor(model[4])
    expected = (magnitude(model[5]) * factors[:, None]).reshape(2, 3, 3).sum(axis=1)
    assert_allclose(dense(graph, 1), expected, rtol=1e-6)


def test_two_batch_norms_after_a_layer_multiply():
    model = nn.Sequential(
        nn.Linear(2, 3), trained(nn.BatchNorm1d(3)), trained(nn.BatchNorm1d(3)), nn.Linear(3, 2)
    )
    expected = magnitude(model[0]) * factor(model[1]) * factor(model[2])
    assert_allclose(dense(read_graph(model), 0), expected, rtol=1e-6)


DATA_NORMS = [
    (lambda: nn.BatchNorm1d(3, track_running_stats=False), "data-dependent batch norm"),
    (lambda: nn.LayerNorm(3), "layer norm"),
    (lambda: nn.RMSNorm(3), "RMS norm"),
    (lambda: nn.GroupNorm(1, 3), "group norm"),
]


@pytest.mark.parametrize(("make", "kind"), DATA_NORMS)
@pytest.mark.parametrize("activated", [False, True])
def test_of_norms_by_the_data_gamma_is_folded_and_the_spread_is_noted(make, kind, activated):
    norm = make()
    gamma = torch.tensor([7.0, -0.5, 2.0])
    with torch.no_grad():
        norm.weight.copy_(gamma)
    between = [nn.ReLU(), norm] if activated else [norm, nn.ReLU()]
    model = nn.Sequential(nn.Linear(2, 3), *between, nn.Linear(3, 2))
    graph = read_graph(model)
    writer, reader = magnitude(model[0]), magnitude(model[3])
    if activated:
        reader = reader * gamma.abs().numpy()[:, None]
    else:
        writer = writer * gamma.abs().numpy()
    assert_allclose(dense(graph, 0), writer, rtol=1e-6)
    assert_allclose(dense(graph, 1), reader, rtol=1e-6)
    (item,) = graph.left_out
    assert (item.name, item.shape) == (kind, ())
    assert item.reason == "gamma is folded in; normalization by the data is not"


def test_norms_of_one_kind_are_noted_together():
    model = nn.Sequential(
        nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)
    )
    assert [item.name for item in read_graph(model).left_out] == ["2 layer norms"]


def test_batch_norm_that_nothing_reads_is_noted():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.ReLU(), trained(nn.BatchNorm1d(2)))
    (item,) = read_graph(model).left_out
    assert (item.name, item.shape) == ("3.weight", (2,))
    assert item.reason == "no layer reads what it scales"


def test_pruned_weights_are_masked_even_before_a_forward_pass():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    with torch.no_grad():
        model[0].weight_orig.mul_(3)  # `weight` is out of date until the next forward pass
    graph = read_graph(model)
    expected = (model[0].weight_orig * model[0].weight_mask).detach().abs().numpy().T
    assert (expected == 0).sum() == 8
    assert_array_equal(dense(graph, 0), expected)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_parametrized_weights():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    plain = magnitude(model[0])
    parametrize.register_parametrization(model[0], "weight", Doubled())
    graph = read_graph(model)
    assert layers_of(graph) == [("input", 2), ("0", 3), ("1", 2)]
    assert_array_equal(dense(graph, 0), 2 * plain)


def test_reading_a_parametrization_does_not_update_its_state():
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(5, 4)), nn.Linear(4, 2)).train()
    with torch.no_grad():
        model[0].parametrizations.weight.original.normal_()  # its state does not fit any more
    before = copy.deepcopy(model.state_dict())
    graph = read_graph(model)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert model[0].parametrizations.weight.training
    with torch.no_grad():
        assert_allclose(dense(graph, 0), magnitude(model.eval()[0]), rtol=1e-6)


def with_hook(function):
    """A layer whose weight a hook computes; what it has now is out of date."""
    layer = nn.Linear(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        function(layer)
    with torch.no_grad():
        for name in ("weight_g", "weight_v", "weight_orig"):
            if hasattr(layer, name):
                getattr(layer, name).mul_(3).add_(0.1)
    return layer


@pytest.mark.parametrize("function", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_are_those_of_the_next_forward_pass(function):
    model = nn.Sequential(with_hook(function), nn.Linear(3, 2)).train()
    before, weight = copy.deepcopy(model.state_dict()), model[0].weight
    graph = read_graph(model)
    assert model[0].weight is weight
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert layers_of(graph) == [("input", 4), ("0", 3), ("1", 2)]
    model.eval()(torch.zeros(1, 4))
    assert not torch.equal(model[0].weight, weight)
    assert_allclose(dense(graph, 0), model[0].weight.detach().abs().numpy().T, rtol=1e-6)
    assert graph.left_out == ()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, np.float16),
        (torch.bfloat16, ml_dtypes.bfloat16),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
    ],
)
def test_number_types(dtype, expected):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).to(dtype)
    graph = read_graph(model)
    assert dense(graph, 0).dtype == expected
    assert_array_equal(dense(graph, 0), model[0].weight.detach().to(torch.float64).abs().numpy().T)


def test_tensors_in_a_list():
    w0 = torch.tensor([[1.0, -2.0]], requires_grad=True)
    w1 = torch.tensor([[3.0], [0.0]]).to_sparse()
    graph = read_graph([w0, w1])
    assert_array_equal(dense(graph, 0), [[1, 2]])
    assert_array_equal(dense(graph, 1), [[3], [0]])


class Flattening(nn.Module):
    """Convolution, something that flattens, linear layer."""

    def __init__(self, flatten):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 2, 1)
        self.conv2 = nn.Conv2d(2, 3, 1)
        self.flatten = flatten
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.flatten(self.conv2(self.conv1(x))))


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: torch.flatten(x, 1),
        lambda x: torch.flatten(input=x, start_dim=1),
        lambda x: x.flatten(1),
        lambda x: x.flatten(start_dim=1, end_dim=-1),
        lambda x: x.view(x.size(0), -1),
        lambda x: x.view(-1, 12),
        lambda x: x.view((x.shape[0], 12)),
        lambda x: x.reshape(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]),
        lambda x: torch.reshape(x, (x.size()[0], -1)),
        nn.Flatten(),
    ],
)
def test_ways_to_flatten(flatten):
    model = Flattening(flatten)
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 2, 2)).shape == (2, 5)
    graph = read_graph(model, scope="all")
    expected = magnitude(model.fc).reshape(3, 4, 5).sum(axis=1)
    assert_allclose(dense(graph, 2), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("flatten", "message"),
    [
        (lambda x: x.flatten(2), r"'linear' in module 'fc' \(Linear\): it reads 12 values, but"),
        (lambda x: torch.flatten(x), "module 'fc'.*reads 12 values, but gets.*example_inputs"),
        (lambda x: x.view(-1, 8), "module 'fc'.*reads 12 values, but gets 8"),
        (lambda x: x.view(1, -1), "module 'fc'.*reads 12 values"),
        (lambda x: x.view(x.size(0), 3, 4), "Flattening fails on guessed inputs.*shape.*invalid"),
        (lambda x: x.permute(0, 2, 3, 1), "module 'fc'.*reads 12 values, but gets 3"),
        (lambda x: x.mean(), "module 'fc'"),
        (lambda x: torch.cumsum(x, 1), "'cumsum' in the forward pass of Flattening: it mixes"),
    ],
)
def test_what_does_not_fit_a_linear_layer_is_refused(flatten, message):
    with pytest.raises(ModelError, match=f"^Flattening: .*{message}"):
        read_graph(Flattening(flatten), scope="all")


@pytest.mark.parametrize("flatten", [lambda x: x, lambda x: x.mT, lambda x: x * 2])
def test_a_linear_layer_on_positions_is_left_out(flatten):
    model = Flattening(flatten)
    with torch.no_grad():
        assert model(torch.zeros(2, 1, 12, 12)).shape == (2, 3, 12, 5)
    graph = read_graph(model, scope="all")
    assert layers_of(graph) == [("input", 1), ("conv1", 2), ("conv2", 3)]
    (item,) = graph.left_out
    assert (item.name, item.shape) == ("fc.weight", (5, 12))
    assert "mixes positions" in item.reason


def test_channels_that_are_averaged_are_vertices_that_lead_no_further():
    model = Flattening(lambda x: x.mean([1, 2]))
    model.fc = nn.Linear(2, 5)
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(2, 1, 2, 2))
    assert [layer.size for layer in graph.layers] == [1, 2, 3]
    assert [(x.name, x.reason) for x in graph.left_out] == [
        ("fc.weight", "reads values that carry no neurons")
    ]


def test_cumulative_sums_over_positions():
    model = Flattening(lambda x: x.cumsum(2).flatten(1))
    graph = read_graph(model, scope="all")
    expected = magnitude(model.fc).reshape(3, 4, 5).sum(axis=1)
    assert_allclose(dense(graph, 2), expected, rtol=1e-6)


class GlobalPooling(nn.Module):
    def __init__(self, axes):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1)
        self.fc, self.axes = nn.Linear(3, 4), axes

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x)).mean(self.axes))


@pytest.mark.parametrize("axes", [(2, 3), [-1, -2]])
def test_mean_over_positions_is_a_global_pooling(axes):
    model = GlobalPooling(axes)
    assert_array_equal(dense(read_graph(model, scope="all"), 2), magnitude(model.fc))


class Images(nn.Module):
    """Gives a flat input the shape of an image first."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 2, 2), nn.Conv2d(2, 3, 2)

    def forward(self, x):
        return self.conv2(self.conv1(x.float().view(-1, 1, 4, 4)))


def test_the_input_may_be_reshaped():
    model = Images()
    assert_allclose(dense(read_graph(model), 0), magnitude(model.conv2), rtol=1e-6)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return self.fc(torch.tanh(self.fc(x)))


def test_a_layer_called_twice_is_two_layers():
    model = Twice()
    graph = read_graph(model)
    assert layers_of(graph) == [("input", 3), ("fc", 3), ("fc (call 2)", 3)]
    assert_array_equal(dense(graph, 1), magnitude(model.fc))


def test_unused_weights_are_noted():
    model = Twice()
    model.auxiliary = nn.Linear(3, 7)
    (item,) = read_graph(model).left_out
    assert (item.name, item.shape) == ("auxiliary.weight", (7, 3))
    assert "does not use" in item.reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_wrapped_modules():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    for wrapped in (nn.DataParallel(model), torch.compile(model)):
        assert_array_equal(dense(read_graph(wrapped), 0), magnitude(model[0]))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)

    def forward(self, x):
        return x + F.relu(self.fc(x))


class Body(nn.Module):
    """A module with the given forward pass and two linear layers."""

    def __init__(self, body):
        super().__init__()
        self.a, self.b, self.body = nn.Linear(3, 3), nn.Linear(3, 3), body
        self.scale = nn.Parameter(torch.ones(3))
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x):
        return self.body(self, x)


def with_unused_branch(self, x):
    x = self.a(x)
    torch.tanh(x)
    return self.b(x)


def with_control_flow(self, x):
    return self.b(x) if x.sum() > 0 else self.a(x)


def with_state(self, x):
    self.hidden = self.a(x)
    self.steps += 1
    self.eval()
    return self.b(self.hidden)


def with_state_and_failure(self, x):
    with_state(self, x)
    raise RuntimeError("no more")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Body(with_control_flow),
            "the forward pass of Body chooses what to do by values that depend on the data.*list$",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), Body(with_control_flow)),
            r"module '1' \(Body\) chooses what to do by values that depend on the data",
        ),
        (
            Body(with_state_and_failure),
            "the forward pass of Body fails on guessed inputs: RuntimeError: no more; pass example",
        ),
        (
            nn.Sequential(nn.Linear(3, 3), Body(with_state_and_failure)),
            r"module '1' \(Body\) fails on guessed inputs: RuntimeError: no more",
        ),
        (nn.Sequential(nn.Bilinear(3, 3, 3)), r"module '0' \(Bilinear\) fails.*missing 1 required"),
        (nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), "module '0'.*run the model once"),
        (nn.Sequential(nn.Linear(3, 2, device="meta"), nn.Linear(2, 3)), "module '0'.*'meta'"),
        (nn.Sequential(nn.Flatten(), nn.Conv1d(3, 3, 1)), r"module '1' \(Conv1d\) fails"),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2)), "module '1'.*pools over neurons"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.BatchNorm1d(5)),
            r"module '2' \(BatchNorm1d\) fails.*4 elements not 5",
        ),
        (
            nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)),
            r"'linear' in module '1' \(Linear\): it reads 4 values, but gets 3",
        ),
        (nn.ModuleList([nn.Linear(2, 2)]), "ModuleList"),
    ],
)
def test_model_errors(model, message):
    with pytest.raises(ModelError, match=f"^{type(model).__name__}: .*{message}"):
        read_graph(model)


def test_errors_on_example_inputs_do_not_ask_for_them():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"module '0' \(Linear\): it reads 3.*gets 5$"):
        read_graph(model, example_inputs=torch.zeros(2, 5))


# What is no chain.


def adjacency_of(graph, *edges):
    """The adjacency whose blocks are these, (first layer's position, second's, weights)."""
    starts = np.cumsum([0, *(layer.size for layer in graph.layers)])
    matrix = np.zeros((starts[-1], starts[-1]))
    for source, target, weights in edges:
        rows = slice(starts[source], starts[source + 1])
        columns = slice(starts[target], starts[target + 1])
        matrix[rows, columns] += weights
        matrix[columns, rows] += np.asarray(weights).T
    return matrix


def assert_graph(graph, layers, *edges):
    """Check the layers and the whole adjacency."""
    assert layers_of(graph) == layers
    assert_allclose(graph.adjacency.toarray(), adjacency_of(graph, *edges), rtol=1e-6)


def test_residual_sums():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(Residual()), nn.Linear(3, 2))
    graph = read_graph(model)
    first, second, last = (magnitude(x) for x in (model[0], model[1][0].fc, model[2]))
    assert_graph(
        graph,
        [("input", 3), ("0", 3), ("input of 2", 3), ("2", 2)],
        (0, 1, first),
        (0, 2, first),
        (1, 2, second),
        (2, 3, last),
    )
    assert graph.left_out == ()


def test_concatenations():
    model = Body(lambda self, x: self.c(torch.cat([self.a(x), torch.tanh(self.b(x))], 1)))
    model.c = nn.Linear(6, 2)
    a, b, c = (magnitude(x) for x in (model.a, model.b, model.c))
    assert_graph(
        read_graph(model),
        [("input", 3), ("input of c", 6), ("c", 2)],
        (0, 1, np.hstack([a, b])),
        (1, 2, c),
    )


def test_a_branch_that_nothing_reads_makes_no_difference():
    model = Body(with_unused_branch)
    expected = magnitude(model.a), magnitude(model.b)
    assert_graph(
        read_graph(model),
        [("input", 3), ("a", 3), ("b", 3)],
        (0, 1, expected[0]),
        (1, 2, expected[1]),
    )


def test_several_results():
    model = Body(lambda self, x: (self.a(x), {"b": self.b(torch.relu(self.a(x)))}))
    a, b = magnitude(model.a), magnitude(model.b)
    graph = read_graph(model)
    assert_graph(
        graph,
        [("input", 3), ("a (call 2)", 3), ("a", 3), ("b", 3)],
        (0, 2, a),
        (0, 1, a),
        (1, 3, b),
    )


def test_neurons_that_are_returned_twice_are_there_once():
    once, twice = (Body(lambda self, x, n=n: (self.b(self.a(x)),) * n) for n in (1, 2))
    twice.load_state_dict(once.state_dict())
    assert (read_graph(once).adjacency != read_graph(twice).adjacency).nnz == 0


@pytest.mark.parametrize("activated", [False, True])
def test_a_parameter_as_a_factor(activated):
    def body(self, x):
        x = self.a(x)
        return self.b((torch.relu(x) if activated else x) * self.scale)

    model = Body(body)
    with torch.no_grad():
        model.scale.copy_(torch.tensor([2.0, -3.0, 0.5]))
    scale = np.array([2.0, 3.0, 0.5])
    a, b = magnitude(model.a), magnitude(model.b)
    graph = read_graph(model)
    assert_graph(
        graph,
        [("input", 3), ("a", 3), ("b", 3)],
        (0, 1, a if activated else a * scale),
        (1, 2, b * scale[:, None] if activated else b),
    )
    assert {p.name: p.placed for p in graph.parameters} == {
        "scale": True, "a.weight": True, "a.bias": False, "b.weight": True, "b.bias": False,
    }  # fmt: skip


def test_a_model_of_parameters_without_inputs_has_no_weights():
    with pytest.raises(InputError, match="Body: no weights found"):
        read_graph(Body(lambda self, x: torch.tanh(self.scale)))


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("n_hidden", [1, 4])
def test_recurrent_layers(kind, n_hidden):
    model = nn.Sequential(nn.Linear(3, 2), kind(2, n_hidden))
    n_gates = {nn.RNN: 1, nn.LSTM: 4, nn.GRU: 3}[kind]

    def over_gates(weight):
        return weight.detach().abs().numpy().reshape(n_gates, n_hidden, -1).sum(axis=0).T

    within = over_gates(model[1].weight_hh_l0)
    # Half of what goes both ways, as the adjacency adds the transpose; no self-loops.
    within = (within + within.T) * (1 - np.eye(n_hidden)) / 2
    graph = read_graph(model)
    assert_graph(
        graph,
        [("input", 3), ("0", 2), ("1", n_hidden)],
        (0, 1, magnitude(model[0])),
        (1, 2, over_gates(model[1].weight_ih_l0)),
        (2, 2, within),
    )
    assert [layer.rescalable for layer in graph.layers] == [False, True, False]
    noted = [(item.name, item.shape) for item in graph.left_out]
    assert noted == ([("1 (recurrent)", (1, 1))] if n_hidden == 1 else [])


def test_bilinear_layers():
    model = Body(lambda self, x: self.c(torch.relu(self.a(x)), self.b(x)))
    model.c = nn.Bilinear(3, 3, 4)
    weight = model.c.weight.detach().abs().numpy()
    assert_graph(
        read_graph(model),
        [("input", 3), ("input read by b", 3), ("a", 3), ("b", 3), ("output", 4)],
        (0, 2, magnitude(model.a)),
        (1, 3, magnitude(model.b)),
        (2, 4, weight.sum(axis=2).T),
        (3, 4, weight.sum(axis=1).T),
    )


def test_attention_alone():
    model = nn.MultiheadAttention(4, 2)
    query, key, value = model.in_proj_weight.detach().abs().numpy().reshape(3, 4, 4)
    graph = read_graph(model)
    assert_graph(
        graph,
        [
            *(("query", 4), ("in_proj_weight", 4), ("key", 4), ("value", 4)),
            *(("in_proj_weight (call 3)", 4), ("out_proj", 4)),
        ],
        (0, 1, query.T),
        (2, 1, key.T),
        (3, 4, value.T),
        (4, 5, magnitude(model.out_proj)),
    )


class Doubling(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def parametrized_subclass():
    layer = Doubling(2, 3)
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def patched_instance():
    layer = nn.Linear(2, 3)
    layer.forward = lambda x: 2 * F.linear(x, layer.weight)
    return layer


@pytest.mark.parametrize("make", [lambda: Doubling(2, 3), parametrized_subclass, patched_instance])
def test_layers_with_a_forward_pass_of_their_own(make):
    model = nn.Sequential(make(), nn.Linear(3, 2))
    with torch.no_grad():
        first = 2 * magnitude(model[0])
    assert_graph(
        read_graph(model),
        [("input", 2), ("0", 3), ("1", 2)],
        (0, 1, first),
        (1, 2, magnitude(model[1])),
    )


def test_torchscript_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    with pytest.raises(ModelError, match="TorchScript"):
        read_graph(script)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.ReLU()), "no weights found"),
        (nn.ReLU(), "no weights found"),
        (nn.Linear(2, 3), "Linear: a chain needs at least two weight layers"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3)), "scope='all'"),
    ],
)
def test_input_errors(model, message):
    with pytest.raises(InputError, match=message):
        read_graph(model)


def test_unusable_weights_are_named():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[1].running_var[1] = -1.0
    with pytest.raises(InputError, match="layer '0': 2 NaN"):
        read_graph(model)
    with torch.no_grad():
        model[1].running_var[1] = 1.0
        model[3].weight.zero_()
    with pytest.raises(InputError, match="layer '3': all 6 weights are zero"):
        read_graph(model)


def test_arrays_of_a_module_cannot_be_chosen():
    with pytest.raises(InputError, match=r"layers: .*model.state_dict\(\)"):
        read_graph(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), layers=["0", "1"])


def snapshot(model):
    return {
        "training": {name: part.training for name, part in model.named_modules()},
        "attributes": {name: sorted(part.__dict__) for name, part in model.named_modules()},
        "parameters": {name: id(value) for name, value in model.named_parameters()},
        "hooks": {name: dict(part._forward_hooks) for name, part in model.named_modules()},
        "versions": {name: value._version for name, value in model.state_dict().items()},
        "grad": {name: value.requires_grad for name, value in model.named_parameters()},
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_module_is_left_as_it_was(training, fails):
    inner = Body(with_state_and_failure if fails else with_state)
    inner.hidden = "before"
    model = nn.Sequential(nn.Linear(3, 3), inner, nn.BatchNorm1d(3), nn.Dropout())
    model.train(training)
    model[3].train(not training)
    calls = []
    for part in model.modules():
        part.register_forward_hook(lambda *arguments: calls.append(arguments))
        part.register_forward_pre_hook(lambda *arguments: calls.append(arguments))
    before, values = snapshot(model), copy.deepcopy(model.state_dict())
    if fails:
        with pytest.raises(ModelError):
            read_graph(model)
    else:
        assert len(read_graph(model).layers) == 4
    assert snapshot(model) == before
    assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert inner.hidden == "before"
    assert calls == []
    if not fails:
        model(torch.zeros(4, 3))
        assert len(calls) == 2 * len(list(model.modules()))
        assert inner.steps == 1
