"""What measures frames beside the model's own parts: a head for depth, and the networks of FID, FVD
and LPIPS, where given.

None of them has to be there: what cannot be measured is left out and named, with the file that it
    would take.
"""

from typing import NamedTuple

import flax.struct
import jax.numpy as jnp

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.evaluation import frames as measured
from re2pix_jax.evaluation import protocol
from re2pix_jax.evaluation.evaluators.descriptors import WINDOW
from re2pix_jax.evaluation.networks import i3d, inception


class Network(NamedTuple):
    """A network that the config may name: the measure it is for, and where its weights come
    from.
    """

    measure: str
    file: str


NETWORKS = {
    'inception': Network('FID', 'pt_inception-2015-12-05-6726825d.pth of pytorch-fid'),
    'i3d': Network('FVD', 'rgb_imagenet.pt of pytorch-i3d'),
    'lpips': Network(
        'LPIPS', "torchvision's alexnet-owt-7be5be79.pth and the lpips package's v0.1/alex.pth"
    ),
}


class Judges(flax.struct.PyTreeNode):
    """A pytree, so that it passes through jit and lies on devices.

    Attributes:
        heads: {kind: `Head`}: 'segmentation' (the model's own, see `fitting`) and 'depth'.
        networks: {name in NETWORKS: its part}, those that are there.
        origins: (name of a network, its bundle, sha256 of the published file or else of the
            bundle), one for each.
        left_out: a line for every measure that will be missing.
    """

    heads: dict = flax.struct.field(default_factory=dict)
    networks: dict = flax.struct.field(default_factory=dict)
    origins: tuple = flax.struct.field(pytree_node=False, default=())
    left_out: tuple[str, ...] = flax.struct.field(pytree_node=False, default=())

    @classmethod
    def load(cls, config) -> 'Judges':
        """Those that config.heads.depth, .inception, .i3d and .lpips name.

        Raises:
            UserError: a bundle is damaged or of another kind. One that is not there is left out.
        """
        heads, networks, origins, left_out = {}, {}, [], []
        if _there(config.heads.depth):
            heads['depth'] = bundles.load(config.heads.depth, 'head')
        else:
            left_out.append(
                f'depth errors: config.heads.depth = {config.heads.depth!r} names no bundle of a '
                'depth head; train one with '
                'configs/head.py'
            )
        for name, (measure, file) in NETWORKS.items():
            if _there(config[name]):
                networks[name] = bundles.load(config[name], name)
                origins.append((name, config[name], _hash(config[name])))
            else:
                left_out.append(
                    f'{measure}: config.{name} = {config[name]!r} names no bundle; make one by '
                    f'`convert {name}` from {file}'
                )
        return cls(heads, networks, tuple(origins), tuple(left_out))

    def fitting(self, model, config) -> 'Judges':
        """With the model's own head for labels, and without a depth head that was trained on
        features of another width.

        Raises:
            UserError: the head for depth reads something else, or clips of this horizon are too
                short for FVD.
        """
        heads, left_out = dict(self.heads), list(self.left_out)
        if 'depth' in heads:
            reads, given = heads['depth'].reads, heads['depth'].channels
            channels = model.forecaster.principal.components.shape[1]
            if reads != 'depth':
                raise UserError(
                    f'config.heads.depth: reads {reads}; expected a head that reads depth'
                )
            if given != channels:
                left_out.append(
                    f'depth errors: config.heads.depth = {config.heads.depth!r} takes features of '
                    f'{given} channels and the '
                    f"model's encoder gives {channels}; name a head that was trained for it"
                )
                del heads['depth']
        if 'i3d' in self.networks:
            i3d.check_frames(model.context_frames + config.horizon)
        if getattr(model, 'head', None) is not None:
            heads['segmentation'] = model.head
        else:
            left_out.append('mIoU: the model has no head for labels')
        return self.replace(heads=heads, left_out=tuple(left_out))

    def describe(self, past, frames, truth) -> dict:
        """What the networks make of frames uint8 [B, K, H, W, 3], or [B, 1, ...] for K equal ones,
        that stand for `truth`.

        Returns:
            Of {'fid': [B, K, 2048], 'fvd': [B, 1, 400], 'lpips': [B, K]} those that there is a
            network for.
        """
        found, horizon, true = {}, truth.shape[1], frames is truth
        if 'inception' in self.networks:
            features = self.networks['inception'].features(frames)
            found['fid'] = jnp.broadcast_to(
                features, (features.shape[0], horizon, features.shape[2])
            )
        frames = jnp.broadcast_to(frames, truth.shape)
        if 'i3d' in self.networks:
            found['fvd'] = self.networks['i3d'].features(jnp.concatenate([past, frames], axis=1))[
                :, None
            ]
        if 'lpips' in self.networks and not true:
            found['lpips'] = self.networks['lpips'].distance(frames, truth)
        return measured.together(found)

    def features(self, model, config, moments) -> dict:
        """{measure: `protocol.Features`}, given the moments of the true sets."""
        encoder = "the model's encoder", protocol.fingerprint(model.forecaster.encoder.params)
        networks = {'fid': 'inception', 'fvd': 'i3d'}
        origins = {name: origin for name, *origin in self.origins}
        samples = {
            'frechet_frames': 'a future frame each: mean and deviation of its leading components',
            'frechet_video': f'windows of {min(WINDOW, config.horizon)} future frames: leading '
            'components and their changes',
            'fid': f'a future frame each, resized to {inception.SIDE}x{inception.SIDE}',
            'fvd': f'a clip of {model.context_frames} context + {config.horizon} future frames '
            f'each, resized to {i3d.SIDE}x{i3d.SIDE}',
        }
        return {
            measure: protocol.Features(
                *(origins[networks[measure]] if measure in networks else encoder),
                samples[measure],
                len(found.mean),
                found.count,
            )
            for measure, found in moments.items()
        }


def _there(name) -> bool:
    if not name:
        return False
    try:
        bundles.resolve(name)
    except UserError:
        return False
    return True


def _hash(name) -> str:
    """Of the published file that a bundle was converted from; of the bundle where it does not
    say.
    """
    about = bundles.read(name).extras.get('about') or {}
    return about.get('sha256') or bundles.digest(name)
