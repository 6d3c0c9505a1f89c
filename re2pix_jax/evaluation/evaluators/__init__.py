"""Numbers for predicted frames, features and labels. Every module states the convention that its
numbers follow.
"""
