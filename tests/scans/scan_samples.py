"""Small models for scans."""

from __future__ import annotations

import os
from itertools import pairwise

import numpy as np

SIZES = (20, 16, 12, 8)
OPTIONS = {"k": 3, "shuffles": 6, "tests": []}


def write_model(path, seed):
    """A sparse network, clusterable enough that shuffles differ."""
    rng = np.random.default_rng(seed)
    weights = {
        f"w{number}": rng.normal(size=shape) * (rng.random(shape) < 0.5)
        for number, shape in enumerate(pairwise(SIZES))
    }
    np.savez(path, **weights)
    os.utime(path, ns=(0, 10**18 + seed))
