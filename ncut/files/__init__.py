"""Files: one guard around every reader, one function that writes."""

from ncut.files.guard import Budget, content_of, describe, reading, regular_file
from ncut.files.writing import (
    append_line,
    check_output,
    cut_file,
    make_folder,
    reason,
    remove_file,
    remove_parts,
    write_file,
    write_json,
    write_text,
)

__all__ = [
    "Budget",
    "append_line",
    "check_output",
    "content_of",
    "cut_file",
    "describe",
    "make_folder",
    "reading",
    "reason",
    "regular_file",
    "remove_file",
    "remove_parts",
    "write_file",
    "write_json",
    "write_text",
]
