"""Unknown and declared operations, refused steps, inputs and outputs, the model afterwards."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from torch_nets import Model, array, chain, expect, into

from ncut.errors import InputError, ModelError
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ncut.extract import registry  # noqa: E402
from ncut.extract.program.values import Value, indexed  # noqa: E402

pytestmark = pytest.mark.usefixtures("doubles")


LIBRARY = torch.library.Library("ncut_tests", "DEF")
LIBRARY.define("twist(Tensor x) -> Tensor")
LIBRARY.define("squash(Tensor x) -> Tensor")
LIBRARY.impl("twist", lambda x: x.flip(1), "CompositeExplicitAutograd")
LIBRARY.impl("squash", lambda x: x[..., ::2].contiguous(), "CompositeExplicitAutograd")


class Twist(nn.Module):
    """A module whose forward pass cannot be followed."""

    def forward(self, x):
        return torch.as_tensor(np.asarray(x.detach().numpy()))


def with_middle(operation, positions=()):
    kind = nn.Conv1d if positions else nn.Linear
    extra = (1,) if positions else ()
    part = {"twist": operation} if isinstance(operation, nn.Module) else {}
    return Model(
        lambda m, x: m.b(m.twist(m.a(x)) if part else operation(m.a(x))),
        a=kind(3, 4, *extra), b=kind(4, 2, *extra), **part,
    )  # fmt: skip


def test_unknown_operation():
    inner = Model(lambda m, x: torch.ops.ncut_tests.twist(x))
    model = chain(nn.Linear(3, 4), inner, nn.Linear(4, 2))
    with pytest.raises(ModelError, match=r"register_operation") as caught:
        read_graph(model)
    message = str(caught.value)
    assert "ncut_tests::twist" in message
    assert "module '1' (Model)" in message
    assert "unknown='elementwise'" in message
    graph = read_graph(model, unknown="elementwise")
    expect(graph, [3, 4, 2], {(0, 1): into(model[0].weight), (1, 2): into(model[2].weight)})
    assert any("twist" in item.name and "unknown" in item.reason for item in graph.left_out)


def test_declared_operations(declared):
    model = with_middle(lambda x: torch.ops.ncut_tests.twist(x))
    a, b = into(model.a.weight), into(model.b.weight)
    registry.register_operation("ncut_tests::twist", "elementwise")
    expect(read_graph(model), [3, 4, 2], {(0, 1): a, (1, 2): b})

    def twisted(call):
        return indexed(call.signal(0), 1, slice(None, None, -1))

    registry.register_operation("ncut_tests::twist", twisted)
    expect(read_graph(model), [3, 4, 2], {(0, 1): a[:, ::-1], (1, 2): b})

    registry.register_operation("ncut_tests::squash", "positions")
    model = with_middle(lambda x: torch.ops.ncut_tests.squash(x), positions=(4,))
    a, b = into(model.a.weight), into(model.b.weight)
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(2, 3, 4))
    expect(graph, [3, 4, 2], {(0, 1): a, (1, 2): b})


def test_declared_modules_and_functions(declared):
    model = with_middle(Twist())
    with pytest.raises(ModelError):
        read_graph(model)
    registry.register_operation(Twist, "elementwise")
    a, b = into(model.a.weight), into(model.b.weight)
    expect(read_graph(model), [3, 4, 2], {(0, 1): a, (1, 2): b})

    weight = nn.Parameter(torch.randn(5, 4))

    class Kernel(Twist):
        def __init__(self):
            super().__init__()
            self.weight = weight

    registry.register_operation(
        Kernel,
        lambda call: call.wiring.linear(call.signal(0), array(call.module.weight).T, name="kernel"),
    )
    model = Model(lambda m, x: m.b(m.k(m.a(x))), a=nn.Linear(3, 4), k=Kernel(), b=nn.Linear(5, 2))
    expect(
        read_graph(model), [3, 4, 5, 2],
        {(0, 1): into(model.a.weight), (1, 2): into(weight), (2, 3): into(model.b.weight)},
    )  # fmt: skip

    registry.register_operation(torch.special.entr, "elementwise")
    model = with_middle(torch.special.entr)
    expect(
        read_graph(model), [3, 4, 2], {(0, 1): into(model.a.weight), (1, 2): into(model.b.weight)}
    )


def test_rules_of_the_wrong_shape_are_named(monkeypatch):
    model = Model(lambda m, x: m.b(torch.special.i1(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    monkeypatch.setitem(registry.declared, "aten::special_i1", lambda call: Value((1, 1)))
    with pytest.raises(ModelError, match=r"shape \(1, 1\) for a result of shape \(5, 4\)"):
        read_graph(model)
    monkeypatch.setitem(registry.declared, "aten::special_i1", lambda call: [])
    with pytest.raises(ModelError, match="gives 0 signals for 1 results"):
        read_graph(model)


def test_bad_declarations():
    with pytest.raises(InputError, match="target"):
        registry.register_operation(3, "elementwise")
    with pytest.raises(InputError, match="rule"):
        registry.register_operation("a::b", "sideways")
    with pytest.raises(InputError, match="unknown"):
        read_graph(nn.Linear(2, 2), unknown="ignore")


# --- what cannot be followed --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda x: x if x.sum() > 0 else -x, "depend on the data"),
        (lambda x: x * float(x.max()), "depend on the data"),
        (lambda x: x[x > 0], "mask|depend"),
        (lambda x: x[:, x.mean(0).argsort()], "depends on the data|order"),
        (lambda x: x[:, x.mean(0).argmax().item() :], "depend on the data"),
        (lambda x: torch.fft.fft(x, dim=1).real, "without any weights"),
        (lambda x: x.sort(dim=1)[0], "order that depends on the data"),
    ],
)
def test_data_dependent_operations_are_refused(step, told):
    model = Model(lambda m, x: m.b(step(m.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    with pytest.raises(ModelError, match=told):
        read_graph(model, example_inputs=torch.zeros(2, 3))


@pytest.mark.parametrize("fails", [True, False])
def test_the_model_is_unchanged(fails):
    class Stateful(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 4)
            self.norm = nn.BatchNorm1d(4)
            self.b = nn.Linear(4, 2)
            self.register_buffer("count", torch.zeros(1))
            self.cache = None

        def forward(self, x):
            self.count += 1
            self.cache = self.a(x)
            self.extra = x
            x = self.norm(self.cache)
            if fails:
                raise RuntimeError("broken")
            return self.b(x)

    model = Stateful().train()
    model.norm.eval()
    hooked = []
    model.a.register_forward_hook(lambda *_: hooked.append(1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    keys = sorted(vars(model))
    module_call, fast_path = nn.Module.__call__, torch.backends.mha.get_fastpath_enabled()
    state = torch.get_rng_state()
    if fails:
        with pytest.raises(ModelError, match="broken"):
            read_graph(model)
    else:
        read_graph(model)
    assert nn.Module.__call__ is module_call
    assert torch.backends.mha.get_fastpath_enabled() is fast_path
    assert torch.is_grad_enabled()
    assert_array_equal(torch.get_rng_state(), state)
    assert model.training
    assert model.a.training
    assert not model.norm.training
    assert model.cache is None
    assert sorted(vars(model)) == keys
    assert hooked == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("how", ["tuple", "mapping", "list"])
def test_several_inputs(how):
    def run(self, image, ids, scale=1.0):
        return self.c(torch.cat([self.a(image), self.b(ids)], 1) * scale)

    class Two(Model):
        def forward(self, image, ids, scale=1.0):
            return run(self, image, ids, scale)

    model = Two(None, a=nn.Linear(3, 4), b=nn.EmbeddingBag(5, 2), c=nn.Linear(6, 2))
    image, ids = torch.zeros(2, 3), torch.zeros(2, 4, dtype=torch.int64)
    inputs = {
        "tuple": (image, ids), "list": [image, ids], "mapping": {"image": image, "ids": ids}
    }[how]  # fmt: skip
    graph = read_graph(model, example_inputs=inputs)
    a, b, c = into(model.a.weight), np.abs(array(model.b.weight)), into(model.c.weight)
    expect(
        graph, [3, 5, 6, 2],
        {
            (0, 2): np.concatenate([a, np.zeros((3, 2))], axis=1),
            (1, 2): np.concatenate([np.zeros((5, 4)), b], axis=1),
            (2, 3): c,
        },
    )  # fmt: skip


def test_bad_example_inputs():
    model = chain(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match="example_inputs"):
        read_graph(model, example_inputs="x")
    with pytest.raises(ModelError, match=r"module '0'.* reads 3 values, but gets 5"):
        read_graph(model, example_inputs=torch.zeros(2, 5))
    with pytest.raises(ModelError, match="example_inputs"):
        read_graph(model, example_inputs=(torch.zeros(2, 3), torch.zeros(2, 3)))


def test_outputs_in_a_dictionary():
    def run(self, x):
        x = torch.relu(self.a(x))
        return {"scores": self.b(x), "more": [self.c(x), {"hidden": x}], "n": 3}

    model = Model(run, a=nn.Linear(3, 4), b=nn.Linear(4, 2), c=nn.Linear(4, 5))
    graph = read_graph(model, residual="stream")
    a, b, c = (into(getattr(model, name).weight) for name in "abc")
    expect(graph, [3, 4, 2, 5], {(0, 1): a, (1, 2): b, (1, 3): c})


def test_error_messages_have_no_line_breaks_in_the_middle_of_words():
    model = Model(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 4), b=nn.Linear(5, 2))
    with pytest.raises(ModelError) as caught:
        read_graph(model, example_inputs=torch.zeros(2, 3))
    assert re.search(r"'b'", str(caught.value))
    assert "5" in str(caught.value)
    assert "4" in str(caught.value)


# --- networks as deep as they come --------------------------------------------------------------


def test_ways_around_a_layer_do_not_multiply():
    """Position mixing with a learned scale in each block: x + gamma pool(x)."""

    def run(self, x):
        x = self.a(x)
        for gamma in (self.g, self.h) * 12:
            x = x + gamma[:, None, None] * (F.avg_pool2d(x, 3, 1, 1) - x)
        return self.b(x)

    scales = {"g": nn.Parameter(torch.rand(4) + 1), "h": nn.Parameter(-torch.rand(4) / 2)}
    model = Model(run, a=nn.Conv2d(2, 4, 1), b=nn.Conv2d(4, 3, 1), **scales)
    graph = read_graph(model, scope="all", example_inputs=torch.zeros(1, 2, 4, 4))
    assert [layer.size for layer in graph.layers] == [2, 4, 3]
    found = graph.adjacency.toarray()[:2, 2:6] / into(model.a.weight)
    # One factor for each channel: the way that widens it most, not the sum of 2^24 ways. That is
    # through the pool for gamma > 1, and past it, with 1 - gamma, for gamma < 0.
    assert_allclose(found, found[:1].repeat(2, axis=0), rtol=1e-9)
    assert_allclose(found[0], (array(model.g) * (1 - array(model.h))) ** 12, rtol=1e-9)
