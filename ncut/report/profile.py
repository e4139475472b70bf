"""Profile: a network for many numbers of clusters, with a suggested number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncut.arguments import check_choice
from ncut.errors import InputError, import_extra
from ncut.report.text import WIDTH, shorten
from ncut.report.wording import name_of, ncut_text, p_text, printable, z_text
from ncut.results import MIN_GAP_Z, MIN_STABILITY, ProfileData

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from rich.text import Text

FORMAT = "ncut-profile"


@dataclass(frozen=True, eq=False, repr=False)
class Profile(ProfileData):
    """A network clustered with several numbers of clusters k.

    Attributes
    ----------
    model : str
        The model's name.
    ks : tuple of int
        The numbers of clusters, ascending.
    statistics : tuple of dict of str to Comparison
        For each k, the content of `Report.statistics`; the measures are those of the refined
        partition.
    gaps : tuple of Comparison
        For each k, the gap between the eigenvalues k and k + 1 of the normalized Laplacian
        (counted from 1) compared with the shuffles' gaps; large means clusterable.
    labels : ndarray of int32, shape (n_ks, n)
        The refined partition for each k; -1 for an isolated vertex.
    eigenvalues : ndarray of float64, shape (max(ks) + 1,)
        The smallest eigenvalues of the normalized Laplacian, ascending.
    stability_seeds, stability_starts : ndarray of float64, shape (n_ks,)
        Adjusted Rand index between partitions from different seeds of k-means, and from different
        start vectors of the eigensolver: 1 if the partition is always the same, 0 if it agrees no
        better than by chance.
    null, normalize, preset : str
    seed, n_init : int
    layers : tuple of Layer
    warnings : tuple of str
    version : str
    """

    @property
    def reason(self) -> str:
        """The reason for the suggested k, in a sentence."""
        if not self.n_shuffles:
            return "without shuffles the gaps cannot be compared"
        if not self.unusual:
            return (
                "at no k is the gap in the eigenvalues larger than that of every shuffle and "
                f"{MIN_GAP_Z:g} standard deviations above their mean: no number of clusters "
                "stands out"
            )
        if self.best is None:
            ks = ", ".join(str(self.ks[at]) for at in self.unusual)
            return (
                f"the gap is unusual at k = {ks}, but the partition there does not come out the "
                f"same again (adjusted Rand index below {MIN_STABILITY:g})"
            )
        gap = self.gaps[self.best]
        return (
            f"among the stable k its eigenvalue gap exceeds the shuffles' gap the most: "
            f"{gap.value:.3f} against {gap.mean:.3f} ± {gap.std:.3f} "
            f"(Z = {z_text(gap.z_score)}), with an adjusted Rand index of "
            f"{self.stability[self.best]:.2f} between repeats"
        )

    def to_frame(self) -> DataFrame:
        """One row per k.

        Returns
        -------
        pandas.DataFrame
            Columns `k`; for each statistic its name, and with `_mean`, `_std`, `_z`, `_p`; the
            same for `gap`; `stability_seeds`, `stability_starts`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        pandas = import_extra("pandas", "plot")
        rows = []
        for at, k in enumerate(self.ks):
            row: dict[str, Any] = {"k": k}
            for name, compared in [*self.statistics[at].items(), ("gap", self.gaps[at])]:
                row[name] = compared.value
                row |= {
                    f"{name}_mean": compared.mean,
                    f"{name}_std": compared.std,
                    f"{name}_z": compared.z_score,
                    f"{name}_p": compared.p_value,
                }
            row["stability_seeds"] = self.stability_seeds[at]
            row["stability_starts"] = self.stability_starts[at]
            rows.append(row)
        frame: DataFrame = pandas.DataFrame(rows)
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists, strings and numbers, ready for JSON."""
        from ncut.report.serialize import comparison_to_dict

        return {
            "format": FORMAT,
            "model": self.model,
            "suggested_k": self.suggested_k,
            "reason": self.reason,
            "ks": list(self.ks),
            "statistics": [
                {name: comparison_to_dict(compared) for name, compared in row.items()}
                for row in self.statistics
            ],
            "gaps": [comparison_to_dict(gap) for gap in self.gaps],
            "labels": self.labels.tolist(),
            "eigenvalues": self.eigenvalues.tolist(),
            "stability_seeds": self.stability_seeds.tolist(),
            "stability_starts": self.stability_starts.tolist(),
            "null": self.null,
            "normalize": self.normalize,
            "preset": self.preset,
            "seed": self.seed,
            "n_init": self.n_init,
            "layers": [[layer.name, layer.start, layer.size] for layer in self.layers],
            "warnings": list(self.warnings),
            "version": self.version,
        }

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """The profile as JSON.

        Raises
        ------
        InputError
            If `path` cannot be written.
        """
        from ncut.files import write_json

        return write_json(self.to_dict(), path, indent, "profile")

    def plot(self, statistic: str = "refined_ncut", ax: Axes | None = None) -> Axes:
        """Draw Z of a statistic, and of the gap in the eigenvalues, over k.

        Parameters
        ----------
        statistic : str, default "refined_ncut"
            A name in `statistics`.
        ax : matplotlib Axes, optional
            Where to draw; a new pyplot figure by default.

        Raises
        ------
        InputError
            If there is no such statistic, or there are no shuffles.
        MissingExtraError
            If matplotlib is not installed.
        """
        from ncut.report.plots import draw_profile

        check_choice("statistic", statistic, self.statistics[0])
        if not self.n_shuffles:
            raise InputError("plot: needs shuffles, and this profile has none")
        return draw_profile(self, statistic, ax)

    def __str__(self) -> str:
        return "\n".join(profile_lines(self))

    def __repr__(self) -> str:
        return (
            f"Profile({self.model!r}, k={self.ks[0]}..{self.ks[-1]}, suggested {self.suggested_k})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"

    def __rich__(self) -> Text:
        from rich.text import Text

        name, *lines = profile_lines(self)
        return Text().append(name, style="bold").append("\n" + "\n".join(lines))


def profile_lines(profile: Profile) -> list[str]:
    """A line for each k, at most 80 columns."""
    import textwrap

    suggestion = (
        f"Suggested k = {profile.suggested_k}: {profile.reason}."
        if profile.suggested_k
        else f"No k suggested: {profile.reason}."
    )
    lines = [shorten(name_of(profile), WIDTH), *textwrap.wrap(suggestion, WIDTH)]
    for text in profile.warnings:
        lines += textwrap.wrap(f"warning: {printable(text)}", 80, subsequent_indent="  ")
    lines += [
        "",
        f"{'':>3}{'lower':>9}{'refined n-cut':>28}{'gap after k':>23}{'stability':>15}",
        f"{'k':>3}{'bound':>9}{'value':>9}{'Z':>10}{'p':>9}{'value':>13}{'Z':>10}{'ARI':>15}",
    ]
    for at, k in enumerate(profile.ks):
        bound, refined = (profile.statistics[at][s] for s in ("lower_bound", "refined_ncut"))
        gap = profile.gaps[at]
        lines.append(
            f"{k:>3}{ncut_text(bound.value):>9}{ncut_text(refined.value):>9}"
            f"{z_text(refined.z_score):>10}{p_text(refined.p_value):>9}"
            f"{gap.value:>13.4f}{z_text(gap.z_score):>10}{profile.stability[at]:>15.2f}"
        )
    lines += [
        "",
        *textwrap.wrap(
            f"Z and p against {profile.n_shuffles} shuffles (null model {profile.null}, scale "
            f"{profile.normalize}). The n-cut grows with k for every graph, so it cannot choose "
            "k by itself.",
            80,
        ),
    ]
    return lines
