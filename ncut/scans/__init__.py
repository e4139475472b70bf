"""Scans of many models, or of one huge model: parallel, resumable, one record each."""

from ncut.scans.results import Scan
from ncut.scans.running import scan

__all__ = ["Scan", "scan"]
