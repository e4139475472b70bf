"""Reader of Hugging Face transformer folders, without torch."""

from ncut.extract.readers.folder.read import read_folder

__all__ = ["read_folder"]
