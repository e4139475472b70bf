"""Whole architectures: their graphs against what the networks do, and against their descriptions.

Small networks of each family are perturbed, one channel after the other (see
`perturbation`); the numbers of vertices and edges of full-size ones, and the graphs of small
transformers, are worked out from how the architectures are described.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ncut
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from ncut.extract.perturbation import summary  # noqa: E402
from ncut.extract.readers.traced import running as perturbation  # noqa: E402


@pytest.fixture(autouse=True)
def _doubles():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)


def agrees(model, inputs, *, n=25, extra=(), watched=0.8, of_one_token=(), **options):
    """Every sampled vertex has the neighbours that its network gives it.

    Positions are not told apart in a graph, so that what reads one token alone, such as a
    classifier of the first one, also has edges from what writes the others.
    """
    perturbation.randomized(model)
    example = inputs if isinstance(inputs, dict) else tuple(inputs)
    graph = read_graph(model, scope="all", residual="readers", example_inputs=example, **options)
    readers = (*perturbation.READERS, *extra)
    outcome = perturbation.check(model, graph, example, n=n, readers=readers)
    outcome.surplus = [
        line for line in outcome.surplus if not any(f"-> {one} (" in line for one in of_one_token)
    ]
    assert outcome.agrees, summary(outcome)
    assert outcome.n_readers >= watched * (outcome.n_layers - 1), (
        outcome.n_readers,
        [(layer.name, layer.read_by) for layer in graph.layers],
    )
    return graph


def conv(i, o, k=3, stride=1, groups=1, act=nn.ReLU):
    layers = [
        nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False),
        nn.BatchNorm2d(o),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


def image(*sizes):
    return [torch.randn(1, 3, *(sizes or (16, 16)))]


class Residual(nn.Module):
    """x + f(x), with a projection of x where the shape changes, and an activation after."""

    def __init__(self, body, project=None, after=None):
        super().__init__()
        self.body = body
        self.project = project or nn.Identity()
        self.after = after or nn.Identity()

    def forward(self, x):
        return self.after(self.body(x) + self.project(x))


def head(n, out=5):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, out))


class Excited(nn.Module):
    def __init__(self, n, act=nn.SiLU):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(n, 3, 1), nn.Conv2d(3, n, 1)
        self.act = act()

    def forward(self, x):
        s = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(self.act(self.reduce(s))))


# --- convolutional families ---------------------------------------------------------------------


def vgg():
    layers = [conv(3, 4), conv(4, 6), nn.MaxPool2d(2), conv(6, 8), nn.MaxPool2d(2), nn.Flatten()]
    return nn.Sequential(
        *layers, nn.Linear(8 * 16, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5)
    )  # fmt: skip


def basic(i, o, stride=1):
    project = conv(i, o, 1, stride, act=None) if stride > 1 or i != o else None
    return Residual(nn.Sequential(conv(i, o, 3, stride), conv(o, o, act=None)), project, nn.ReLU())


def resnet():
    return nn.Sequential(
        conv(3, 4), nn.MaxPool2d(2), basic(4, 4), basic(4, 6, 2), basic(6, 6), head(6)
    )


def bottleneck(i, w, o, stride=1, groups=1):
    project = conv(i, o, 1, stride, act=None) if stride > 1 or i != o else None
    body = nn.Sequential(conv(i, w, 1), conv(w, w, 3, stride, groups), conv(w, o, 1, act=None))
    return Residual(body, project, nn.ReLU())


def resnet_bottleneck():
    return nn.Sequential(
        conv(3, 4), bottleneck(4, 2, 8), bottleneck(8, 2, 8), bottleneck(8, 4, 10, 2), head(10)
    )


class PreActivation(nn.Module):
    def __init__(self, i, o, stride=1):
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, stride, 1)
        self.n2, self.c2 = nn.BatchNorm2d(o), nn.Conv2d(o, o, 3, 1, 1)
        self.project = nn.Conv2d(i, o, 1, stride) if i != o else None

    def forward(self, x):
        y = F.relu(self.n1(x))
        shortcut = x if self.project is None else self.project(y)
        return shortcut + self.c2(F.relu(self.n2(self.c1(y))))


def preactivation():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), PreActivation(4, 4), PreActivation(4, 6, 2), PreActivation(6, 6),
        nn.BatchNorm2d(6), nn.ReLU(), head(6),
    )  # fmt: skip


class Branches(nn.Module):
    def __init__(self, *parts):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x):
        return torch.cat([part(x) for part in self.parts], 1)


def inception():
    def block(i):
        return Branches(
            conv(i, 3, 1),
            nn.Sequential(conv(i, 2, 1), conv(2, 4, 5)),
            nn.Sequential(conv(i, 3, 1), conv(3, 3), Branches(conv(3, 2), conv(3, 2, 1))),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(i, 2, 1)),
        )

    reduction = Branches(conv(13, 4, 3, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(conv(3, 4), block(4), reduction, block(17), head(13))


class Dense(nn.Module):
    def __init__(self, i, n, growth, wide=5):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(i + at * growth), nn.ReLU(), nn.Conv2d(i + at * growth, wide, 1),
                nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, growth, 3, 1, 1),
            )
            for at in range(n)
        )  # fmt: skip

    def forward(self, x):
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet():
    transition = [nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 5, 1), nn.AvgPool2d(2)]
    return nn.Sequential(
        conv(3, 4),
        Dense(4, 3, 2),
        *transition,
        Dense(5, 2, 2),
        nn.BatchNorm2d(9),
        nn.ReLU(),
        head(9),
    )


def inverted(i, o, expand=3, stride=1, act=nn.ReLU6, excite=False):
    body = [
        conv(i, i * expand, 1, act=act),
        conv(i * expand, i * expand, 3, stride, i * expand, act),
    ]
    body += [Excited(i * expand)] if excite else []
    body = nn.Sequential(*body, conv(i * expand, o, 1, act=None))
    return Residual(body) if stride == 1 and i == o else body


def mobilenet():
    return nn.Sequential(
        conv(3, 4, stride=2), inverted(4, 6), inverted(6, 6), inverted(6, 8, 2, 2), inverted(8, 8),
        conv(8, 10, 1), head(10),
    )  # fmt: skip


def mobilenet_v3():
    return nn.Sequential(
        conv(3, 4, stride=2, act=nn.Hardswish), inverted(4, 4, 2, act=nn.ReLU, excite=True),
        inverted(4, 6, 2, act=nn.Hardswish, excite=True), head(6),
    )  # fmt: skip


def efficientnet():
    return nn.Sequential(
        conv(3, 4, stride=2, act=nn.SiLU), inverted(4, 4, 2, act=nn.SiLU, excite=True),
        inverted(4, 6, 2, 2, nn.SiLU, True), inverted(6, 6, 2, 1, nn.SiLU, True), head(6),
    )  # fmt: skip


class ChannelsLastNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.depthwise, self.norm = nn.Conv2d(n, n, 7, 1, 3, groups=n), nn.LayerNorm(n)
        self.up, self.down = nn.Linear(n, 2 * n), nn.Linear(2 * n, n)
        self.scale = nn.Parameter(torch.full((n,), 1e-6))

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


def convnext():
    return nn.Sequential(
        nn.Conv2d(3, 4, 2, 2), ChannelsLastNorm(4), ConvNext(4), ConvNext(4),
        ChannelsLastNorm(4), nn.Conv2d(4, 6, 2, 2), ConvNext(6),
        nn.AdaptiveAvgPool2d(1), ChannelsLastNorm(6), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def regnet():
    def block(i, o, stride):
        project = conv(i, o, 1, stride, act=None) if stride > 1 or i != o else None
        body = [conv(i, o, 1), conv(o, o, 3, stride, o // 2), Excited(o, nn.ReLU)]
        return Residual(nn.Sequential(*body, conv(o, o, 1, act=None)), project, nn.ReLU())

    return nn.Sequential(conv(3, 4, stride=2), block(4, 6, 2), block(6, 6, 1), head(6))


class Shuffled(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.branch = nn.Sequential(conv(n, n, 1), conv(n, n, 3, groups=n, act=None), conv(n, n, 1))

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        y = torch.cat([a, self.branch(b)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet():
    return nn.Sequential(conv(3, 8), Shuffled(4), Shuffled(4), Shuffled(4), head(8))


class Unet(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1, self.d2, self.d3 = conv(3, 4), conv(4, 6), conv(6, 8)
        self.up2, self.u2 = nn.ConvTranspose2d(8, 6, 2, 2), conv(12, 6)
        self.up1, self.u1 = nn.Upsample(scale_factor=2, mode="bilinear"), conv(10, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        c = self.d3(F.max_pool2d(b, 2))
        b = self.u2(torch.cat([b, self.up2(c)], 1))
        return self.out(self.u1(torch.cat([self.up1(b), a], 1)))


class Pooled(nn.Module):
    """A PoolFormer's block: pooling in place of attention."""

    def __init__(self, n):
        super().__init__()
        self.n1, self.n2 = nn.GroupNorm(1, n), nn.GroupNorm(1, n)
        self.up, self.down = nn.Conv2d(n, 2 * n, 1), nn.Conv2d(2 * n, n, 1)

    def forward(self, x):
        y = self.n1(x)
        x = x + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Mixer(nn.Module):
    def __init__(self, n, tokens):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(n), nn.LayerNorm(n)
        self.t1, self.t2 = nn.Linear(tokens, 7), nn.Linear(7, tokens)
        self.c1, self.c2 = nn.Linear(n, 2 * n), nn.Linear(2 * n, n)

    def forward(self, x):
        x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
        return x + self.c2(F.gelu(self.c1(self.n2(x))))


