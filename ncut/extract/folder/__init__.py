"""A folder of a Hugging Face transformer -> the record of its forward pass; no torch needed."""

from ncut.extract.folder.read import read_folder

__all__ = ["read_folder"]
