"""Small transformers: graphs against their own responses and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

import ncut
from ncut.extract import read_graph

torch = pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from torch import nn  # noqa: E402
from vision_nets import agrees  # noqa: E402

from ncut.extract.readers.traced import running as perturbation  # noqa: E402

pytestmark = pytest.mark.usefixtures("doubles")


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
def test_transformers_neighbours_are_the_neurons_that_change(name):
    model, inputs = model_and_inputs(name)
    extra = ()
    if name == "gpt2":
        from transformers.pytorch_utils import Conv1D

        extra = (Conv1D,)
    single = ("classifier", "visual_projection", "text_projection")
    agrees(model, inputs, n=15, extra=extra, watched=0.6, of_one_token=single)


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
def test_experts_read_and_write_the_stream_for_any_choice(name):
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