class Patches(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.project = nn.Conv2d(3, n, 4, 4)

    def forward(self, x):
        return self.project(x).flatten(2).transpose(1, 2)


class MeanOfTokens(nn.Module):
    def forward(self, x):
        return x.mean(1)


def mixer():
    return nn.Sequential(
        Patches(6), Mixer(6, 16), Mixer(6, 16), nn.LayerNorm(6), MeanOfTokens(), nn.Linear(6, 3)
    )


FAMILIES = {
    "vgg": vgg, "resnet": resnet, "bottleneck": resnet_bottleneck, "preactivation": preactivation,
    "inception": inception, "densenet": densenet, "mobilenet_v2": mobilenet,
    "mobilenet_v3": mobilenet_v3, "efficientnet": efficientnet, "convnext": convnext,
    "regnet": regnet, "shufflenet": shufflenet, "unet": Unet, "mixer": mixer,
    "poolformer": lambda: nn.Sequential(conv(3, 4), Pooled(4), Pooled(4), head(4)),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_neighbours_are_what_changes(family):
    agrees(FAMILIES[family](), image())


def test_the_check_sees_a_wrong_edge():
    """Channels that a graph has in another order are found out."""

    class Swapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = conv(3, 4), conv(4, 4, groups=2), conv(4, 4, groups=2)
            self.swap = False

        def forward(self, x):
            x = self.b(self.a(x))
            return self.c(x.flip(1)[:, [0, 2, 1, 3]] if self.swap else x)

    model = perturbation.randomized(Swapped())
    inputs = tuple(image())
    graph = read_graph(model, scope="all", residual="readers", example_inputs=inputs)
    assert perturbation.check(model, graph, inputs).agrees
    model.swap = True
    outcome = perturbation.check(model, graph, inputs)
    assert outcome.missing
    assert outcome.surplus


def grown(model, graph, inputs, *, n):
    """The response of convolutions' inputs per unit of change, and the weights of the edges.

    The change is the same at all positions; the response is its maximum over positions.
    """
    watch = perturbation.TorchWatch(model, graph, inputs, perturbation.READERS)
    rng = np.random.default_rng(0)
    starts = [layer.start for layer in graph.layers]
    pairs = []
    with watch.watching():
        baseline = watch.run({})
        found = [r for r in watch.usable() if hasattr(watch.modules[r.module], "kernel_size")]
        for at in rng.permutation(len(found))[:n]:
            origin = found[at]
            vertex = int(rng.integers(origin.size))
            read = watch.with_change(origin, vertex, baseline, np.ones_like)
            row = graph.adjacency[[starts[origin.layer] + vertex]].toarray()[0]
            for target in found:
                if target.layer <= origin.layer:
                    continue
                difference = np.abs(read[target.key] - baseline[target.key])
                largest = watch.by_vertex(target, difference).max(axis=1)
                weights = row[starts[target.layer] : starts[target.layer] + target.size]
                pairs += [(float(a), float(b)) for a, b in zip(largest, weights, strict=True) if b]
    return pairs


@pytest.mark.parametrize("family", ["resnet", "bottleneck", "inception", "densenet", "shufflenet"])
def test_edges_are_as_large_as_what_passes(family):
    """With positive weights and no activations, a change grows by the edge's weight.

    Constants stay what they are in the middle of a large image, where a kernel's entries sum
    up to its norm; features, which are means over all positions, are left out.
    """
    model = perturbation.randomized(FAMILIES[family]())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    for part in model.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.ReLU):
                setattr(part, name, nn.Identity())
            if isinstance(child, nn.BatchNorm2d) and family == "densenet":
                # Before an activation, its factor is on the way to the one who reads it.
                child.running_var.fill_(1 - child.eps)
                child.weight.data.fill_(1.0)
    inputs = tuple(image(48, 48))
    graph = read_graph(model, scope="all", residual="readers", example_inputs=inputs)
    compared = grown(model, graph, inputs, n=12)
    assert len(compared) > 20
    found, expected = np.array(compared).T
    assert_allclose(found, expected, rtol=1e-7)


# --- transformers -------------------------------------------------------------------------------

TEXT = {"input_ids": torch.tensor([[3, 5, 7, 9, 11, 13, 17, 2]])}
VOCABULARY = 40


def small(name, **settings):
    """A model of the package transformers with a small random configuration."""
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = getattr(transformers, f"{name}Config")(**settings)
    config._attn_implementation = "eager"
    return config


def made(model_name, config):
    import transformers

    return getattr(transformers, model_name)(config).double().eval()


def text_models():
    bert = {
        "vocab_size": VOCABULARY, "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 24,
    }  # fmt: skip
    llama = {
        "vocab_size": VOCABULARY, "hidden_size": 8, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 12,
        "max_position_embeddings": 24, "head_dim": 4,
    }  # fmt: skip
    return {
        "bert": ("Bert", "BertModel", bert),
        "roberta": ("Roberta", "RobertaModel", bert),
        "distilbert": (
            "DistilBert", "DistilBertModel",
            {"vocab_size": VOCABULARY, "dim": 8, "n_layers": 2, "n_heads": 2, "hidden_dim": 12},
        ),
        "gpt2": (
            "GPT2", "GPT2LMHeadModel",
            {"vocab_size": VOCABULARY, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 24},
        ),
        "llama": ("Llama", "LlamaForCausalLM", llama),
        "mistral": ("Mistral", "MistralForCausalLM", llama),
        "qwen3": ("Qwen3", "Qwen3ForCausalLM", llama),
        "t5": (
            "T5", "T5Model",
            {
                "vocab_size": VOCABULARY, "d_model": 8, "num_layers": 2, "num_heads": 2,
                "d_kv": 3, "d_ff": 12, "feed_forward_proj": "gated-gelu",
            },
        ),
    }  # fmt: skip


def image_models():
    vit = {
        "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 12, "image_size": 16, "patch_size": 4,
    }  # fmt: skip
    text = {
        "vocab_size": VOCABULARY, "hidden_size": 6, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 10, "max_position_embeddings": 24,
        "eos_token_id": 2,
    }  # fmt: skip
    return {
        "vit": ("ViT", "ViTForImageClassification", vit),
        "swin": (
            "Swin", "SwinModel",
            {
                "image_size": 32, "patch_size": 4, "embed_dim": 4, "depths": [2, 2],
                "num_heads": [2, 2], "window_size": 2,
            },
        ),
        "clip": (
            "CLIP", "CLIPModel",
            {"text_config": text, "vision_config": vit, "projection_dim": 5},
        ),
        "whisper": (
            "Whisper", "WhisperModel",
            {
                "vocab_size": VOCABULARY, "d_model": 8, "encoder_layers": 2, "decoder_layers": 2,
                "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                "encoder_ffn_dim": 10, "decoder_ffn_dim": 12, "num_mel_bins": 5,
                "max_source_positions": 10, "max_target_positions": 12, "pad_token_id": 0,
                "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
            },
        ),
    }  # fmt: skip


MODELS = [*text_models(), *image_models()]


def model_and_inputs(name):
    kind, model_name, settings = {**text_models(), **image_models()}[name]
    model = made(model_name, small(kind, **settings))
    inputs = dict(TEXT)
    if name == "t5":
        inputs["decoder_input_ids"] = TEXT["input_ids"][:, :5]
    if name in ("vit", "swin"):
        inputs = {
            "pixel_values": torch.randn(
                1, 3, 32 if name == "swin" else 16, 32 if name == "swin" else 16
            )
        }
    if name == "clip":
        inputs["pixel_values"] = torch.randn(1, 3, 16, 16)
    if name == "whisper":
        inputs = {
            "input_features": torch.randn(1, 5, 20),
            "decoder_input_ids": TEXT["input_ids"][:, :5],
        }
    return model, inputs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_transformers_neighbours_are_what_changes(name):
    model, inputs = model_and_inputs(name)
    extra = ()
    if name == "gpt2":
        from transformers.pytorch_utils import Conv1D

        extra = (Conv1D,)
    single = ("classifier", "visual_projection", "text_projection")
    agrees(model, inputs, n=15, extra=extra, watched=0.6, of_one_token=single)


def blocks_of(graph):
    """Edges by the names of two layers."""
    starts = {layer.name: layer.slice for layer in graph.layers}
    whole = graph.adjacency.toarray()

    def between(a, b):
        return whole[starts[a], starts[b]]

    return between


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_every_matrix_of_a_transformer_is_placed(name):
    model, inputs = model_and_inputs(name)
    perturbation.randomized(model)
    graph = read_graph(model, residual="stream", example_inputs=inputs)
    adjacency = graph.adjacency
    assert abs(adjacency - adjacency.T).max() == 0
    assert adjacency.diagonal().max() == 0
    constants = ("position", "relative_attention_bias", "cls_token", "class_embedding", "patch_pos")
    lost = [
        parameter.name for parameter in graph.parameters
        if len(parameter.shape) > 1 and not parameter.placed
        and not any(word in parameter.name for word in constants)
    ]  # fmt: skip
    assert lost == []
    assert read_graph(model, example_inputs=inputs).n_vertices == graph.n_vertices


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["bert", "roberta", "distilbert", "gpt2", "llama", "qwen3", "t5", "vit"]
)
def test_vertices_of_a_stream_by_formula(name):
    model, inputs = model_and_inputs(name)
    graph = read_graph(model, residual="stream", example_inputs=inputs)
    d, n_layers, mlp = 8, 2, 12
    if name in ("bert", "roberta"):
        # Words, positions and token types; the stream; scores, values and the MLP; the pooler.
        expected = VOCABULARY + 24 + 2 + d + n_layers * (2 * d + mlp) + d
    elif name == "distilbert":
        expected = VOCABULARY + 512 + d + n_layers * (2 * d + mlp)
    elif name == "gpt2":
        expected = VOCABULARY + 24 + d + n_layers * (2 * d + 4 * d) + VOCABULARY
    elif name in ("llama", "qwen3"):
        # Four query heads of four dimensions, two heads of values, a gated MLP: gate and up.
        expected = VOCABULARY + d + n_layers * (16 + 8 + 2 * mlp) + VOCABULARY
    elif name == "t5":
        # Words are shared by both stacks, and read twice; three attentions of 2 heads of 3.
        expected = 2 * VOCABULARY + 2 * d + n_layers * (3 * 2 * 6 + 2 * 2 * mlp)
    else:
        # Channels of the image, and the classes.
        expected = 3 + d + n_layers * (2 * d + mlp) + 2
    assert graph.n_vertices == expected, graph.layers


