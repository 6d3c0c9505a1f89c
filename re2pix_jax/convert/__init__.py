"""Published files → bundles: safe readers and a key table a model; nothing in a file is run, no
tensor is left over in silence.
"""
