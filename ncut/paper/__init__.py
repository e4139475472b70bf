"""Reproduction of the paper's tables: data, networks, recipes, published and our numbers.

Source: Filan, Casper, Hod, Wild, Critch, Russell (2021), Clusterability in Neural Networks.
"""

from ncut.paper.results import TableResult
from ncut.paper.table import run_table
from ncut.paper.tables import TITLES, Deviations

__all__ = ["TITLES", "Deviations", "TableResult", "run_table"]
