"""In which precision a part computes."""


def with_dtype(part, dtype: str):
    """The part (Encoder, Re2Pix, ...) with every network in it computing in `dtype`; parameters
    keep theirs.
    """
    changes = {}
    for name in part.__dataclass_fields__:
        value = getattr(part, name)
        if name == 'net':
            changes[name] = value.clone(dtype=dtype)
        elif hasattr(value, '__dataclass_fields__') and hasattr(value, 'replace'):
            changes[name] = with_dtype(value, dtype)
    return part.replace(**changes)
