"""The fields of `data` and `eval_data` of a config, checked."""

import numpy as np

from re2pix_jax.errors import UserError

ENCODED = 'encoded:'


def read(data, batch_size: int, training: bool) -> dict:
    """The fields of `data` as plain values, checked."""
    get = data.get
    settings = {
        'sources': tuple(get('sources', ('world',))),
        'weights': tuple(get('weights', ()) or ()),
        'split': get('split', 'train'),
        'size': tuple(get('size', (64, 128))),
        'frames': get('frames', 8),
        'strides': tuple(get('strides', (3,))),
        'crop': tuple(get('crop', (1.0, 1.0))),
        'flip': get('flip', 0.0),
        'labels': get('labels', True),
        'label_size': tuple(get('label_size', ()) or ()),
        'time_flip': get('time_flip', 0.0),
        'clips': get('clips', 0),
        'window': get('window', 'start'),
        'start': get('start', 0),
        'unreadable': get('unreadable', 'stop'),
        'source_size': tuple(get('source_size', ()) or ()),
        'workers': get('workers', 0),
        'training': training,
    }
    settings['weights'] = settings['weights'] or (1.0,) * len(settings['sources'])
    low, high = settings['crop']
    for name, right, expected in (
        ('sources', settings['sources'], 'at least one source'),
        (
            'sources',
            len({name.startswith(ENCODED) for name in settings['sources']}) <= 1,
            'all of them encoded, or none: a batch holds either features or frames',
        ),
        (
            'weights',
            len(settings['weights']) == len(settings['sources']) and min(settings['weights']) > 0,
            f'{len(settings["sources"])} positive numbers, one for each source',
        ),
        ('strides', settings['strides'] and min(settings['strides']) > 0, 'positive numbers'),
        ('crop', 0 < low <= high <= 1, '0 < lo <= hi <= 1'),
        ('flip', 0 <= settings['flip'] <= 1, 'a probability'),
        ('time_flip', 0 <= settings['time_flip'] <= 1, 'a probability'),
        (
            'window',
            settings['window'] in ('start', 'native', 'target'),
            '"start", "native" or "target"',
        ),
        ('unreadable', settings['unreadable'] in ('stop', 'skip'), '"stop" or "skip"'),
        (
            'label_size',
            len(settings['label_size']) in (0, 2) and min(settings['label_size'], default=1) > 0,
            '(height, width)',
        ),
        ('size', len(settings['size']) == 2 and min(settings['size']) > 0, '(height, width)'),
        ('frames', settings['frames'] > 0, 'at least 1'),
        ('start', settings['start'] >= 0, 'at least 0'),
        ('workers', settings['workers'] >= 0, 'at least 0'),
    ):
        if not right:
            raise UserError(f'data.{name} = {settings[name]}: expected {expected}')
    if training and settings['sources'][0].startswith(ENCODED) and (low < 1 or settings['flip']):
        raise UserError(
            f'{settings["sources"][0]}: these frames were encoded whole and as they are; '
            'set data.crop=(1.0, 1.0) and data.flip=0'
        )
    if batch_size < 1:
        raise UserError(f'batch_size = {batch_size}: expected at least 1 clip')
    return settings


def source_size(name: str, settings: dict) -> tuple[int, int]:
    """(height, width) at which a source renders or fits its frames, before the crop."""
    if settings['source_size']:
        return settings['source_size']
    scale = (
        1.0 / settings['crop'][0] if name.startswith('videos:') and settings['training'] else 1.0
    )
    return tuple(int(np.ceil(side * scale)) for side in settings['size'])