@pytest.mark.filterwarnings("ignore")
def test_attention_of_llama_is_that_of_the_definition():
    """Rows of a query head and of its keys' head are one vertex; values are their own."""
    model, inputs = model_and_inputs("llama")
    perturbation.randomized(model)
    graph = read_graph(model, residual="stream", example_inputs=inputs)
    layer = model.model.layers[0]
    weights = {
        name: np.abs(getattr(layer.self_attn, f"{name}_proj").weight.detach().numpy())
        for name in "qkvo"
    }
    gamma = np.abs(layer.input_layernorm.weight.detach().numpy())
    shared = np.zeros((8, 16))
    for query in range(16):
        shared[(query // 4 // 2) * 4 + query % 4, query] = 1
    whole = graph.adjacency.toarray()
    by_size = {}
    for one in graph.layers:
        by_size.setdefault(one.size, []).append(one)
    (stream,) = [one for one in graph.layers if "stream" in one.name]
    scores, values = (
        next(one for one in graph.layers if one.size == size and one.start > stream.start
             and one.name != stream.name)
        for size in (16, 8)
    )  # fmt: skip
    expected = (weights["q"].T + weights["k"].T @ shared) * gamma[:, None]
    assert_allclose(whole[stream.slice, scores.slice], expected, rtol=1e-9)
    expected = weights["v"].T * gamma[:, None] + weights["o"] @ shared.T
    assert_allclose(whole[stream.slice, values.slice], expected, rtol=1e-9)
    assert not whole[scores.slice, values.slice].any()


# --- numbers of vertices and edges --------------------------------------------------------------


def pairs(shapes):
    """Edges of convolutions, (out, in / groups) each."""
    return sum(out * per_group for out, per_group in shapes)


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ([64, 64, 128, 128, *[256] * 3, *[512] * 6], 4224),
        ([64, 64, 128, 128, *[256] * 4, *[512] * 8], 5504),
    ],
)
def test_vgg(widths, expected):
    """VGG-16 and VGG-19: every convolution's channels, each read by the next one alone."""
    layers = [
        layer
        for i, o in itertools.pairwise([3, *widths])
        for layer in (nn.Conv2d(i, o, 3), nn.ReLU())
    ]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    model = nn.Sequential(*layers, *pool).float()
    graph = read_graph(model, example_inputs=torch.zeros(1, 3, 48, 48, dtype=torch.float32))
    assert graph.n_vertices == sum(widths) == expected
    assert graph.n_edges == sum(a * b for a, b in itertools.pairwise(widths))


