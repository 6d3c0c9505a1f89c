"""Feature networks that measure frames beside the model's own parts: Inception (FID), I3D (FVD),
LPIPS; and two that need no download: the judge, which we train, and random kernels.
"""
