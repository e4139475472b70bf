"""Ablations, separations and agreements as plain text, at most 80 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ncut.functional.ablation import Ablation, AblationRow
    from ncut.functional.activations import Agreement
    from ncut.functional.separate import Separation

WIDTH = 80
LAYER_WIDTH = 14


def ablation_text(ablation: Ablation) -> str:
    """The intact loss, a line per set of neurons, and what to make of them."""
    by_layer = any(row.layer is not None for row in ablation.rows)
    lines = [f"loss {ablation.baseline:.4g} intact; importance: how much silencing adds to it"]
    layer = "layer" if by_layer else None
    lines.append(_line("cluster", layer, "neurons", "importance", "random sets", "Z", "p"))
    ordered = sorted(ablation.rows, key=lambda row: row.cluster)
    lines += [_row_line(row, ablation.baseline) for row in ordered]
    lines += textwrap.wrap(_outcome(ablation), WIDTH)
    lines += textwrap.wrap(_interaction(ablation), WIDTH)
    return "\n".join(lines)


def agreement_text(agreement: Agreement) -> str:
    """Both n-cuts, the Rand index with its p, and those within layers."""
    within = ", ".join(
        f"{_shorten(name, LAYER_WIDTH)} {_number(value, '.3f')}"
        for name, value in zip(agreement.layers, agreement.within_layers, strict=True)
    )
    sentences = (
        f"correlations over {agreement.n_examples:,} examples: n-cut {agreement.ncut:.4g} in "
        f"k = {agreement.k} clusters, {agreement.weight_partition_ncut:.4g} in the weights' own",
        f"adjusted Rand index of both {agreement.adjusted_rand_index:.3f} over "
        f"{agreement.n_compared:,} neurons (p = {agreement.p_value:.3g}, permuting within layers)",
        f"within layers: {within}",
    )
    return "\n".join(line for sentence in sentences for line in textwrap.wrap(sentence, WIDTH))


def separation_text(separation: Separation) -> str:
    """Scores intact and cut apart, random partitions, a line per cluster kept alone."""
    found = separation
    cut = f"cut apart {found.cut_score:.4g}"
    if found.kept is not None:
        cut += f": {found.kept:.0%} of what is above chance ({found.chance:.3g}) is kept"
    sentences = [f"score {found.score:.4g} intact, {cut}"]
    if found.p_value is not None:
        kept = "" if found.random_kept is None else f" {found.random_kept:.0%} is kept"
        sentences.append(
            f"cut at {len(found.random_scores)} random partitions of the same sizes{kept} "
            f"(score {found.random_scores.mean():.4g}, at most {found.random_scores.max():.4g}; "
            f"p = {found.p_value:.3g})"
        )
    if found.worst_layer is not None:
        worst = found.layers[found.effective_clusters.index(found.worst_layer)]
        kind = "stages that follow each other" if found.worst_layer < 1.5 else "side by side"
        sentences.append(
            f"effective number of clusters in the worst hidden layer {found.worst_layer:.2g} of "
            f"{found.k} ({_shorten(worst, LAYER_WIDTH)}): {kind}"
        )
    if found.shared:
        sentences.append(
            f"{found.shared:.0%} of the weights inside of clusters are also between clusters and "
            "were removed with them"
        )
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, WIDTH)]
    if found.rows:
        lines.append(f"{'kept alone':<24}{'neurons':>10}{'score':>12}{'share kept':>14}")
    for row in found.rows:
        names = _shorten(", ".join(map(str, row.clusters)), 22)
        share = "-" if row.kept is None else f"{row.kept:.0%}"
        lines.append(f"{names:<24}{row.n_neurons:>10,}{row.score:>12.4g}{share:>14}")
    return "\n".join(lines)


def _line(
    cluster: str, layer: str | None, size: str, importance: str, random: str, z: str, p: str
) -> str:
    name = "" if layer is None else f"  {_shorten(layer, LAYER_WIDTH):<{LAYER_WIDTH}}"
    return f"{cluster:>7}{name}{size:>8}{importance:>12}{random:>20}{z:>10}{p:>7}"


def _row_line(row: AblationRow, baseline: float) -> str:
    spread = "-"
    if row.random_mean is not None:
        spread = f"{row.random_mean - baseline:.3g} ± {row.random_std:.2g}"
    return _line(
        str(row.cluster),
        row.layer,
        f"{row.n_neurons:,}",
        f"{row.importance:.4g}",
        spread,
        _number(row.z_score, ".3g"),
        _number(row.p_value, ".3f"),
    )


def _outcome(ablation: Ablation) -> str:
    what = "sets" if any(row.layer is not None for row in ablation.rows) else "clusters"
    n = len(ablation.rows)
    if not ablation.random_sets:
        return f"{n} {what}, compared with no random sets"
    text = (
        f"{len(ablation.important)} of {n} {what} are more important than {ablation.random_sets} "
        f"random sets of as many neurons of each layer (p <= 0.05; not corrected for the number "
        f"of {what})"
    )
    if ablation.smallest_p > 0.05:
        text += f"; that takes 19 random sets or more, of {ablation.random_sets} no p is below 0.05"
    return text


def _interaction(ablation: Ablation) -> str:
    if not ablation.pairs:
        return ""
    largest = max(ablation.pairs, key=lambda pair: abs(pair.interaction))
    return (
        f"largest interaction of {len(ablation.pairs)} pairs: {largest.interaction:.4g} more loss "
        f"than the sum of both, clusters {largest.first} and {largest.second}"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _shorten(text: str, width: int) -> str:
    """The name in printable characters, its middle left out where it is longer than `width`."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
