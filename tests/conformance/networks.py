"""The networks that every reader must turn into the same graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from formats import drawn, positive

FEATURES = (torch.ones(2, 6),)
STEPS = (torch.ones(2, 7, 6),)
IMAGES = (torch.ones(2, 3, 8, 8),)
TOKENS = (torch.ones(2, 7, dtype=torch.int64),)


@dataclass(frozen=True)
class Network:
    """A network and its expected graph.

    Attributes
    ----------
    body : callable
        Called with a `Net` and its inputs.
    inputs : tuple of Tensor
        Example inputs.
    sizes : list of int, optional
        Sizes of its layers with residual="readers", counted by hand.
    n_edges : int, optional
        Its edges with residual="readers", counted by hand.
    without : tuple of str
        Formats that cannot hold it.
    """

    body: Callable[..., Any]
    inputs: tuple[Any, ...]
    sizes: list[int] | None = None
    n_edges: int | None = None
    without: tuple[str, ...] = ()


NETWORKS: dict[str, Network] = {}


def network(inputs: tuple[Any, ...], sizes: Any = None, n_edges: Any = None, without: str = ""):
    """Add a function to the table."""

    def add(body: Any) -> Any:
        name = body.__name__.replace("_", " ").strip()
        NETWORKS[name] = Network(body, inputs, sizes, n_edges, tuple(without.split()))
        return body

    return add


# --- chains and functions of each entry -----------------------------------------------------------


@network(FEATURES, [6, 5, 4], 50)
def chain(n, x):
    return n.linear(n.pointwise(n.linear(x, "a", 6, 5), "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def tanh(n, x):
    return n.linear(n.pointwise(n.linear(x, "a", 6, 5), "tanh"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def maximum_with_zero(n, x):
    return n.linear(n.above(n.linear(x, "a", 6, 5), 0.0), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def minimum_with_zero(n, x):
    return n.linear(n.below(n.linear(x, "a", 6, 5), 0.0), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def maximum_with_one(n, x):
    return n.linear(n.above(n.linear(x, "a", 6, 5), 1.0), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def a_number_times(n, x):
    return n.linear(n.pointwise(n.times(n.linear(x, "a", 6, 5), 3.0), "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def a_number_added(n, x):
    return n.linear(n.pointwise(n.plus(n.linear(x, "a", 6, 5), 3.0), "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def factors_of_neurons(n, x):
    h = n.scaled(n.linear(x, "a", 6, 5), "g", positive("g", 5))
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def factors_after_an_activation(n, x):
    h = n.scaled(n.pointwise(n.linear(x, "a", 6, 5), "relu"), "g", positive("g", 5))
    return n.linear(h, "b", 5, 4)


@network(STEPS, [6, 6, 4], 60)
def factors_of_positions(n, x):
    h = n.scaled(n.linear(x, "a", 6, 6), "m", np.linspace(0.5, 1.5, 7)[:, None])
    return n.linear(h, "b", 6, 4)


@network(FEATURES, [6, 5, 4], 50)
def a_branch_times_zero(n, x):
    h = n.add(n.linear(x, "a", 6, 5), n.times(n.linear(x, "r", 6, 5), 0.0))
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


@network(FEATURES)
def a_function_of_two_ways(n, x):
    a = n.linear(x, "a", 6, 5)
    return n.linear(n.multiply(n.times(a, 0.5), n.plus(n.pointwise(a, "tanh"), 1.0)), "b", 5, 4)


# --- sums, products, several readers --------------------------------------------------------------


@network(FEATURES, [6, 5, 5, 4], 30 + 25 + 30 + 20)
def residual_sum(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 5), "relu")
    h = n.add(h, n.pointwise(n.linear(h, "f", 5, 5), "relu"))
    return n.linear(h, "b", 5, 4)


@network(FEATURES)
def two_residual_sums(n, x):
    h = n.linear(x, "a", 6, 5)
    for at in range(2):
        inner = n.pointwise(n.linear(h, f"up{at}", 5, 7), "relu")
        h = n.add(h, n.linear(inner, f"down{at}", 7, 5))
    return n.linear(h, "b", 5, 4)


@network(FEATURES)
def a_factor_before_the_stream(n, x):
    h = n.times(n.linear(x, "a", 6, 5), 100.0)
    return n.linear(n.add(h, n.linear(h, "f", 5, 5)), "b", 5, 4)


@network(FEATURES)
def a_difference(n, x):
    h = n.subtract(n.linear(x, "a", 6, 5), n.linear(x, "c", 6, 5))
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def a_sum_of_multiples(n, x):
    h = n.linear(x, "a", 6, 5)
    less = n.add(n.subtract(h, n.scaled(h, "s", drawn("s", 5))), n.pointwise(h, "neg"))
    return n.linear(n.pointwise(n.add(less, n.times(h, 0.5)), "relu"), "b", 5, 4)


@network(FEATURES)
def layers_mixed_by_shares(n, x):
    first, second = n.linear(x, "a", 6, 5), n.linear(x, "c", 6, 5)
    h = n.add(first, n.scaled(n.subtract(second, first), "s", drawn("s", 5)))
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def a_layer_that_is_taken_away_again(n, x):
    first, second = n.linear(x, "a", 6, 5), n.linear(x, "c", 6, 5)
    h = n.add(first, n.subtract(second, first))
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 30 + 30 + 20)
def a_gate(n, x):
    h = n.multiply(n.linear(x, "a", 6, 5), n.pointwise(n.linear(x, "g", 6, 5), "sigmoid"))
    return n.linear(h, "b", 5, 4)


@network(FEATURES, [6, 5, 4, 3], 30 + 20 + 15)
def two_heads(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 5), "relu")
    return [n.linear(h, "b", 5, 4), n.linear(h, "c", 5, 3)]


@network(FEATURES, [6, 5, 4], 30 + 20)
def a_hidden_layer_that_is_returned(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 5), "relu")
    return [n.linear(h, "b", 5, 4), h]


@network(FEATURES)
def concatenated(n, x):
    h = n.concatenate([n.linear(x, "a", 6, 5), n.linear(x, "c", 6, 3)], 1)
    return n.linear(n.pointwise(h, "relu"), "b", 8, 4)


@network(FEATURES)
def concatenated_with_the_input(n, x):
    h = n.concatenate([x, n.pointwise(n.linear(x, "a", 6, 5), "relu")], 1)
    return n.linear(h, "b", 11, 4)


@network(FEATURES, [6, 5, 4], 50)
def sliced(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 8), "relu")
    return n.linear(n.take(h, 1, 1, 6), "b", 5, 4)


@network(FEATURES)
def shared_weights(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 6), "relu")
    return n.linear(n.pointwise(n.linear(h, "a", 6, 6), "relu"), "b", 6, 4)


@network(FEATURES, without="keras")
def stacked_heads(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 5), "relu")
    return n.stack([n.linear(h, f"h{at}", 5, 4) for at in range(3)], 1)


@network(FEATURES, [6, 5, 4], 30 + 20)
def features_of_the_input(n, x):
    h = n.concatenate([x, n.pointwise(x, "sin"), n.pointwise(n.times(x, 2.0), "sin")], 1)
    return n.linear(n.pointwise(n.linear(h, "a", 18, 5), "relu"), "b", 5, 4)


@network(FEATURES, without="keras")
def noise_times_a_layer(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 5), "relu")
    spread = n.linear(h, "s", 5, 3)
    z = n.add(n.linear(h, "m", 5, 3), n.multiply(spread, n.noise(spread)))
    return n.linear(z, "b", 3, 6)


# --- norms ----------------------------------------------------------------------------------------


@network(FEATURES, [6, 5, 4], 50)
def batch_norm(n, x):
    h = n.batch_norm(n.linear(x, "a", 6, 5), "norm", 5)
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def batch_norm_after_an_activation(n, x):
    h = n.batch_norm(n.pointwise(n.linear(x, "a", 6, 5), "relu"), "norm", 5)
    return n.linear(h, "b", 5, 4)


@network(FEATURES, [6, 5, 4], 50)
def layer_norm(n, x):
    h = n.layer_norm(n.linear(x, "a", 6, 5), "norm", 5)
    return n.linear(n.pointwise(h, "relu"), "b", 5, 4)


def rms(n, x, name="", width=0):
    mean = n.reduce(n.pointwise(x, "square"), "mean", [-1])
    x = n.divide(x, n.pointwise(n.plus(mean, 1e-6), "sqrt"))
    return n.scaled(x, name, positive(name, width)) if name else x


@network(STEPS, [6, 6, 4], 60)
def rms_norm_written_out(n, x):
    return n.linear(rms(n, n.linear(x, "a", 6, 6), "g", 6), "b", 6, 4)


@network(STEPS, [6, 6, 4], 60)
def rms_norm_of_each_head_written_out(n, x):
    h = rms(n, n.reshape(n.linear(x, "a", 6, 6), 7, 2, 3))
    return n.linear(n.reshape(h, 7, 6), "b", 6, 4)


@network(STEPS, [6, 6, 4], 60)
def layer_norm_written_out(n, x):
    x = n.linear(x, "a", 6, 6)
    x = n.subtract(x, n.reduce(x, "mean", [-1]))
    mean = n.reduce(n.pointwise(x, "square"), "mean", [-1])
    x = n.divide(x, n.pointwise(n.plus(mean, 1e-6), "sqrt"))
    return n.linear(n.scaled(x, "g", positive("g", 6)), "b", 6, 4)


# --- images ---------------------------------------------------------------------------------------


@network(IMAGES, [3, 4, 5], 12 + 20)
def convolutions(n, x):
    return n.conv(n.pointwise(n.conv(x, "a", 3, 4, 3), "relu"), "b", 4, 5, 3)


@network(IMAGES, [3, 4, 6, 5], 12 + 12 + 30)
def grouped_convolution(n, x):
    h = n.pointwise(n.conv(x, "a", 3, 4, 3), "relu")
    return n.conv(n.pointwise(n.conv(h, "g", 4, 6, 3, 2), "relu"), "b", 6, 5)


@network(IMAGES, [3, 4, 4, 5], 12 + 4 + 20)
def depthwise_convolution(n, x):
    h = n.pointwise(n.conv(x, "a", 3, 4, 3), "relu")
    return n.conv(n.pointwise(n.conv(h, "g", 4, 4, 3, 4), "relu"), "b", 4, 5)


@network(IMAGES, [3, 4, 5, 2], 12 + 20 + 10)
def a_small_image_classifier(n, x):
    h = n.pool(n.pointwise(n.batch_norm(n.conv(x, "a", 3, 4, 3), "norm", 4), "relu"))
    h = n.average(n.pointwise(n.conv(h, "b", 4, 5, 3), "relu"))
    return n.linear(h, "c", 5, 2)


@network(IMAGES, [3, 4, 5], 12 + 20)
def pixels_averaged_first(n, x):
    h = n.reduce(x, "mean", [2, 3], False)
    return n.linear(n.pointwise(n.linear(h, "a", 3, 4), "relu"), "b", 4, 5)


@network(IMAGES)
def squeeze_and_excitation(n, x):
    h = n.pointwise(n.conv(x, "a", 3, 4, 3), "relu")
    s = n.reduce(h, "mean", [2, 3])
    g = n.conv(n.pointwise(n.conv(s, "down", 4, 2), "relu"), "up", 2, 4)
    return n.conv(n.multiply(h, n.pointwise(g, "sigmoid")), "b", 4, 5)


@network(IMAGES)
def residual_convolutions(n, x):
    h = n.pointwise(n.conv(x, "a", 3, 4, 3), "relu")
    h = n.add(h, n.batch_norm(n.conv(h, "f", 4, 4), "norm", 4))
    return n.conv(n.pointwise(h, "relu"), "b", 4, 5)


@network(IMAGES)
def concatenated_channels(n, x):
    h = n.pointwise(n.conv(x, "a", 3, 4), "relu")
    h = n.concatenate([h, n.pointwise(n.conv(h, "f", 4, 2), "relu")], 1)
    return n.conv(h, "b", 6, 5)


@network(IMAGES)
def a_flattened_convolution(n, x):
    h = n.pool(n.pointwise(n.conv(x, "a", 3, 4, 3), "relu"))
    return n.linear(n.pointwise(n.linear(n.reshape(h, 36), "b", 36, 5), "relu"), "c", 5, 2)


# --- contractions ---------------------------------------------------------------------------------


def _attention(n, x, width, heads, each):
    q, k, v = (n.reshape(n.linear(x, c, width, heads * each), 7, heads, each) for c in "qkv")
    q, v = (n.permute(value, 0, 2, 1, 3) for value in (q, v))
    scores = n.softmax(n.times(n.matmul(q, n.permute(k, 0, 2, 3, 1)), 0.5), -1)
    mixed = n.permute(n.matmul(scores, v), 0, 2, 1, 3)
    return n.linear(n.reshape(mixed, 7, heads * each), "o", heads * each, width)


@network(STEPS)
def attention(n, x):
    return n.linear(_attention(n, x, 6, 2, 4), "b", 6, 3)


@network(STEPS)
def a_transformer_block(n, x):
    h = n.linear(x, "e", 6, 6)
    h = n.add(h, _attention(n, rms(n, h, "g1", 6), 6, 2, 4))
    inner = n.pointwise(n.linear(rms(n, h, "g2", 6), "up", 6, 9), "relu")
    return n.add(h, n.linear(inner, "down", 9, 6))


@network(STEPS)
def attention_with_norms_of_queries_and_keys(n, x):
    q, k, v = (n.reshape(n.linear(x, c, 6, 2 * 72), 7, 2, 72) for c in "qkv")
    q, k = rms(n, q, "gq", 72), rms(n, k, "gk", 72)
    q, v = (n.permute(value, 0, 2, 1, 3) for value in (q, v))
    scores = n.softmax(n.matmul(q, n.permute(k, 0, 2, 3, 1)), -1)
    mixed = n.permute(n.matmul(scores, v), 0, 2, 1, 3)
    return n.linear(n.reshape(mixed, 7, 144), "o", 144, 4)


def _towers(n, x):
    return [n.linear(n.pointwise(n.linear(x, f"{c}0", 6, 5), "relu"), c, 5, 4) for c in "uv"]


@network(FEATURES)
def two_towers_that_meet_in_a_sum(n, x):
    u, v = _towers(n, x)
    return n.reduce(n.multiply(u, v), "sum", [-1])


@network(FEATURES)
def two_towers_that_meet_in_a_product(n, x):
    u, v = _towers(n, x)
    return n.reshape(n.matmul(n.reshape(u, 1, 4), n.reshape(v, 4, 1)), 1)


@network(FEATURES)
def a_soft_mixture(n, x):
    g = n.softmax(n.linear(x, "gate", 6, 3), -1)
    e = n.stack([n.pointwise(n.linear(x, f"e{at}", 6, 4), "relu") for at in range(3)], 1)
    h = n.reduce(n.multiply(n.reshape(g, 3, 1), e), "sum", [1], False)
    return n.linear(h, "b", 4, 2)


@network(FEATURES)
def a_soft_mixture_as_a_product_of_matrices(n, x):
    g = n.softmax(n.linear(x, "gate", 6, 3), -1)
    e = n.stack([n.pointwise(n.linear(x, f"e{at}", 6, 4), "relu") for at in range(3)], 1)
    h = n.reshape(n.matmul(n.reshape(g, 1, 3), e), 4)
    return n.linear(h, "b", 4, 2)


@network(FEATURES, [6, 5, 4, 3], 30 + 20 + 12)
def a_product_with_weights_by_broadcasting(n, x):
    h = n.reshape(n.pointwise(n.linear(x, "a", 6, 5), "relu"), 1, 5)
    h = n.reduce(n.scaled(h, "w", drawn("w", 4, 5)), "sum", [-1], False)
    return n.linear(n.pointwise(h, "relu"), "b", 4, 3)


@network(FEATURES, without="keras")
def a_router(n, x):
    h = n.pointwise(n.linear(x, "a", 6, 6), "relu")
    shares = n.largest(n.softmax(n.linear(h, "r", 6, 4), -1), 2)
    return n.multiply(n.linear(h, "b", 6, 4), n.reduce(shares, "sum", [-1]))


# --- sequences ------------------------------------------------------------------------------------


@network(STEPS)
def lstm(n, x):
    return n.linear(n.recurrent(x, "cell", "LSTM", 6, 5)[0], "b", 5, 4)


@network(STEPS)
def gru(n, x):
    return n.linear(n.recurrent(x, "cell", "GRU", 6, 5)[0], "b", 5, 4)


@network(STEPS)
def plain_recurrent_layer(n, x):
    return n.linear(n.recurrent(x, "cell", "RNN", 6, 5)[0], "b", 5, 4)


@network(STEPS)
def lstm_that_returns_its_states(n, x):
    sequence, *states = n.recurrent(x, "cell", "LSTM", 6, 5)
    return [n.linear(sequence, "b", 5, 4), *states]


@network((torch.ones(2, 7, 6), torch.ones(2, 7, 3)))
def an_encoder_that_starts_a_decoder(n, x, y):
    _, state = n.recurrent(x, "enc", "GRU", 6, 5)
    return n.linear(n.recurrent(y, "dec", "GRU", 3, 5, [state])[0], "b", 5, 4)


@network((torch.ones(2, 7, 6), torch.ones(2, 7, 3)))
def an_lstm_that_starts_another(n, x, y):
    _, *states = n.recurrent(x, "enc", "LSTM", 6, 5)
    return n.linear(n.recurrent(y, "dec", "LSTM", 3, 5, states)[0], "b", 5, 4)


@network((torch.ones(2, 6), torch.ones(2, 7, 3)))
def a_layer_that_starts_a_recurrent_one(n, x, y):
    state = n.pointwise(n.linear(x, "img", 6, 5), "tanh")
    return n.linear(n.recurrent(y, "dec", "RNN", 3, 5, [state])[0], "b", 5, 4)


@network(TOKENS, [9, 6, 4], 54 + 24)
def embedded_tokens(n, ids):
    return n.linear(n.embedding(ids, "e", 9, 6), "b", 6, 4)


@network(TOKENS, [9, 6, 4], 54 + 24)
def averaged_tokens(n, ids):
    return n.linear(n.reduce(n.embedding(ids, "e", 9, 6), "mean", [1], False), "b", 6, 4)
