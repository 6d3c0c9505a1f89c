"""The study of the paper's table: runs evaluated alike, what they say about its findings, curves
and the page.
"""
