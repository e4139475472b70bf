"""Report: the measurement of one network, and the ways to look at it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ncut.types import Layer, LeftOut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from ncut.graphs import NeuronGraph

PlotKind = Literal["null", "layers", "eigenvalues"]


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """How clusterable a network is, and how unusual that is among shuffled networks.

    `print(report)` shows a summary, `report.plot()` a picture, `report.to_html(path)` a page.
    Two reports are equal if all their fields but `graph` are.

    Attributes
    ----------
    model : str
        The model's name.
    k : int
        Number of clusters.
    ncut : float
        Normalized cut of the network's partition, between 0 and k; low means clusterable.
    labels : ndarray of int32, shape (n,)
        Cluster of each vertex, 0 to k - 1; -1 for an isolated vertex, which is left out.
    eigenvalues : ndarray of float64, shape (k,)
        The k smallest eigenvalues of the normalized Laplacian, ascending.
    shuffled_ncuts : ndarray of float64, shape (n_shuffles,)
        n-cuts of the shuffled networks, in the order of the shuffles' numbers.
    shuffled_mean, shuffled_std : float or None
        Their mean and population standard deviation; None without shuffles.
    p_value : float or None
        (r + 1) / (n_shuffles + 1), where r shuffles have an n-cut at or below the network's;
        None without shuffles.
    z_score : float or None
        (ncut - shuffled_mean) / shuffled_std; negative means more clusterable than the
        shuffles. None without shuffles and where they do not differ from each other.
    null : str
        The null model: how the weights were shuffled.
    seed : int
        Seed of all random choices.
    n_init : int
        Restarts of k-means.
    refine : bool
        Whether partitions were refined after spectral clustering, which lowers every n-cut.
    solver : str
        The eigensolver used.
    residual : float
        The eigensolver's largest residual norm.
    layers : tuple of Layer
        Name, first vertex and size of each layer, isolated vertices included.
    degrees : ndarray of float64, shape (n,)
        Sum of the edge weights of each vertex; 0 for an isolated one.
    n_edges : int
        Number of undirected edges.
    left_out : tuple of LeftOut
        Parameters and neurons of the model that are not in the graph, and why.
    warnings : tuple of str
        What to know before relying on the numbers.
    version : str
        The version of ncut that measured.
    graph : NeuronGraph or None
        The graph itself. It is not part of `to_json` and of equality: save it with
        `report.graph.save(path)`.

    Source: Filan, Casper, Hod, Wild, Critch, Russell (2021), Clusterability in Neural
    Networks, arXiv:2103.03386, sections 2 and A.1.
    """

    model: str
    k: int
    ncut: float
    labels: NDArray[np.int32]
    eigenvalues: NDArray[np.float64]
    shuffled_ncuts: NDArray[np.float64]
    shuffled_mean: float | None
    shuffled_std: float | None
    p_value: float | None
    z_score: float | None
    null: str
    seed: int
    n_init: int
    refine: bool
    solver: str
    residual: float
    layers: tuple[Layer, ...]
    degrees: NDArray[np.float64]
    n_edges: int
    left_out: tuple[LeftOut, ...]
    warnings: tuple[str, ...]
    version: str
    graph: NeuronGraph | None = field(default=None, repr=False)

    __hash__ = None  # type: ignore[assignment]  # equality looks into arrays

    @property
    def n_vertices(self) -> int:
        """Number of vertices, isolated ones included."""
        return int(self.labels.size)

    @property
    def n_isolated(self) -> int:
        """Number of vertices without edges, which are in no cluster."""
        return int(np.count_nonzero(self.labels < 0))

    @property
    def n_shuffles(self) -> int:
        """Number of shuffled networks."""
        return int(self.shuffled_ncuts.size)

    def cluster_sizes(self) -> NDArray[np.int64]:
        """How many neurons of each layer are in each cluster.

        Returns
        -------
        ndarray of int64, shape (n_layers, k)
            Isolated vertices are not counted, so a row's sum may be below the layer's size.
        """
        sizes = np.zeros((len(self.layers), self.k), dtype=np.int64)
        for row, layer in zip(sizes, self.layers, strict=True):
            labels = self.labels[layer.slice]
            row += np.bincount(labels[labels >= 0], minlength=self.k)
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """Everything but `graph` as plain lists, strings and numbers, ready for JSON."""
        from ncut.report.serialize import to_dict

        return to_dict(self)

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """The report as JSON, from which `from_json` gives an equal report.

        Parameters
        ----------
        path : str or Path, optional
            A file to write the text to as well.
        indent : int, optional
            Spaces per level; everything on one line by default.

        Raises
        ------
        InputError
            If a number is NaN or infinite, or `path` cannot be written.
        """
        from ncut.report.files import write_text
        from ncut.report.serialize import to_json

        text = to_json(self, indent)
        if path is not None:
            write_text(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, text_or_path: str | Path) -> Report:
        """Read a report that `to_json` wrote; its `graph` is None.

        Parameters
        ----------
        text_or_path : str or Path
            The JSON text (a string that begins with a brace), or the path of a file.

        Raises
        ------
        InputError
            If the file cannot be read, or the text is not a complete report.
        """
        from ncut.report.serialize import from_dict, read_json

        return from_dict(read_json(text_or_path))

    def to_frame(self) -> DataFrame:
        """One row per neuron, in the order of `labels`.

        Returns
        -------
        pandas.DataFrame
            Columns `layer` (name), `index` (within the layer), `cluster` (-1 for an isolated
            neuron) and `degree`.

        Raises
        ------
        MissingExtraError
            If pandas is not installed.
        """
        from ncut.report.frame import to_frame

        return to_frame(self)

    def plot(self, kind: PlotKind | None = None, ax: Axes | None = None) -> Axes:
        """Draw a picture of the report.

        Parameters
        ----------
        kind : {"null", "layers", "eigenvalues"}, optional
            The shuffled networks' n-cuts with the network's own marked, how each layer divides
            into clusters, or the eigenvalues. Default: "null" if there are shuffles, else
            "layers".
        ax : matplotlib Axes, optional
            Where to draw; a new pyplot figure by default, so that notebooks show it.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        InputError
            If `kind` is none of these, or "null" without shuffles.
        MissingExtraError
            If matplotlib is not installed.
        """
        from ncut.report.plots import plot

        return plot(self, kind, ax)

    def to_html(self, path: str | Path | None = None, *, title: str | None = None) -> str:
        """The report with pictures as one self-contained HTML page.

        Parameters
        ----------
        path : str or Path, optional
            A file to write the page to as well.
        title : str, optional
            The page's heading; made from the model's name by default.

        Raises
        ------
        InputError
            If `path` cannot be written.
        MissingExtraError
            If jinja2 or matplotlib is not installed.
        """
        from ncut.report.files import write_text
        from ncut.report.html import html_page

        page = html_page([self], title)
        if path is not None:
            write_text(path, page)
        return page

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def __str__(self) -> str:
        from ncut.report.text import summary

        return summary(self)

    def __repr__(self) -> str:
        from ncut.report.words import one_line

        return f"Report({one_line(self)})"

    def _repr_html_(self) -> str:
        from ncut.report.notebook import notebook_table

        return notebook_table(self)
