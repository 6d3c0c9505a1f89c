"""Driving video, from the file up to the batch: a procedural world, video files, datasets, sampling and the loader."""

from re2pix_jax.clips import sampling, video, world

__all__ = ['sampling', 'video', 'world']
