"""What is shown of a node over HTTP. Loaded when somebody first looks, and not before."""
