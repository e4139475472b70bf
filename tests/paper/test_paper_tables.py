"""The published tables: their numbers as the paper prints them, and what each row is made from."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ncut.errors import InputError

pytest.importorskip("torch", reason="pip install 'ncut[torch]'")
from ncut.paper.datasets import NAMES
from ncut.paper.networks import NETWORKS
from ncut.paper.recipes import REGULARIZATIONS, Recipe
from ncut.paper.tables import (
    IMAGENET,
    TITLES,
    Deviations,
    check_table,
    n_runs,
    published,
    rows_of,
)

UNTRAINED = ("figure A.1", "figure A.2", "figure A.3")

# --- the numbers --------------------------------------------------------------------------------

# Cells as the paper prints them: n-cut, n-cuts of the shuffles, networks below all of them, train
# and test accuracy (or loss).
PRINTED = {
    "1": """
        10.020 10.035±0.030 2/10 0.955 0.957
        7.11   7.43±0.12    4/10 0.930 0.934
        8.93   8.14±0.23    1/10 0.961 0.959
        5.51   6.31±0.20    7/10 0.888 0.896""",
    "A.5": """
        10.024 10.165±0.035 5/5 0.997 0.980
        9.97   10.30±0.11   5/5 0.973 0.980
        9.06   6.50±0.14    0/5 0.991 0.979
        9.639  9.387±0.066  1/5 0.992 0.980
        8.880  9.183±0.031  5/5 1.000 0.984
        8.350  9.247±0.039  5/5 0.967 0.979
        10.063 2.72±0.33    0/5 0.997 0.981
        8.335  8.599±0.081  3/5 0.998 0.982""",
    "A.6": """
        9.884 10.080±0.037 5/5 0.939 0.891
        9.698 10.052±0.034 5/5 0.862 0.872
        8.41  7.21±0.10    0/5 0.907 0.880
        9.468 9.185±0.068  0/5 0.913 0.879
        8.687 9.032±0.035  5/5 0.983 0.894
        8.110 9.131±0.041  5/5 0.864 0.867
        9.94  4.59±0.23    0/5 0.933 0.887
        8.524 8.746±0.077  3/5 0.951 0.892""",
    "A.10": """
        8.189 3.819±0.235 0/5 0.958 0.882
        8.844 8.283±0.117 0/5 0.904 0.896
        5.294 2.074±0.036 0/5 0.912 0.871
        8.548 2.104±0.194 0/5 0.958 0.899
        8.355 8.246±0.101 1/5 0.900 0.898
        8.133 3.603±0.213 0/5 0.974 0.909
        6.341 7.977±0.206 5/5 0.905 0.905
        4.701 0.741±0.052 0/5 0.930 0.881
        8.701 1.730±0.223 0/5 0.974 0.908
        6.135 7.994±0.184 4/5 0.905 0.902""",
    "A.13": """
        8.718 10.065±0.031 5/5 0.996 0.979
        5.750 9.200±0.038  5/5 1.000 0.983
        8.746 10.022±0.038 5/5 0.938 0.892
        6.265 9.065±0.035  5/5 0.980 0.893""",
    "A.19": """
        9.808 10.187±0.013 5/5 0.078 0.046
        8.009 9.301±0.032  5/5 0.025 0.024
        9.210 9.278±0.031  3/5 0.350 0.319
        6.665 8.468±0.059  5/5 0.211 0.192
        8.115 9.867±0.012  5/5 0.175 0.140
        8.438 9.800±0.067  5/5 0.101 0.078""",
}

# Unpruned n-cuts, n-cuts, n-cuts of the shuffles, networks below all of them, train accuracy.
PRINTED_RANDOM = {
    "A.16": """
        10.289±0.035 9.336±0.026 9.326±0.046 0/10 0.101
        10.266±0.041 9.312±0.040 9.316±0.042 0/10 0.102""",
    "A.17": """
        10.267±0.044 9.332±0.022 9.331±0.050 0/10 0.101
        10.274±0.031 9.299±0.045 9.305±0.045 0/10 0.101""",
    "A.18": """
        10.093±0.025 8.746±0.029 9.154±0.035 10/10 1.000
        10.221±0.061 8.82±0.15   8.984±0.042 6/10  0.213""",
}

# N-cuts, train and test accuracy.
PRINTED_MIXTURES = {
    "A.20": """
        8.880±0.049 1.000 0.984
        7.361±0.096 1.000 1.000
        7.955±0.096 1.000 0.991
        8.26±0.19   1.000 0.994""",
    "A.21": """
        8.350±0.046 0.967 0.979
        6.85±0.16   0.912 0.296
        6.933±0.094 0.873 0.637
        7.779±0.072 0.984 0.894""",
}


def cells(text):
    return [line.split() for line in text.strip().splitlines()]


def spread(cell):
    mean, _, std = cell.partition("±")
    return float(mean), float(std)


def of_table(table):
    return [row for row in published() if row.table == table]


def performance(row):
    if row.dataset == "polynomial":
        return row.train_loss, row.test_loss
    return row.train_accuracy, row.test_accuracy


@pytest.mark.parametrize("table", PRINTED)
def test_numbers_are_those_the_paper_prints(table):
    for row, line in zip(of_table(table), cells(PRINTED[table]), strict=True):
        ncut, shuffled, share, train, test = line
        assert row.ncut == float(ncut)
        assert (row.shuffled_mean, row.shuffled_std) == spread(shuffled)
        assert f"{row.significant}/{row.runs}" == share
        assert performance(row) == (float(train), float(test))
        assert row.std_from == ("" if row.ncut_std is None else "code")


@pytest.mark.parametrize("table", PRINTED_RANDOM)
def test_numbers_of_random_images_are_those_the_paper_prints(table):
    rows = of_table(table)
    lines = cells(PRINTED_RANDOM[table])
    for unpruned, pruned, line in zip(rows[::2], rows[1::2], lines, strict=True):
        first, second, shuffled, share, train = line
        assert (unpruned.pruned, pruned.pruned) == ("no", "yes")
        assert (unpruned.ncut, unpruned.ncut_std) == spread(first)
        assert (pruned.ncut, pruned.ncut_std) == spread(second)
        assert (pruned.shuffled_mean, pruned.shuffled_std) == spread(shuffled)
        assert f"{pruned.significant}/{pruned.runs}" == share
        # "Accuracies and n-cut distributions are of pruned networks."
        assert performance(pruned) == (float(train), None)
        assert performance(unpruned) == (None, None)
        assert unpruned.shuffled_mean is unpruned.shuffled_std is unpruned.significant is None
        assert unpruned.runs == 10
        assert unpruned.std_from == pruned.std_from == "paper"


@pytest.mark.parametrize("table", PRINTED_MIXTURES)
def test_numbers_of_mixtures_are_those_the_paper_prints(table):
    for row, line in zip(of_table(table), cells(PRINTED_MIXTURES[table]), strict=True):
        ncut, train, test = line
        assert (row.ncut, row.ncut_std, row.std_from) == (*spread(ncut), "paper")
        assert performance(row) == (float(train), float(test))
        assert row.shuffled_mean is row.significant is None
        assert row.runs == 5


def test_the_same_networks_have_the_same_numbers_in_two_tables():
    for table, other in (("A.5", "A.20"), ("A.5", "A.21")):
        row = of_table(other)[0]
        (same,) = [each for each in of_table(table) if each.pruned == "yes"
                   and each.regularization == row.regularization]  # fmt: skip
        assert (row.ncut, row.train_accuracy) == (same.ncut, same.train_accuracy)


def test_ranges_at_initialization_are_those_the_paper_names():
    found = {row.table: (row.network, row.low, row.high, row.runs)
             for row in published() if row.low is not None}  # fmt: skip
    assert found == {
        "figure A.1": ("mlp", 10.2, 10.4, 100),
        "figure A.2": ("small-cnn", 10.90, 10.95, 100),
        "figure A.3": ("vgg-cifar10", 8.45, 8.63, 100),
    }


def test_all_numbers_are_possible():
    for row in published():
        for cut in (row.ncut, row.shuffled_mean, row.low, row.high):
            assert cut is None or 0 <= cut <= row.k
        for accuracy in (row.train_accuracy, row.test_accuracy):
            assert accuracy is None or 0 < accuracy <= 1
        for std in (row.ncut_std, row.shuffled_std):
            assert std is None or std > 0
        assert row.significant is None or 0 <= row.significant <= row.runs
        assert (row.shuffled_mean is None) == (row.shuffled_std is None)
        assert row.std_from in (("",) if row.ncut_std is None else ("paper", "code"))


def test_every_table_is_there_with_its_rows_in_order():
    tables = list(dict.fromkeys(row.table for row in published()))
    assert tables == list(TITLES)
    names = [*"1", *(f"A.{n}" for n in range(1, 22)), *UNTRAINED, "figure A.6", "figure 1"]
    assert tables == names
    for table in tables:
        numbers = list(dict.fromkeys(row.row for row in of_table(table)))
        assert numbers == list(range(1, len(numbers) + 1))
        lines = [(row.row, row.pruned) for row in of_table(table)]
        assert len(set(lines)) == len(lines)


def test_numbers_of_rows_are_the_papers():
    expected = {
        "1": 4, **{f"A.{n}": 4 for n in (1, 2, 3, 4, 13, 14, 16, 17, 18, 20, 21)},
        **{f"A.{n}": 8 for n in (5, 6, 7, 8, 9, 12)}, "A.10": 10, "A.11": 6, "A.15": 2,
        "A.19": 6, **dict.fromkeys(UNTRAINED, 1), "figure A.6": 8, "figure 1": 1,
    }  # fmt: skip
    assert {table: len(of_table(table)) for table in TITLES} == expected


# --- how the rows are made ----------------------------------------------------------------------

TRAINED = [table for table in TITLES if table != IMAGENET]

UP = ("no", "yes")
CONDITIONS = ("none", "dropout", "l1", "l2")


def grid(network, data, kinds=("none",), pruned=UP, k=12):
    """(network, data, regularization, pruned, k), data changing slowest and then pruning."""
    return [(network, name, kind, each, k) for name in data for each in pruned for kind in kinds]


BOTH = ("mnist", "fashion")
SAME_DIFF = {kind: [f"{name}-{kind}-{which}" for name in BOTH for which in ("same", "diff")]
             for kind in ("halves", "stack")}  # fmt: skip
DEPTHS = {"A.1": 4, "A.2": 7, "A.3": 10, "A.4": 2}


def by_pruning(rows, size):
    """Rows of each data set's unpruned networks first, then its pruned ones."""
    found = []
    for start in range(0, len(rows), 2 * size):
        some = rows[start : start + 2 * size]
        found += sorted(some, key=lambda row: row[3] == "yes")
    return found


