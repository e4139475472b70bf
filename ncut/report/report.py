"""Report: the measurement of one network, and its views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ncut.arguments import check_choice, suggests_names
from ncut.axes import STATISTICS
from ncut.errors import InputError
from ncut.results import Measurement, PlotKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from rich.text import Text

    from ncut.functional import Ablation, Agreement, Separation
    from ncut.nulls.tail import TailFit
    from ncut.report.between import Between
    from ncut.report.clusters import ClusterList
    from ncut.report.profile import Profile
    from ncut.report.top import Finding


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Report(Measurement):
    """The clusterability of a network, compared with shuffled networks.

    `print(report)` shows a summary, `report.plot()` a picture, `report.to_html(path)` a page.
    Two reports are equal if all their fields but `graph` are.

    Attributes
    ----------
    model : str
        The model's name.
    k : int
        Number of clusters.
    labels : ndarray of int32, shape (n,)
        Cluster of each vertex, 0 to k - 1; -1 for an isolated vertex, which is left out.
    eigenvalues : ndarray of float64, shape (k,)
        The k smallest eigenvalues of the normalized Laplacian, ascending.
    statistics : dict of str to Comparison
        "spectral_ncut", "refined_ncut", "lower_bound", "modularity", "bipartite_modularity" (unless
        edges join layers of one colour) and "clusterability": the network's value, the shuffles'
        values, their mean and standard deviation, p and Z. `ncut.axes.STATISTICS` defines them. The
        modularities and the clusterability are those of `labels`.
    repeated_ncuts : ndarray of float64, shape (n_repeats,)
        `ncut` for independent repeats of k-means on the network's own embedding. Empty with fewer
        than 5 shuffles.
    shuffled_repeats : ndarray of float64, shape (n_repeats,)
        `shuffled_ncuts` of the first shuffles with k-means repeated on the same embedding.
    null : str
        The null model that shuffled the weights.
    normalize : str
        The convention for the scale of weights.
    preset : str
        The preset that supplied the defaults.
    sequential : str
        With shuffles="auto", the reason for stopping; else empty.
    seed : int
        Seed of all random choices.
    n_init : int
        Restarts of k-means.
    refine : bool
        Whether `ncut` and `labels` describe the refined partition.
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
        Caveats to the numbers.
    version : str
        The version of ncut that made the report.
    sums : str
        Treatment of residual sums, "readers" or "stream"; empty if there are none.
    device : str
        The device used: "cpu", or a GPU such as "cuda:0".
    tests : dict of str to Comparison
        The lower bound compared with that of additional null models, by their names, under
        `normalize="residual"`, so that the scales of neurons have no effect.
    untested : dict of str to str
        Reasons why such a test was not run.
    cut_share, chance_share : float or None
        Share of the edge weight that the best partition found (the refined one) cuts, and the share
        that a partition into clusters of the same volumes would cut if edges joined vertices in
        proportion to their degrees.
    agreement : dict of int to float
        The mean adjusted Rand index between partitions from repeats of k-means, for k and, if it is
        low there, for smaller numbers of clusters.
    graph : NeuronGraph or None
        The measured graph, in the convention `normalize`. It is excluded from `to_json` and from
        equality; save it with `report.graph.save(path)`.
    source : object
        The analysed model, for `ablate`, `separate` and `correlate`. Excluded from `to_json` and
        from equality.
    kept : Between or None
        The data about the graph's edges in a report read from a file; see `between`.
    kept_heads : tuple of int
        The same for `heads`.

    Source: Filan, Casper, Hod, Wild, Critch, Russell (2021), Clusterability in Neural
    Networks, arXiv:2103.03386, sections 2 and A.1.
    """

    source: Any = field(default=None, repr=False)
    kept: Between | None = field(default=None, repr=False)
    kept_heads: tuple[int, ...] = ()

    __hash__ = None  # type: ignore[assignment]  # equality looks into arrays

    @property
    def summary(self) -> tuple[Finding, ...]:
        """The report's summary: a few questions, each answered in a line, in display order."""
        from ncut.report.top import findings

        return findings(self)

    @classmethod
    def of(cls, measurement: Measurement, source: Any = None) -> Report:
        """The report on a measurement; `source`: the analysed model."""
        values = {one.name: getattr(measurement, one.name) for one in fields(Measurement)}
        return cls(**values, source=source)

    @cached_property
    def between(self) -> Between | None:
        """The weight between clusters layer by layer, and each cluster's strongest edges.

        It is included in `to_json` (with seven digits, unless it has over 400,000 numbers) and
        excluded from equality. None in a report read from a file without it.
        """
        from ncut.report.between import between_of

        return self.kept if self.graph is None else between_of(self.graph, self.labels, self.k)

    @cached_property
    def heads(self) -> tuple[int, ...]:
        """Attention heads of each layer of queries, keys or values; 0 for other layers."""
        from ncut.report.names import heads_of

        return self.kept_heads if self.source is None else heads_of(self.source, self.layers)

    @cached_property
    def clusters(self) -> ClusterList:
        """The clusters, each with its neurons, strongest edges and masks: `report.clusters[3]`."""
        from ncut.report.clusters import ClusterList

        return ClusterList(self)

    @suggests_names()
    def tail(self, statistic: str | None = None) -> TailFit | None:
        """Estimate a p-value below the shuffles' resolution by a fitted tail.

        Parameters
        ----------
        statistic : str, optional
            A name in `statistics`; the headline's by default.

        Returns
        -------
        TailFit or None
            The estimate with an interval and a diagnostic; it is extrapolated, never exact. None if
            a fit makes no sense: with few shuffles, with shuffles="auto", whose number depends on
            their values, or if the network lies among its shuffles.

        Raises
        ------
        InputError
            If there is no such statistic.

        Source: Knijnenburg, Wessels, Reinders and Shmulevich (2009), Fewer permutations, more
        accurate P-values.
        """
        from ncut.nulls.tail import fit_tail

        name = self.headline if statistic is None else statistic
        check_choice("statistic", name, self.statistics)
        if self.sequential:
            return None
        compared = self.statistics[name]
        return fit_tail(compared.value, compared.shuffled, low=STATISTICS[name].low_is_clusterable)

    @suggests_names()
    def ablate(
        self,
        evaluate: Callable[[Any], float],
        *,
        model: Any = None,
        per_layer: bool = False,
        random_sets: int = 20,
        pairs: bool = False,
        inputs: bool = False,
        progress: bool | Callable[[int, int], None] | None = None,
    ) -> Ablation:
        """Silence each cluster, and compare the loss with that of silenced random sets.

        The test shows whether a cluster is a module. A random set has as many neurons in each layer
        as the cluster. The output layer is never silenced.

        Parameters
        ----------
        evaluate : callable
            Returns the loss (higher is worse) of its argument: the analysed model with some neurons
            silenced, valid only during the call.
        model : optional
            The model, where the report does not have it (it was read from a file).
        per_layer : bool, default False
            Silence a cluster's neurons layer by layer.
        random_sets : int, default 20
            Random sets for each cluster; p is at least 1 / (random_sets + 1).
        pairs : bool, default False
            Also silence each pair of clusters together.
        inputs : bool, default False
            Also silence neurons of the network's input.
        progress : True or callable, optional
            True shows a bar (extra `notebook`); a function is called as `progress(done, total)`
            after each evaluation.

        Returns
        -------
        Ablation

        Raises
        ------
        InputError
            If an argument cannot be used, or there is no model whose neurons can be silenced.

        Source: Hod, Filan, Casper, Critch and Russell (2021), Quantifying local specialization in
        deep neural networks, arXiv:2110.08058, where sets are silenced layer by layer.
        """
        from ncut.functional import ablate

        return ablate(
            self._model(model),
            self.layers,
            self.labels,
            evaluate,
            per_layer=per_layer,
            random_sets=random_sets,
            pairs=pairs,
            inputs=inputs,
            seed=self.seed,
            progress=progress,
        )

    @suggests_names()
    def separate(
        self,
        evaluate: Callable[[Any], float],
        *,
        model: Any = None,
        chance: float | None = None,
        keep: Iterable[Iterable[int]] | None = None,
        random_sets: int = 20,
        example_inputs: Any = None,
        progress: bool | Callable[[int, int], None] | None = None,
    ) -> Separation:
        """Remove all weights between clusters, and compare the score with random partitions.

        Parameters
        ----------
        evaluate : callable
            Returns the score (higher is better: an accuracy, or the loss times -1) of its argument:
            the analysed model without some weights, valid only during the call.
        model : optional
            The model, where the report does not have it (it was read from a file).
        chance : float, optional
            The score of a useless model; by default the score without any weight of the graph.
        keep : iterable of iterables of int, optional
            Sets of clusters to keep alone; by default each cluster.
        random_sets : int, default 20
            Random partitions, with the same sizes in each layer, to compare with; p is at least
            1 / (random_sets + 1).
        example_inputs : optional
            As given to `ncut.analyze`.
        progress : True or callable, optional
            True shows a bar (extra `notebook`); a function is called as `progress(done, total)`
            after each evaluation.

        Returns
        -------
        Separation

        Raises
        ------
        InputError
            If an argument cannot be used, or there is no model whose weights can be removed.
        """
        from ncut.functional import separate

        return separate(
            self._model(model),
            self.layers,
            self.labels,
            evaluate,
            chance=chance,
            keep=keep,
            random_sets=random_sets,
            example_inputs=example_inputs,
            seed=self.seed,
            progress=progress,
        )

    @suggests_names()
    def correlate(
        self,
        inputs: Any = None,
        *,
        activations: Sequence[NDArray[np.floating]] | None = None,
        model: Any = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> Agreement:
        """Compare the clusters with clusters of correlated activations.

        Parameters
        ----------
        inputs : tensor or tuple of tensors
            A batch of inputs for the torch module.
        activations : sequence of array_like, optional
            In place of `inputs`, one (n_examples, size) array for each layer of the graph.
        model : optional
            The model, where the report does not have it.
        threads, device
            See `ncut.cluster`.

        Returns
        -------
        Agreement
            The n-cut of the correlation graph for its own partition and for the report's, and the
            agreement of the two partitions.

        Raises
        ------
        InputError
            If an argument cannot be used, or there is no model to run.
        """
        from ncut.functional import correlate

        return correlate(
            None if activations is not None else self._model(model),
            self.layers,
            self.labels,
            self.k,
            inputs=inputs,
            activations=activations,
            seed=self.seed,
            threads=threads,
            device=device,
        )

    def _model(self, model: Any) -> Any:
        found = self.source if model is None else model
        if found is None:
            raise InputError(
                "model: the report does not have the model that was analysed; pass model=..."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """All but `graph` and `source` as plain lists, strings and numbers, ready for JSON."""
        from ncut.report.serialize import to_dict

        return to_dict(self)

    def to_json(self, path: str | Path | None = None, *, indent: int | None = None) -> str:
        """The report as JSON, from which `from_json` restores an equal report.

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
        from ncut.files import write_json

        return write_json(self.to_dict(), path, indent, "report")

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
        from ncut.report.serialize import json_of

        with json_of(text_or_path) as data:
            return cls._from_dict(data)

    @classmethod
    def _from_dict(cls, data: Any) -> Report:
        """The report from the data of `to_dict`, with its data about the graph's edges."""
        from ncut.report.serialize import edges_from_dict, from_dict

        found = cls.of(from_dict(data))
        kept, heads = edges_from_dict(data, found)
        return replace(found, kept=kept, kept_heads=heads)

    def save(self, path: str | Path) -> None:
        """Write the report as JSON: `to_json(path)`.

        Raises
        ------
        InputError
            If `path` cannot be written.
        """
        self.to_json(path)

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """Read a report that `save` wrote: `from_json(path)`; its `graph` is None.

        Raises
        ------
        InputError
            If the file cannot be read, or is not a complete report.
        """
        return cls.from_json(Path(path))

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

    @suggests_names()
    def plot(self, kind: PlotKind | None = None, ax: Axes | None = None) -> Axes:
        """Draw a picture of the report.

        Parameters
        ----------
        kind : {"null", "layers", "eigenvalues", "matrix", "flow", "all"}, optional
            The shuffled networks' n-cuts with the network's n-cut marked; the division of each
            layer into clusters; the eigenvalues; the weight between each pair of clusters as a
            multiple of chance; the weight between clusters of the layers as bands; or all available
            pictures in one figure. Default: "null" if there are shuffles, else "layers".
        ax : matplotlib Axes, optional
            Where to draw; a new pyplot figure by default, so that notebooks show it.

        Returns
        -------
        matplotlib Axes
            With "all", the first axes of the figure.

        Raises
        ------
        InputError
            If `kind` is none of these, "null" without shuffles, "matrix" or "flow" without
            `between`, "flow" if no edges join layers, or "all" with an `ax`.
        MissingExtraError
            If matplotlib is not installed.
        """
        from ncut.report.plots import plot

        return plot(self, kind, ax)

    @suggests_names()
    def to_html(
        self,
        path: str | Path | None = None,
        *,
        title: str | None = None,
        profile: Profile | None = None,
    ) -> str:
        """The report with pictures as one self-contained HTML page.

        The page makes no requests, and its content security policy forbids them. Clusters can be
        searched and linked to (`#cluster=3`), their neurons copied, tables saved as CSV, pictures
        as SVG and PNG. Most pages have 100 to 400 kB. Pictures and tables also work without
        JavaScript.

        Parameters
        ----------
        path : str or Path, optional
            A file to write the page to as well.
        title : str, optional
            The page's heading; made from the model's name by default.
        profile : Profile, optional
            The result of `ncut.profile` for the same network; the page then shows Z, the gaps and
            the eigenvalues over k.

        Raises
        ------
        InputError
            If `path` cannot be written, or `profile` is of another network.
        MissingExtraError
            If jinja2 is not installed.
        """
        from ncut.files import write_text
        from ncut.report.html import html_page

        page = html_page([self], title, [profile])
        if path is not None:
            write_text(path, page)
        return page

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        return self._compared() == other._compared()

    def _compared(self) -> dict[str, Any]:
        from ncut.report.serialize import to_dict

        return to_dict(self, edges=False)

    def __str__(self) -> str:
        from ncut.report.text import summary

        return summary(self)

    def __repr__(self) -> str:
        from ncut.report.wording import one_line

        return f"Report({one_line(self)})"

    def _repr_html_(self) -> str:
        from ncut.report.notebook import notebook_table

        return notebook_table(self)

    def __rich__(self) -> Text:
        from ncut.report.console import styled_summary

        return styled_summary(self)
