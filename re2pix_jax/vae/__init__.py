"""Frames to latents and back."""

from re2pix_jax.vae.autoencoder import Autoencoder, AutoencoderKL

__all__ = ['Autoencoder', 'AutoencoderKL']
