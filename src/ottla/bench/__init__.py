"""Load generators. See load.py."""
