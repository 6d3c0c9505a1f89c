"""Blocks that several networks share: attention, dense and feed-forward layers, convolutions and
position codes.
"""
