"""Speed and memory of ours beside a well-known other implementation, in one run on one machine.

A file each, whose `run` takes what `re2pix benchmark NAME --help` lists; the peers' code (plain_*)
and what benchmarks share stand beside them.
"""

BENCHMARKS = (
    'pca',
    'encoder',
    'vae',
    'forecaster_step',
    'generator_step',
    'generator_prediction',
    'prediction',
    'attention',
    'convert',
    'data',
    'gpu_suite',
)
