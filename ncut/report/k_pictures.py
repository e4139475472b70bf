"""Pictures of the HTML page over the number of clusters: eigenvalues, scores, gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ncut.report.charts import Plane, around
from ncut.report.picture import Picture
from ncut.report.wording import statistic_title

if TYPE_CHECKING:
    from ncut.report.profile import Profile
    from ncut.results import Measurement
    from ncut.types import Comparison


def eigenvalues_picture(report: Measurement, profile: Profile | None) -> Picture:
    """The smallest eigenvalues of the normalized Laplacian; with a profile also those beyond k."""
    values = report.eigenvalues if profile is None else profile.eigenvalues
    numbers = np.arange(1, values.size + 1)
    plane = Plane(
        (0.5, values.size + 0.5),
        (
            min(0.0, float(values.min(initial=0.0))),
            max(1e-12, 1.08 * float(values.max(initial=1e-9))),
        ),
        "number",
        "eigenvalue",
        whole=True,
    )
    finding = f"{report.k} eigenvalues up to {values[min(report.k, values.size) - 1]:.3f}."
    if values.size > report.k:
        low, high = float(values[report.k - 1]), float(values[report.k])
        plane.bar(*plane.x, low, high, class_="accent faint")
        gap = f"gap after k = {report.k}: {high - low:.4f}"
        plane.note(plane.x[0], gap, left=False)
        finding = f"{gap[0].upper()}{gap[1:]}."
    plane.line(numbers, values, class_="muted thin")
    for first, css in ((True, "accent"), (False, "muted")):
        at = (numbers <= report.k) == first
        plane.dots(
            numbers[at],
            values[at],
            [f"eigenvalue {n}: {v:.5f}" for n, v in zip(numbers[at], values[at], strict=True)],
            class_=css,
        )
    return Picture(
        "eigenvalues",
        "Eigenvalues",
        plane.markup(),
        "The smallest eigenvalues of the normalized Laplacian. There is one near 0 for each almost "
        "separate group; the n-cut cannot be below the sum of the first k.",
        finding,
    )


def scores_picture(profile: Profile, k: int) -> Picture:
    """Distance of the n-cut, its bound and the gap to the clusterable side, for each k."""
    lines: dict[str, tuple[list[Comparison], str, int]] = {
        statistic_title(name): ([row[name] for row in profile.statistics], css, -1)
        for name, css in (("refined_ncut", "accent"), ("lower_bound", "shade"))
        if name in profile.statistics[0]
    }
    lines["gap after k"] = (list(profile.gaps), "muted", 1)
    scores = {
        name: [
            (x, sign * one.z_score)
            for x, one in zip(profile.ks, compared, strict=True)
            if one.z_score is not None
        ]
        for name, (compared, _, sign) in lines.items()
    }
    plane = _over_k(
        profile, k, [z for line in scores.values() for _, z in line] + [0.0], "standard deviations"
    )
    plane.horizontal(0, class_="muted thin")
    for name, points in scores.items():
        css = lines[name][1]
        if points:
            plane.line(*zip(*points, strict=True), class_=css)
        plane.dots(
            [x for x, _ in points],
            [z for _, z in points],
            [f"{name}, k = {x}: {z:+.2f}" for x, z in points],
            class_=css,
        )
        plane.legend.append((name, css, ""))
    return Picture(
        "scores",
        "Each number of clusters",
        plane.markup(),
        f"Standard deviations from the mean of {profile.n_shuffles} shuffles; up is more "
        "clusterable for every line. The n-cut itself grows with k for every graph, so it cannot "
        "choose k.",
        f"Scores for k = {profile.ks[0]} to {profile.ks[-1]}.",
    )


def gaps_picture(profile: Profile, k: int) -> Picture:
    """The gap in the eigenvalues after each k, with the shuffles' gaps."""
    ends = [0.0, *(gap.value for gap in profile.gaps)]
    ends += [
        gap.mean + gap.std for gap in profile.gaps if gap.mean is not None and gap.std is not None
    ]
    plane = _over_k(profile, k, ends, "gap after k")
    for x, gap in zip(profile.ks, profile.gaps, strict=True):
        if gap.mean is not None and gap.std is not None:
            plane.line((x, x), (gap.mean - gap.std, gap.mean + gap.std), class_="muted thick")
            plane.dots(
                (x,),
                (gap.mean,),
                (f"shuffles, k = {x}: {gap.mean:.4f} ± {gap.std:.4f}",),
                class_="muted",
            )
    plane.dots(
        profile.ks,
        [gap.value for gap in profile.gaps],
        [f"k = {x}: {gap.value:.4f}" for x, gap in zip(profile.ks, profile.gaps, strict=True)],
        class_="accent",
    )
    plane.legend = [("this network", "accent", "")]
    if profile.n_shuffles:
        plane.legend.append(("shuffles, ± one std", "muted", ""))
    largest = max(range(len(profile.ks)), key=lambda at: profile.gaps[at].value)
    return Picture(
        "gaps",
        "Gaps in the eigenvalues",
        plane.markup(),
        "The gap between eigenvalues k and k + 1, with the shuffles' gaps. A gap above the "
        "shuffles' gaps supports this k.",
        f"The largest gap is after k = {profile.ks[largest]}.",
    )


def _over_k(profile: Profile, k: int, values: Sequence[float], title: str) -> Plane:
    plane = Plane(
        (profile.ks[0] - 0.5, profile.ks[-1] + 0.5),
        around(values),
        "number of clusters k",
        title,
        whole=True,
    )
    marks = {k: "this report"}
    if profile.suggested_k:
        marks[profile.suggested_k] = "suggested"
    for at, text in marks.items():
        if profile.ks[0] <= at <= profile.ks[-1]:
            plane.vertical(at, class_="muted dashed")
            plane.note(at, text)
    return plane
