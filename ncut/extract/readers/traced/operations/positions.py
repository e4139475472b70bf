"""Pooling, padding and patches, which change positions and keep channels."""

from __future__ import annotations

import math

from ncut.extract.program.values import Value, expanded, merged, reshaped, unsqueezed
from ncut.extract.readers.traced.operations.common import rest
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table


def _positions(call: Call) -> Value | list[Value]:
    nearest = "upsample_nearest" in call.function
    signal = call.program.positions(call.signal(0, "self"), call.shape, nearest=nearest)
    return [signal, *rest(call)] if len(call.shapes) > 1 else signal


def _sampled(call: Call) -> Value:
    """`F.grid_sample(input, grid)`: the neurons of a grid choose positions."""
    call.program.places(call.signal(1, "grid"), call.tracing.path)
    return call.program.positions(call.signal(0), call.shape)


def _grid(call: Call) -> Value:
    """`F.affine_grid(theta, size)`: positions, which carry no neurons."""
    call.program.places(call.signal(0, "theta"), call.tracing.path)
    return Value(call.shape)


def _pad(call: Call) -> Value:
    """Padding of positions; padded channels carry no neurons."""
    signal, widths = call.signal(0, "self"), list(call.arg(1, "pad"))
    for number in range(len(widths) // 2):
        before, after = widths[2 * number : 2 * number + 2]
        if before or after:
            axis, fill = signal.ndim - 1 - number, call.arg(2, "value", 0)
            signal = call.program.pad(signal, axis, before, after, fill=fill)
    return signal


def _im2col(call: Call) -> Value:
    """Concatenated patches: (n, c, positions...) -> (n, c * kernel, patches)."""
    signal, kernel = call.signal(0, "self"), call.arg(1, "kernel_size")
    n, c = signal.shape[:2]
    n_patches = call.shape[-1]
    size = math.prod(kernel)
    flat = reshaped(signal, (n, c, math.prod(signal.shape[2:])))
    wide = unsqueezed(call.program.positions(flat, (n, c, 1)), 3)
    return reshaped(expanded(wide, (n, c, size, n_patches)), call.shape)


def _col2im(call: Call) -> Value:
    """Patches summed where they overlap: (n, c * kernel, patches) -> (n, c, positions...)."""
    signal, kernel = call.signal(0, "self"), call.arg(2, "kernel_size")
    n, n_patches = signal.shape[0], signal.shape[-1]
    size = math.prod(kernel)
    c = signal.shape[1] // size
    summed = merged(reshaped(signal, (n, c, size, n_patches)), [2])
    placed = call.program.positions(summed, (n, c, math.prod(call.shape[2:])))
    return reshaped(placed, call.shape)


RULES = table(
    (
        "avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d "
        "max_pool2d_with_indices max_pool3d_with_indices _adaptive_avg_pool2d "
        "_adaptive_avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool1d "
        "adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d fractional_max_pool3d "
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d upsample_linear1d upsample_bilinear2d upsample_bicubic2d "
        "upsample_trilinear3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa reflection_pad1d "
        "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
        "max_unpool2d max_unpool3d",
        _positions,
    ),
    ("grid_sampler_2d grid_sampler_3d", _sampled),
    ("affine_grid_generator", _grid),
    ("constant_pad_nd", _pad),
    ("im2col", _im2col),
    ("col2im", _col2im),
)  # fmt: skip
