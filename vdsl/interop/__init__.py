"""Doors to other libraries, one small file each."""
