"""A page to play with: a video in, its futures out. `session` is what it does, without a browser;
`page` is how it looks.
"""