def resnet_of(stages, wide):
    """Full-size ResNet with random weights: basic blocks, or bottlenecks where `wide` is 4."""
    layers = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    i = 64
    for stage, n in enumerate(stages):
        w = 64 * 2**stage
        for at in range(n):
            stride = 2 if stage and not at else 1
            layers.append(bottleneck(i, w, 4 * w, stride) if wide == 4 else basic(i, w, stride))
            i = wide * w
    return nn.Sequential(*layers, head(i, 10))


def resnet_counts(stages, wide):
    """Vertices and edges of the paper's graphs, from the description of the architecture.

    A vertex is an input channel of a convolution (or of the classifier) that other convolutions
    write. Each sum is what all blocks of the stage up to here have added, by an identity or a
    projection; all of them connect to each of its readers.
    """
    vertices = edges = 0
    writers = [3]  # how many inputs each writer of the current sum has: the first convolution's

    def read(channels, *, times=1):
        # One reader's inputs, with an edge from each input of each writer to each of them.
        nonlocal vertices, edges
        vertices += channels * times
        edges += channels * times * sum(n for n in writers if n != 3)

    i = 64
    for stage, n in enumerate(stages):
        w = 64 * 2**stage
        for _at in range(n):
            out = wide * w
            projected = i != out
            read(i, times=2 if projected else 1)
            chain = [w, w] if wide == 4 else [w]
            for a, b in itertools.pairwise([i, *chain]):
                vertices += b
                edges += a * b
            last = chain[-1]
            writers = [i, last] if projected else [*writers, last]
            i = out
    read(i)
    return vertices, edges


