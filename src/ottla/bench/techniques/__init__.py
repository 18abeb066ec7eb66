"""The seven techniques, each with and without, measured in one run on the same bytes."""
