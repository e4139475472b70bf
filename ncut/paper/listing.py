"""The lines of `ncut paper list`, one for each table."""

from __future__ import annotations

from ncut.paper.tables import IMAGENET, TITLES, published, rows_of

COLUMNS = ("Table", "What", "Rows", "Runs", "Epochs", "k", "Shuffles", "Data")
_FILES = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}


def listed() -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns' names, and a row of cells for each table."""
    return COLUMNS, [_cells(table) for table in TITLES]


def _cells(table: str) -> tuple[str, ...]:
    rows = [row for row in published() if row.table == table]
    trained = [] if table == IMAGENET else rows_of(table)
    epochs = {f"{row.recipe.epochs} + {row.recipe.pruning_epochs}" for row in trained}
    names = {name for row in trained for name in _FILES if name in row.recipe.data}
    files = [_FILES[name] for name in _FILES if name in names]
    if not epochs - {"0 + 0"}:
        files = []
    return (
        table,
        TITLES[table],
        str(len(rows)),
        str(rows[0].runs),
        ", ".join(sorted(epochs - {"0 + 0"})),
        str(rows[0].k),
        str(next((row.shuffles for row in rows if row.shuffles), "")),
        "weight files" if table == IMAGENET else ", ".join(files),
    )
