"""Benchmarks that need a file of their own; `python -m re2pix_jax benchmark NAME` runs them."""