MADE = {
    "1": [("small-mlp", "mnist-7x7", kind, each, 12)
          for kind in ("none", "clusterability") for each in UP],
    **{table: grid("mlp", BOTH, ("none", "dropout"), ["yes"], k) for table, k in DEPTHS.items()},
    "A.5": grid("mlp", ["mnist"], CONDITIONS),
    "A.6": grid("mlp", ["fashion"], CONDITIONS),
    "A.7": by_pruning(grid("mlp", SAME_DIFF["halves"]), 2),
    "A.8": grid("small-cnn", ["mnist"], CONDITIONS),
    "A.9": grid("small-cnn", ["fashion"], CONDITIONS),
    "A.10": grid("vgg", ["cifar10"], (*CONDITIONS, "dropout+l2")),
    "A.12": by_pruning(grid("small-cnn", SAME_DIFF["stack"]), 2),
    "A.13": grid("mlp", BOTH, ["clusterable-init"]),
    "A.14": grid("small-cnn", BOTH, ["clusterable-init"]),
    "A.15": grid("vgg", ["cifar10"], ["clusterable-init"]),
    **{table: [("mlp", data, kind, each, 12) for kind in ("none", "dropout") for each in UP]
       for table, data in (("A.16", "random"), ("A.17", "random"), ("A.18", "random-3000"))},
    "A.19": [("polynomial-mlp", "polynomial", kind, each, 12)
             for kind in ("none", "l1", "l2") for each in UP],
    **{table: grid("mlp", ["mnist", "lines", "lines-mnist", "lines-mnist-sep"], [kind], ["yes"])
       for table, kind in (("A.20", "none"), ("A.21", "dropout"))},
}  # fmt: skip


