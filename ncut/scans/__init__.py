"""Many models, or one huge one: measured in parallel, resumable, one record each."""

from ncut.scans.results import Scan
from ncut.scans.running import scan

__all__ = ["Scan", "scan"]
