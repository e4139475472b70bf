"""Pooling, padding and patches change positions; sums, sorting and choices go along axes."""

from __future__ import annotations

import math

from ncut.extract.program.values import Known, Value, expanded, merged, reshaped, unsqueezed
from ncut.extract.readers.traced.operations.common import choices, listed, operand, rest
from ncut.extract.readers.traced.tracing import Call
from ncut.extract.registry import table

KINDS = {
    **{"amax": "max", "amin": "min", "linalg_vector_norm": "norm"},
    **{"var_mean": "var", "std_mean": "std", "nansum": "sum"},
}
"""Reductions whose kind differs from their name."""


# --- positions ----------------------------------------------------------------------------------


def _positions(call: Call) -> list[Value]:
    nearest = "upsample_nearest" in call.function
    return [call.program.positions(call.signal(), call.shape, nearest=nearest), *rest(call)]


def _sampled(call: Call) -> Value:
    """`F.grid_sample(input, grid)`: the neurons of a grid choose positions."""
    call.program.places(call.signal(1, "grid"), call.tracing.path)
    return call.program.positions(call.signal(), call.shape)


def _grid(call: Call) -> Value:
    """`F.affine_grid(theta, size)`: positions, which carry no neurons."""
    call.program.places(call.signal(), call.tracing.path)
    return Value(call.shape)


def _pad(call: Call) -> Value:
    """Padding of positions; padded channels carry no neurons."""
    signal, widths = call.signal(), list(call.arg(1, "pad"))
    for number in range(len(widths) // 2):
        before, after = widths[2 * number : 2 * number + 2]
        if before or after:
            axis, fill = signal.ndim - 1 - number, call.arg(2, "value", 0)
            signal = call.program.pad(signal, axis, before, after, fill=fill)
    return signal


def _im2col(call: Call) -> Value:
    """Concatenated patches: (n, c, positions...) -> (n, c * kernel, patches)."""
    signal, size = call.signal(), math.prod(call.arg(1, "kernel_size"))
    n, c = signal.shape[:2]
    flat = reshaped(signal, (n, c, math.prod(signal.shape[2:])))
    wide = unsqueezed(call.program.positions(flat, (n, c, 1)), 3)
    return reshaped(expanded(wide, (n, c, size, call.shape[-1])), call.shape)


def _col2im(call: Call) -> Value:
    """Patches summed where they overlap: (n, c * kernel, patches) -> (n, c, positions...)."""
    signal, size = call.signal(), math.prod(call.arg(2, "kernel_size"))
    n, c = signal.shape[0], signal.shape[1] // size
    summed = merged(reshaped(signal, (n, c, size, signal.shape[-1])), [2])
    placed = call.program.positions(summed, (n, c, math.prod(call.shape[2:])))
    return reshaped(placed, call.shape)


# --- sums, sorting and choices along axes -------------------------------------------------------


def _reduce(call: Call) -> Value | list[Value]:
    axes, signal = call.arg(1, "dim"), call.signal()
    if isinstance(axes, bool) or axes in (None, []):
        axes = list(range(signal.ndim))
    keepdim = len(call.shape) == signal.ndim and signal.ndim > 0
    kind, name = KINDS.get(call.function, call.function), _placed(call, call.function)
    if kind == "norm" and call.arg(1, "ord", call.arg(1, "p", 2)) == 2:
        made = call.program.distance(signal, listed(axes), keepdim, name)
        if made is not None:
            return made
    result = call.program.reduce(signal, listed(axes), keepdim=keepdim, kind=kind, name=name)
    return [result] * len(call.shapes)


def _placed(call: Call, what: str) -> str:
    """A name with the module in which something happens."""
    return f"{what} in {call.tracing.path}" if call.tracing.path else what


def _distances(call: Call) -> Value:
    """`torch.cdist(x, y)`: a distance for each pair of rows."""
    name = _placed(call, "distances")
    rows, columns = (call.tracing.signal_of(value) for value in call.args[:2])
    rows, columns = unsqueezed(rows, rows.ndim - 1), unsqueezed(columns, columns.ndim - 2)
    for at, given in enumerate(call.args[:2]):
        centres = operand(call, given.unsqueeze(-2 - at))
        if isinstance(centres, Known) and call.arg(2, "p", 2) == 2:
            differences = call.program.shifted((columns, rows)[at], centres)
            made = call.program.distance(differences, [-1], False, name)
            if made is not None:
                return made
    wide = call.program.add(rows, columns)
    return call.program.reduce(wide, [-1], keepdim=False, kind="distance", name=name)


def _chosen_index(call: Call) -> Value:
    """Indices along an axis: numbers without neurons that record a choice."""
    signal, axis = call.signal(), call.arg(1, "dim")
    if axis is not None and call.function != "count_nonzero" and signal.ndim:
        call.program.chosen(signal, axis, choices(call))
    return Value(call.shape)


def _along_axis(call: Call) -> list[Value]:
    """Sorting, cumulative sums and similar; neurons along other axes are unchanged."""
    axis = call.arg(2 if call.function == "topk" else 1, "dim", -1)
    if isinstance(axis, bool):
        axis = call.arg(2, "dim", -1)
    if call.function == "topk":
        return [*call.program.largest(call.signal(), axis, call.shape, choices(call))]
    made = call.program.ordered(call.function, call.signal(), axis, call.shape, choices(call))
    return [made, *rest(call)]


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
    (
        "mean sum amax amin max min prod var std var_mean std_mean logsumexp linalg_vector_norm "
        "norm any all nansum median nanmedian kthvalue",
        _reduce,
    ),
    ("_cdist_forward _euclidean_dist", _distances),
    ("argmax argmin count_nonzero", _chosen_index),
    ("cumsum cumprod sort topk cummax logcumsumexp", _along_axis),
)
