"""Driving video, from a file or a folder up to the batch; no network is known here."""

from re2pix_jax.data import video, windows

__all__ = ['video', 'windows']
