"""The command `ncut`: arguments -> library -> output, and exit codes."""

from ncut.cli.app import app, main

__all__ = ["app", "main"]
