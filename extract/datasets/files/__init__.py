"""Data sets whose images are files: folders and tables of them, read and decoded."""
