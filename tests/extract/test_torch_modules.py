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
        nn.Linear(6, 3), nn.ReLU(), trained(nn.BatchNorm1d(3)), nn.Linear(3, 2),
    )  # fmt: skip
    graph = read_graph(model, scope="all")
    assert_allclose(dense(graph, 0), magnitude(model[0]), rtol=1e-6)
    by_channel = magnitude(model[5]).reshape(2, 3, 3).sum(axis=1)
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
    scaled = magnitude(model[3]) * factor(model[2])[:, None]
    assert_allclose(dense(graph, 1), scaled.reshape(2, 3, 3).sum(axis=1), rtol=1e-6)


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


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (nn.BatchNorm1d(3, track_running_stats=False), "without running statistics"),
        (nn.LayerNorm(3), "LayerNorm: its scale depends on the data"),
        (nn.GroupNorm(1, 3), "GroupNorm"),
    ],
)
def test_scales_that_depend_on_the_data_are_noted_and_not_folded(norm, reason):
    nn.init.constant_(norm.weight, 7.0)
    model = nn.Sequential(nn.Linear(2, 3), norm, nn.ReLU(), nn.Linear(3, 2))
    graph = read_graph(model)
    assert_array_equal(dense(graph, 0), magnitude(model[0]))
    assert_array_equal(dense(graph, 1), magnitude(model[3]))
    (item,) = graph.left_out
    assert (item.name, item.shape) == ("1", (3,))
    assert reason in item.reason


def test_batch_norm_that_nothing_reads_is_noted():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2), nn.ReLU(), trained(nn.BatchNorm1d(2)))
    graph = read_graph(model)
    assert [(item.name, item.shape) for item in graph.left_out] == [("3", (2,))]


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


def test_weights_set_by_a_hook_are_refused():
    layer = nn.Linear(2, 3)
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(layer)
    with pytest.raises(ModelError, match=r"module '0'.*set by a hook.*remove_weight_norm"):
        read_graph(nn.Sequential(layer, nn.Linear(3, 2)))


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
        (lambda x: x, "reads channels that were not flattened"),
        (lambda x: x.flatten(2), "flattens the axes 2 to -1"),
        (lambda x: torch.flatten(x), "flattens the axes 0 to -1"),
        (lambda x: x.view(-1, 8), "makes rows of 8 values from 3 outputs of 'conv2'"),
        (lambda x: x.view(1, -1), "a shape other than"),
        (lambda x: x.view(x.size(0), 3, 4), "a shape other than"),
        (lambda x: x.permute(0, 2, 3, 1), "'permute'.*rearranges neurons"),
        (lambda x: x.mean([1, 2]), "other axes than the convolution's positions"),
        (lambda x: x.mean(), "axes that are not given as numbers"),
        (lambda x: x.mT, "'getattr'.*is not known"),
        (lambda x: x * 2, "'mul'.*is not known"),
        (lambda x: torch.cumsum(x, 1), "'cumsum'.*is not known"),
    ],
)
def test_what_else_happens_before_a_linear_layer_is_refused(flatten, message):
    with pytest.raises(ModelError, match=message):
        read_graph(Flattening(flatten), scope="all")


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
            nn.Sequential(nn.Linear(3, 3), nn.Sequential(Residual())),
            r"Sequential: operation 'add' \(value 'add'\) in the forward pass of '1.0' reads 2 "
            r"values \(module '0' \(Linear\), operation 'relu'.*extract the weight matrices",
        ),
        (
            Body(lambda self, x: torch.cat([self.a(x), self.b(x)], 1)),
            r"'cat'.*reads 2 values \(module 'a' \(Linear\), module 'b' \(Linear\)\)",
        ),
        (Body(with_unused_branch), "value of module 'a'.*read by operation 'tanh'.*and module 'b'"),
        (Body(lambda self, x: (self.a(x), self.b(x))), "Body: its forward pass returns tuple"),
        (Body(lambda self, x: self.b(self.a(x) * self.scale)), "'mul'.*the parameter 'scale'"),
        (Body(lambda self, x: torch.tanh(self.scale)), "reads the parameter 'scale' alone"),
        (Body(with_control_flow), "cannot be traced symbolically.*control flow"),
        (Body(with_state_and_failure), "cannot be traced symbolically: no more"),
        (nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3)), r"module '1' \(LSTM\) is not known"),
        (nn.Sequential(nn.Bilinear(3, 3, 3)), r"module '0' \(Bilinear\) is not known"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
        (nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), "module '0'.*run the model once"),
        (nn.Sequential(nn.Linear(3, 2, device="meta"), nn.Linear(2, 3)), "module '0'.*'meta'"),
        (nn.Sequential(nn.Flatten(), nn.Conv1d(2, 3, 1)), "reads a flattened value"),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2)), "module '1'.*pools over neurons"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(5)), "module '1'.*scales 5.*gives 4"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(4, 4)),
            "module '3'.*reads 4 values, but '2' before it scales 8",
        ),
        (nn.ModuleList([nn.Linear(2, 2)]), "ModuleList"),
    ],
)
def test_model_errors(model, message):
    with pytest.raises(ModelError, match=message):
        read_graph(model)


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


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Doubling(2, 3), r"'linear'.*of '0' reads 3 values"),
        (parametrized_subclass(), r"module '0' \(ParametrizedDoubling\) is not known"),
        (patched_instance(), r"module '0' \(Linear\) is not known"),
    ],
)
def test_layers_with_a_forward_pass_of_their_own_are_refused(layer, message):
    with pytest.raises(ModelError, match=message):
        read_graph(nn.Sequential(layer, nn.Linear(3, 2)))


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
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(4, 2)), "'1' reads 4 values, but '0'.*gives 3"),
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
