"""The commands of ``report``, a file each."""
