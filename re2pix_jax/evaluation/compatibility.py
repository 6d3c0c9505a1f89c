"""What must fit before anything runs: heads and networks, the evaluated part, and the clips."""

import os

from re2pix_jax import bundles
from re2pix_jax.cityscapes import IGNORE
from re2pix_jax.data import records, windows
from re2pix_jax.encoder import Encoder
from re2pix_jax.errors import UserError

WORDS = {'classes': 'ordinal classes', 'metres': 'metres'}
MADE_BY = {
    'inception': '`convert inception` from pt_inception-2015-12-05-6726825d.pth of pytorch-fid',
    'i3d': '`convert i3d` from rgb_imagenet.pt of pytorch-i3d',
    'lpips': "`convert lpips` from torchvision's alexnet-owt-7be5be79.pth and the lpips package's "
    'v0.1/alex.pth',
    'judge': '`train --config=judge:tiny` and `export`',
}


def encoder_of(part):
    """The encoder whose features a part works on, None where it has none."""
    if isinstance(part, dict):
        return part.get('encoder')
    part = getattr(part, 'forecaster', part)
    return part if isinstance(part, Encoder) else getattr(part, 'encoder', None)


def depth_kind(head) -> str:
    """What the depth of a head is: 'metres' or 'classes'."""
    return 'metres' if head.depth_range else 'classes'


def open_head(evaluator, reads: str):
    """The head that the evaluator's option names, () where it names none.

    Raises:
        UserError: there is no such bundle, or its head reads something else.
    """
    path = evaluator.options['head']
    if not path:
        return ()
    head = bundles.load(path, 'head')
    if head.reads != reads:
        raise UserError(
            f'config.evals.{evaluator.name}.head = {path!r}: reads {head.reads}; expected a head '
            f'that reads {reads}'
        )
    return head


def check_head(evaluator, part, clips) -> None:
    """Takes the part's own head where the option names none, and refuses one that does not fit.

    Raises:
        UserError: it takes other features than the part's encoder gives, was trained on another
            encoder, or reads a depth of another kind than the clips'.
    """
    option = f'config.evals.{evaluator.name}.head'
    if evaluator.left_out:
        return
    if not evaluator.options['head']:
        own = part.get('head') if isinstance(part, dict) else getattr(part, 'head', None)
        if own is None or evaluator.FIELDS != {own_field(own)}:
            evaluator.left_out = (
                f'{evaluator.titles}: the model has no such head; name one by {option}'
            )
            return
        evaluator.parts = own
    head, encoder = evaluator.parts, encoder_of(part)
    if head.reads == 'normals' and 'classes' in clips.depth_kinds:
        raise UserError(
            f'{option}: the depth of {clips.source} is ordinal classes, and normals are derived '
            'from metres; use a source of metres, or leave it empty'
        )
    if head.reads == 'depth' and (strange := clips.depth_kinds - {depth_kind(head)}):
        theirs = WORDS[min(strange)]
        raise UserError(
            f'{option}: gives {WORDS[depth_kind(head)]}, and the depth of {clips.source} is '
            f'{theirs}; use a head for {theirs}, a source of {WORDS[depth_kind(head)]}, or leave '
            'it empty'
        )
    if encoder is None:
        return
    channels = len(encoder.net.layers) * encoder.net.width
    if head.channels != channels:
        raise UserError(
            f'{option}: takes features of {head.channels} channels, the encoder gives {channels}; '
            'use a head that was trained for this encoder, or leave it empty'
        )
    if head.encoder is not None and head.encoder != (identity := bundles.identity(encoder)):
        raise UserError(
            f'{option}: was trained on another encoder ({head.encoder[:12]}) than this one '
            f'({identity[:12]}); use a head that was trained for this encoder, or leave it empty'
        )


def about_head(evaluator) -> dict:
    """What the protocol says of a head, of one that the config names or of the model's own."""
    name = evaluator.options['head']
    about = f'head {name}' if name else "the model's own head"
    return {'network': about, 'sha256': bundles.identity(evaluator.parts)}


def own_field(head) -> str:
    """The field of a batch that a head is compared with."""
    return 'labels' if head.reads == 'segmentation' else 'depth'


def open_network(evaluator, kind: str):
    """The network that the evaluator's option names; left out, with the file it takes, where it is
    not there.

    Raises:
        UserError: a bundle is damaged or of another kind.
    """
    path = evaluator.options['network']
    if not _there(path):
        evaluator.left_out = (
            f'{evaluator.titles}: config.evals.{evaluator.name}.network = {path!r} names no '
            f'bundle; make one by {MADE_BY[kind]}'
        )
        return ()
    return bundles.load(path, kind)


def _there(name) -> bool:
    if not name:
        return False
    try:
        return os.path.isdir(bundles.resolve(name))
    except UserError:
        return False


def check_label_size(source, name: str, size, label_size, fields) -> None:
    """Refuses labels and depth that would have to be enlarged: scores of invented pixels mean
    nothing.

    Args:
        source: of the clips; name: what the config calls it.
        size: (height, width) of frames; label_size: of labels and depth.
        fields: of a batch that are compared; others may have any size.
    """
    for stored in _stored_sizes(source):
        box = windows.centre_box(*stored['frames'], size)
        for field, words in (('labels', 'labels'), ('depth', 'depth maps')):
            if stored[field] is None or field not in fields:
                continue
            found = [
                round(side * of / frame)
                for side, of, frame in zip(
                    (box.height, box.width), stored[field], stored['frames'], strict=True
                )
            ]
            if found[0] < label_size[0] or found[1] < label_size[1]:
                raise UserError(
                    f'config.label_size = {tuple(label_size)}: {words} of {name} have '
                    f'{found[0]}x{found[1]} pixels; ask for no more than that'
                )


def _stored_sizes(source):
    """Distinct {'frames', 'labels', 'depth': (height, width) or None} of all prepared clips, or of
    another source's first one.
    """
    if isinstance(source, records.Records):
        sizes = {
            tuple(clip[name] and tuple(clip[name]) for name in ('size', 'label_size', 'depth_size'))
            for clip in source.clips
        }
        return [dict(zip(('frames', 'labels', 'depth'), found, strict=True)) for found in sizes]
    target = getattr(source, 'target', lambda _: None)
    if not len(source) or target(0) is None or target(0) >= source.num_frames(0):
        return []  # the loader says what is wrong
    clip = source.read(0, [target(0)])
    known = {
        'frames': True,
        'labels': (clip['labels'] != IGNORE).any(),
        'depth': clip['depth'].any(),
    }
    return [{name: clip[name].shape[1:3] if there else None for name, there in known.items()}]


def origin(name) -> str:
    """sha256 of the published file that a bundle was converted from; of the bundle where it does
    not say.
    """
    about = bundles.read(name).extras.get('about') or {}
    return about.get('sha256') or bundles.digest(name)