@pytest.mark.parametrize(
    ("stages", "wide"),
    [
        ([2, 2, 2, 2], 1),
        pytest.param([3, 4, 6, 3], 1, marks=pytest.mark.slow),
        pytest.param([3, 4, 6, 3], 4, marks=pytest.mark.slow),
    ],
)
def test_resnet(stages, wide):
    torch.set_default_dtype(torch.float32)
    model = resnet_of(stages, wide).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[parameter == 0] = 1e-3  # one in millions is drawn as none
    graph = read_graph(model, example_inputs=torch.zeros(1, 3, 64, 64))
    vertices, edges = resnet_counts(stages, wide)
    # The classifier and what it reads are not in the paper's graphs of convolutions' channels:
    # the last sum's channels are there once.
    assert graph.n_vertices == vertices
    assert graph.n_edges == edges
    if wide == 4:
        assert (vertices, edges) == (24576, 30703616)


def densenet_121():
    layers = [conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    n = 64
    for number, depth in enumerate((6, 12, 24, 16)):
        layers.append(Dense(n, depth, 32, 128))
        n += 32 * depth
        layers += [nn.BatchNorm2d(n), nn.ReLU()]
        if number < 3:
            layers += [nn.Conv2d(n, n // 2, 1), nn.AvgPool2d(2)]
            n //= 2
    return nn.Sequential(*layers, head(n, 10))


def densenet_121_vertices():
    """Bottlenecks read all that came before them, and write 128 channels; transitions halve."""
    n, total = 64, 0
    for number, depth in enumerate((6, 12, 24, 16)):
        total += sum(n + 32 * at + 128 for at in range(depth))
        n += 32 * depth
        total += n  # a transition, or the classifier
        n = n // 2 if number < 3 else n
    return total


MOBILENET_V2 = [
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def mobilenet_v2():
    layers = [conv(3, 32, 3, 2), conv(32, 32, groups=32), conv(32, 16, 1, act=None)]
    i = 16
    for expand, o, n, stride in MOBILENET_V2:
        for at in range(n):
            layers.append(inverted(i, o, expand, 1 if at else stride))
            i = o
    return nn.Sequential(*layers, conv(320, 1280, 1), head(1280, 10))


def mobilenet_v2_vertices():
    """Of each block: its input, and the expanded channels before and after the depthwise kernel."""
    inputs = [16]
    for _, o, n, _ in MOBILENET_V2:
        inputs += [o] * n
    return 32 + 32 + sum(13 * i for i in inputs[:-1]) + 320 + 1280


def inception_v3():
    """Without the auxiliary classifier."""

    def chain(*widths, kernels):
        return nn.Sequential(
            *(conv(i, o, k) for (i, o), k in zip(itertools.pairwise(widths), kernels, strict=True))
        )

    def pooled(i, o):
        return nn.Sequential(nn.AvgPool2d(3, 1, 1), conv(i, o, 1))

    def a(i, o):
        five, three = chain(i, 48, 64, kernels=[1, 5]), chain(i, 64, 96, 96, kernels=[1, 3, 3])
        return Branches(conv(i, 64, 1), five, three, pooled(i, o))

    def c(w):
        # A kernel of 1 x 7 has as many channels as one of 3 x 3.
        once = chain(768, w, w, 192, kernels=[1, 3, 3])
        twice = chain(768, w, w, w, w, 192, kernels=[1, 3, 3, 3, 3])
        return Branches(conv(768, 192, 1), once, twice, pooled(768, 192))

    def e(i):
        def fork(n):
            return Branches(conv(n, 384), conv(n, 384))

        three = nn.Sequential(conv(i, 384, 1), fork(384))
        double = nn.Sequential(conv(i, 448, 1), conv(448, 384), fork(384))
        return Branches(conv(i, 320, 1), three, double, pooled(i, 192))

    b = Branches(
        conv(288, 384, 3, 2),
        nn.Sequential(conv(288, 64, 1), conv(64, 96), conv(96, 96, 3, 2)),
        nn.MaxPool2d(3, 2, 1),
    )
    d = Branches(
        nn.Sequential(conv(768, 192, 1), conv(192, 320, 3, 2)),
        nn.Sequential(conv(768, 192, 1), conv(192, 192), conv(192, 192), conv(192, 192, 3, 2)),
        nn.MaxPool2d(3, 2, 1),
    )
    stem = [conv(3, 32, 3, 2), conv(32, 32), conv(32, 64), nn.MaxPool2d(3, 2), conv(64, 80, 1)]
    return nn.Sequential(
        *stem, conv(80, 192), nn.MaxPool2d(3, 2), a(192, 32), a(256, 64), a(288, 64), b,
        c(128), c(160), c(160), c(192), d, e(1280), e(2048), head(2048, 10),
    )  # fmt: skip


def inception_v3_vertices():
    """From the table of the publication: what each convolution reads, but for the image."""
    stem = 32 + 32 + 64 + 80
    a = sum(4 * i + 48 + 64 + 96 for i in (192, 256, 288))
    b = 2 * 288 + 64 + 96
    c = sum(4 * 768 + 6 * w for w in (128, 160, 160, 192))
    d = 2 * 768 + 4 * 192
    e = sum(4 * i + 2 * 384 + 448 + 2 * 384 for i in (1280, 2048))
    return stem + a + b + c + d + e + 2048


@pytest.mark.parametrize(
    ("model", "vertices", "known"),
    [
        (mobilenet_v2, mobilenet_v2_vertices, 17056),
        pytest.param(densenet_121, densenet_121_vertices, 41760, marks=pytest.mark.slow),
        pytest.param(inception_v3, inception_v3_vertices, 42272, marks=pytest.mark.slow),
    ],
)
def test_numbers_of_vertices(model, vertices, known):
    torch.set_default_dtype(torch.float32)
    graph = read_graph(model().eval(), example_inputs=torch.zeros(1, 3, 96, 96))
    assert graph.n_vertices == vertices() == known


def test_hidden_states_that_transformers_hands_on_by_hooks():
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = transformers.SegformerForSemanticSegmentation(config).eval()

    def n_hooks():
        return sum(len(part._forward_hooks) for part in model.modules())

    assert n_hooks() == 0
    graph = ncut.graph(model)
    assert n_hooks() == 0  # transformers adds some when the model first runs
    assert graph.placed_share == 1.0
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    before = n_hooks()
    assert before > 0
    again = ncut.graph(model)
    assert n_hooks() == before
    assert (again.adjacency != graph.adjacency).nnz == 0


SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 50,
}


def mixture(transformers, name):
    if name == "Mixtral":
        config = transformers.MixtralConfig(**SMALL, num_local_experts=3)
        return transformers.MixtralForCausalLM(config)
    if name == "GptOss":
        config = transformers.GptOssConfig(
            **SMALL, head_dim=8, num_local_experts=3, num_experts_per_tok=2
        )
        return transformers.GptOssForCausalLM(config)
    config = transformers.Qwen3MoeConfig(
        **SMALL, head_dim=8, num_experts=3, moe_intermediate_size=24, num_experts_per_tok=2
    )
    return transformers.Qwen3MoeForCausalLM(config)


@pytest.mark.parametrize("name", ["Mixtral", "Qwen3Moe", "GptOss"])
def test_experts_read_and_write_the_stream_whichever_are_chosen(name):
    transformers = pytest.importorskip("transformers", reason="pip install transformers")
    torch.manual_seed(0)
    model = mixture(transformers, name).eval()
    graph = ncut.graph(model)
    assert graph.placed_share == 1.0
    layers = {layer.name: layer for layer in graph.layers}
    stream = layers["stream of model.embed_tokens"]
    joined = graph.adjacency[:, [*range(stream.start, stream.start + stream.size)]].toarray()
    experts = model.model.layers[1].mlp.experts
    gate_up, down = (
        getattr(experts, part).detach().abs().numpy() for part in ("gate_up_proj", "down_proj")
    )
    gamma = model.model.layers[1].post_attention_layernorm.weight.detach().abs().numpy()
    for number in range(3):
        vertices = layers[f"model.layers.1.mlp.experts.{number}.gate_up_proj"]
        read = gate_up[number] if name == "GptOss" else gate_up[number].T
        written = down[number] if name == "GptOss" else down[number].T
        # GptOss lays gates and values in turns; both reach what an expert writes.
        order = [*range(0, 48, 2), *range(1, 48, 2)] if name == "GptOss" else [*range(48)]
        expected = (read * gamma[:, None]).T.copy()
        expected[order] += np.concatenate([written, written])
        assert_allclose(joined[vertices.slice], expected, rtol=1e-5)
    routers = [item for item in graph.left_out if item.name.startswith("choices of")]
    assert len(routers) == 2
    router = next(
        layer
        for n, layer in layers.items()
        if n.startswith("model.layers.1.mlp") and (n.endswith((".gate", ".router")))
    )
    assert router.size == 3
    weight = model.get_submodule(router.name).weight.detach().abs().numpy()
    assert_allclose(joined[router.slice], weight * gamma, rtol=1e-5)


def test_graphs_and_reports_say_which_convention_of_sums_they_follow(tmp_path):
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert read_graph(model).sums == ""
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    for sums in ("readers", "stream"):
        graph = read_graph(encoder, residual=sums)
        assert graph.sums == sums
        graph.save(tmp_path / "graph.npz")
        assert read_graph(tmp_path / "graph.npz").sums == sums
        report = ncut.analyze(graph, k=2, shuffles=0)
        assert report.sums == sums
        assert f"sums          {sums}: " in str(report)
