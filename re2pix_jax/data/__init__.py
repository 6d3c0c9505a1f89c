"""Driving video, from a file or a folder up to the batch; no network is known here. `video` reads
and writes files, `loader.create` makes batches of what `sources` opens, `prepare` writes clips for
it, `windows` says which frames and pixels of a clip a window has.
"""

from re2pix_jax.data import video, windows

__all__ = ['video', 'windows']
