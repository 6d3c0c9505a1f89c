"""`python -m re2pix_jax COMMAND ...`, the same as `re2pix COMMAND ...`."""

from re2pix_jax.commands import cli

if __name__ == '__main__':
    cli.main()