@pytest.mark.parametrize("table", MADE)
def test_rows_are_made_as_the_paper_says(table):
    found = [
        (row.recipe.network, row.recipe.data, row.recipe.regularization,
         {"pruned": "yes", "unpruned": "no"}[row.phase], row.analysis.k)
        for row in rows_of(table)
    ]  # fmt: skip
    assert found == MADE[table]


@pytest.mark.parametrize("table", TRAINED)
def test_trainings_are_as_long_as_the_papers_and_networks_as_many(table):
    usual = {"mlp": (20, 20), "polynomial-mlp": (20, 20), "small-mlp": (10, 10),
             "small-cnn": (10, 10), "vgg": (200, 50)}  # fmt: skip
    special = {"A.17": (1000, 20), "A.18": (100, 100)}
    rows = rows_of(table)
    for row in rows:
        epochs = special.get(table, usual[row.recipe.network])
        expected = (0, 0) if table in UNTRAINED else epochs
        assert (row.recipe.epochs, row.recipe.pruning_epochs) == expected
        # "refrain from shuffling the dataset between epochs"
        assert row.recipe.reordered == (table != "A.18")
        assert row.recipe.images is None
        assert (row.recipe.procedure, row.recipe.precision) == ("authors", "float32")
    of_ten = ("1", "A.1", "A.2", "A.3", "A.4", "A.16", "A.17", "A.18")
    expected = 100 if table in UNTRAINED else 10 if table in of_ten else 5
    if table in ("figure A.6", "figure 1"):
        expected = 1
    assert n_runs(rows) == expected


