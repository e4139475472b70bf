"""Random keys: the published generator, the compiled one, the simulator's kernel; shuffles."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import array_api_strict
import numpy as np
import pytest
from scipy import sparse, stats

import ncut
from ncut import kernels, networks
from ncut.device.devices import host_device
from ncut.device.graph import upload
from ncut.device.random import philox, random_keys
from ncut.device.shuffle import shuffle_on_device

NAMESPACES: list[Any] = [np, array_api_strict]


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # known answers that come with the generator's authors' code
        (0, 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_philox_gives_the_known_answers(xp: Any, counter: int, key: int, words: Any) -> None:
    ones = bool(counter)
    drawn = philox(
        xp.asarray([counter], dtype=xp.uint64),
        2**64 - 1 if ones else 0,
        key if ones else 0,
        key if ones else 0,
        xp,
    )
    assert tuple(int(word[0]) for word in drawn) == words


@pytest.mark.parametrize("xp", NAMESPACES)
def test_keys_are_the_words_of_the_compiled_generator(xp: Any) -> None:
    keys = np.asarray(random_keys(host_device(xp), 31, seed=2**40 + 5, stream=7, substream=3))
    words = np.stack([keys >> 32, keys & 0xFFFFFFFF], axis=1).reshape(-1)
    # Draws of a sample without spreading are its entries at words * size / 2^32.
    sample = np.arange(1024, dtype=np.float64)
    drawn = np.empty(10)
    kernels.draw_kde(sample, 0.0, drawn, 2**40 + 5, 7, 3)
    picked = {int(word >> 22) for word in words}
    assert {int(one) for one in drawn} <= picked


KERNELS = """
import numpy as np
from ncut.device.cuda import fill_keys, nearest_centres
from ncut.device.devices import host_device
from ncut.device.random import random_keys

device = host_device()
for n, seed, stream, substream in ((1, 0, 0, 0), (301, 2**63 + 11, 2**32 - 1, 9)):
    keys = np.zeros(n, np.uint64)
    fill_keys(device, keys, seed, stream, substream)
    wanted = random_keys(device, n, seed=seed, stream=stream, substream=substream)
    assert keys.any() and (keys == wanted).all()
rng = np.random.default_rng(0)
points = rng.normal(size=(40, 3)).astype(np.float32)
centres = rng.normal(size=(5, 4, 3)).astype(np.float32)
labels = np.full((40, 5), -1, np.int32)
nearest_centres(device, points, centres, labels)
distances = ((points[:, None, None, :] - centres) ** 2).sum(axis=3)
assert (labels == distances.argmin(axis=2)).all()
print("the same")
"""


def test_cuda_kernels_in_the_simulator_are_the_namespaces_functions() -> None:
    done = subprocess.run(
        [sys.executable, "-c", KERNELS],
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "the same\n", done.stderr[-2000:]


@pytest.mark.parametrize("xp", NAMESPACES)
@pytest.mark.parametrize("null", ["layer", "layer-nonzero"])
def test_every_order_is_equally_likely(xp: Any, null: str) -> None:
    weights = np.array(
        [[1.0, 2.0], [3.0, 4.0]] if null == "layer" else [[1.0, 0, 2.0], [0, 3.0, 4.0]]
    )
    graph = upload(ncut.graph([weights, np.ones((len(weights[0]), 1))]), host_device(xp))
    orders = Counter()
    for number in range(1200):
        shuffled = np.asarray(shuffle_on_device(graph, null, 1, number).blocks[0].weights)
        assert null == "layer" or ((shuffled == 0) == (weights == 0)).all()
        orders[tuple(shuffled[shuffled != 0])] += 1
    counts = [orders[order] for order in itertools.permutations([1.0, 2.0, 3.0, 4.0])]
    assert sum(counts) == 1200
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("null", ["layer", "layer-nonzero"])
def test_sparse_blocks_keep_their_weights(null: str) -> None:
    rng = np.random.default_rng(3)
    block = sparse.random_array((20, 30), density=0.1, rng=rng, format="csr", dtype=np.float32)
    graph = ncut.graph([block.toarray(), np.ones((30, 1))]).without_isolated()[0]
    on_device = upload(graph, host_device())
    assert hasattr(on_device.blocks[0].weights, "indptr")
    shuffled = shuffle_on_device(on_device, null, 0, 0).blocks[0].weights
    ours = shuffled.matrix(on_device.device, np.float32)
    weights = graph.blocks[0].weights
    np.testing.assert_array_equal(np.sort(ours.data), np.sort(weights.data))
    same = (ours.toarray() != 0) == (weights.toarray() != 0)
    assert same.all() == (null == "layer-nonzero")
    assert (ours.toarray() != weights.toarray()).any()


@pytest.mark.slow
def test_shuffles_have_the_n_cuts_of_the_hosts_shuffles() -> None:
    graph = ncut.graph(networks.load("digits-pruned")).without_isolated()[0]
    on_device = upload(graph, host_device())

    def lower_bound(shuffled: Any) -> float:
        return ncut.cluster(shuffled, 12, n_init=1).lower_bound

    def from_device(number: int) -> float:
        shuffled = shuffle_on_device(on_device, "layer", 5, number)
        return lower_bound(ncut.graph([dense(block.weights) for block in shuffled.blocks]))

    def dense(weights: Any) -> Any:
        sparse_here = hasattr(weights, "indptr")
        return weights.matrix(host_device(), np.float32).toarray() if sparse_here else weights

    ours = [from_device(number) for number in range(60)]
    theirs = [lower_bound(ncut.shuffle(graph, "layer", 6, number)) for number in range(60)]
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
