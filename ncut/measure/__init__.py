"""The pipeline of all measurements: a graph prepared at a place, then `measure` by number."""

from ncut.measure.finish import finish, network_record, stop_rule
from ncut.measure.run import Measured, Prepared, measure, measure_shuffles, prepare, shuffle_record

__all__ = [
    "Measured",
    "Prepared",
    "finish",
    "measure",
    "measure_shuffles",
    "network_record",
    "prepare",
    "shuffle_record",
    "stop_rule",
]
