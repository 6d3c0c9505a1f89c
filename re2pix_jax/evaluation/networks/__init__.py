"""Feature networks that measure frames beside the model's own parts: Inception (FID), I3D (FVD),
LPIPS.
"""
