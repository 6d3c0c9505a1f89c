"""How annotations are checked while the tests run."""

from beartype import BeartypeConf, beartype

CONFIG = BeartypeConf(is_pep484_tower=True)  # a whole number is a number


def check(function):
    """The function with its arguments and results checked.

    Fields are not: parts travel as trees of shapes and of shardings too, and flax's have
    annotations that cannot be checked.
    """
    return function if function.__name__ == '__init__' else beartype(conf=CONFIG)(function)
