"""The commands: flags in, one call, exit status out; a file each. `re2pix` alone lists them."""
