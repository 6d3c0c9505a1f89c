"""Pictures, videos and tables that people look at, on numpy and Pillow; nothing here computes a
metric.
"""