@pytest.mark.parametrize("table", TRAINED)
def test_networks_are_compared_with_as_many_shuffles_as_in_the_paper(table):
    expected = 320 if table in (*DEPTHS, "figure A.6") else 0 if table in UNTRAINED else 50
    for row in rows_of(table):
        assert row.analysis.shuffles == expected
        assert row.analysis.null == ("layer" if table != "figure A.6" else row.published.variant)
        assert row.analysis.normalize == "none"


def test_untrained_networks_are_measured_at_once():
    for number, network in enumerate(("mlp", "small-cnn", "vgg"), 1):
        (row,) = rows_of(f"figure A.{number}")
        assert (row.recipe.network, row.phase) == (network, "initial")
        assert row.recipe.data == ("cifar10" if network == "vgg" else "mnist")
        assert row.recipe.regularization == "none"
        # The same networks whatever is asked for of the training.
        options = Deviations(epochs_scale=0.1, images=7, precision="bfloat16")
        assert rows_of(f"figure A.{number}", options)[0].recipe == row.recipe


@pytest.mark.parametrize("table", TRAINED)
def test_recipes_are_of_data_networks_and_regularizations_there_are(table):
    for row in rows_of(table):
        assert row.published.table == table
        assert row.recipe.data in NAMES
        assert row.recipe.network in NETWORKS
        assert row.recipe.regularization in REGULARIZATIONS


def test_pruned_networks_are_those_that_were_not_and_tables_share_them():
    for table in TRAINED:
        rows = rows_of(table)
        if {row.published.pruned for row in rows} == {"no", "yes"}:
            phases = {recipe: {row.phase for row in rows if row.recipe == recipe}
                      for recipe in {row.recipe for row in rows}}  # fmt: skip
            assert {frozenset(each) for each in phases.values()} == {
                frozenset(("pruned", "unpruned"))
            }
    ordinary = {row.recipe for table in ("A.5", "A.6") for row in rows_of(table)}
    for table in ("A.1", "A.2", "A.3", "A.4", "figure A.6", "figure 1"):
        assert {row.recipe for row in rows_of(table)} < ordinary
    assert rows_of("A.20")[0].recipe in ordinary
    assert rows_of("A.21")[0].recipe in ordinary


# --- options ------------------------------------------------------------------------------------


def test_options_go_into_every_recipe():
    options = Deviations(0.5, shuffles=7, images=300, procedure="text", precision="bfloat16")
    for table in TRAINED:
        if table in UNTRAINED:
            continue
        for row, usual in zip(rows_of(table, options), rows_of(table), strict=True):
            expected = replace(
                usual.recipe, epochs=usual.recipe.epochs // 2,
                pruning_epochs=usual.recipe.pruning_epochs // 2,
                images=300, procedure="text", precision="bfloat16",
            )  # fmt: skip
            assert row.recipe == expected
            assert row.analysis == replace(usual.analysis, shuffles=7)
            assert (row.published, row.phase) == (usual.published, usual.phase)


