"""Blocks that several networks share: attention, feed-forward layers and position codes."""
