"""What a bundle scores on held-out clips: a whole model step by step (`model`), stage 1 by its
field's protocol (`forecaster`).
"""
