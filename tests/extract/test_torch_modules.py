"""PyTorch modules whose layers form a chain."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ncut.errors import ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from module_nets import dense, factor, layers_of, magnitude, trained  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812


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
def test_inputs_that_do_not_fit_a_linear_layer_are_refused(flatten, message):
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