@given(
    epochs=st.integers(0, 1000),
    pruning_epochs=st.integers(0, 100),
    factor=st.floats(1e-6, 3),
)
def test_scaled_trainings_have_an_epoch_at_least_where_there_was_one(
    epochs, pruning_epochs, factor
):
    recipe = Recipe("mlp", "mnist", "l1", epochs, pruning_epochs, images=3)
    found = recipe.scaled(factor)
    for before, after in ((epochs, found.epochs), (pruning_epochs, found.pruning_epochs)):
        if before == 0:
            assert after == 0
        else:
            assert after >= 1
            assert after == 1 or abs(after - factor * before) <= 0.5
    assert replace(found, epochs=epochs, pruning_epochs=pruning_epochs) == recipe
    assert recipe.scaled(1.0) == recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs_scale": 0.0}, "epochs_scale: must be above 0, got 0"),
        ({"epochs_scale": -1.0}, "epochs_scale: must be above 0"),
        ({"epochs_scale": math.nan}, "epochs_scale: must be above 0, got nan"),
        ({"epochs_scale": math.inf}, "epochs_scale: must be"),
        ({"images": 0}, "images: must be at least 1, got 0"),
        ({"images": -5}, "images: must be at least 1"),
        ({"shuffles": 0}, "shuffles: must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        Deviations(**options)


@pytest.mark.parametrize("name", ["procedure", "precision"])
def test_unknown_procedures_and_precisions_are_refused(name):
    with pytest.raises(InputError, match=f"^{name}: must be one of .*got 'other'"):
        rows_of("A.5", Deviations(**{name: "other"}))


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", TITLES)
def test_tables_are_known_by_the_usual_spellings(table):
    prefixes = ("", "table ", "Table ", "TABLE ")
    spellings = [f"{prefix}{table}" for prefix in prefixes]
    if table.startswith("figure"):
        number = table.removeprefix("figure ")
        prefixes = ("figure", "Figure", "FIGURE", "fig", "Fig", "fig.", "Fig.", "FIG.")
        spellings = [f"{prefix} {number}" for prefix in prefixes]
    for text, space in itertools.product(spellings, ("", " ", "\n")):
        for spelling in (text, text.lower(), text.upper()):
            assert check_table(f"{space}{spelling}{space}") == table


@pytest.mark.parametrize(
    "name", ["", "2", "A1", "A.22", "A.0", "A", "figure A.4", "figure", "fig 2", "A.1 A.2", "a.1x"]
)
def test_other_tables_are_refused_with_the_list(name):
    with pytest.raises(InputError) as caught:
        check_table(name)
    message = str(caught.value)
    assert message.startswith("table: must be one of 1, A.1, ")
    assert f"figure 1, got {name!r}" in message
    assert name != "A1" or message.endswith("did you mean 'A.1'?")


def test_a_figure_is_not_taken_for_the_table_of_its_number():
    for number in ("A.1", "A.6", "1"):
        assert check_table(f"fig {number}") != check_table(f"table {number}")


def test_labels_distinguish_the_rows_of_a_table():
    for table in TITLES:
        labels = [(row.label, row.pruned) for row in of_table(table)]
        assert len(set(labels)) == len(labels)
        assert all(label == label.strip() and "  " not in label for label, _ in labels)
    assert of_table("A.10")[4].label == "vgg-cifar10 cifar10 dropout+l2"
    assert of_table("figure A.1")[0].label == "mlp"
    assert of_table("1")[0].label == "small-mlp-7x7 mnist downsampled-7x7 none"


def test_p_values_of_single_networks_become_networks_below_all_shuffles():
    # p = 0.01 with 100 shuffles is the least there is; Inception's 0.02 is one shuffle below.
    assert [row.significant for row in of_table(IMAGENET)] == [1, 1, 1, 1, 1, 0]
    assert {row.runs for row in of_table(IMAGENET)} == {1}
