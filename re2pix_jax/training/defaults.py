"""Every field that a training config has, with what it means. A config file starts from
`defaults()` and changes some.
"""

import math

from ml_collections import ConfigDict

from re2pix_jax.errors import UserError
from re2pix_jax.training import boards

CITYSCAPES_CLIPS = 2975  # of the training split
SMALL_CLIPS = 1500  # training clips of the world that size `small` sees [O]


def defaults() -> ConfigDict:
    """Returns an unlocked ConfigDict with all fields of a training run."""
    config = ConfigDict()
    config.task = ''  # what is trained: a name that re2pix_jax.tasks knows
    config.seed = 0  # every random number of the run follows from this
    config.steps = 1000  # optimiser steps in all
    # What steps follow from where a recipe says how often its data is seen (`by_epochs`): passes,
    # and the clips of one. 0 = steps are given by themselves
    config.epochs = 0
    config.epoch_clips = 0
    config.batch_size = 8  # clips a step, over all devices and processes
    # parts that the batch is cut into, one after the other in memory; their gradients are averaged
    config.accumulate = 1
    config.model = ConfigDict()  # sizes of the trained network: its static fields
    config.init = ''  # bundle whose parameters a new run starts from; none = random ones
    # what networks compute in; 'bfloat16' on accelerators. Parameters are float32 in any case
    config.dtype = 'float32'
    config.loss = ConfigDict()  # settings of the task's loss
    config.frozen = ConfigDict()  # bundles that the task uses without training them: name -> path
    config.data = data('train')
    config.eval_data = data('validation')
    config.eval_data.sources = ()  # those of data, see `evaluated`
    # What is measured on eval_data every eval_every steps: name -> dict(type=..., ...) of an
    # evaluator, see re2pix_jax.evaluation
    config.evals = ConfigDict()
    config.optimizer = optimizer()
    # decay of the parameter average that is evaluated and exported; 0 = none  [O]
    config.ema = 0.999
    config.mesh = ConfigDict(
        {
            'data': -1,  # devices that split the batch; -1 = all that are left
            'model': 1,  # devices that split the kernels by output channel
        }
    )
    # 'replicate' | 'fsdp': parameters, their average and the optimiser split over data
    config.sharding = 'replicate'
    config.log_every = 50  # steps between rows of log.jsonl
    config.eval_every = 0  # steps between evaluations, and one at the end; 0 = never
    # steps between checkpoints; one is always written at the end; 0 = only that
    config.checkpoint_every = 500
    config.keep = 2  # checkpoints kept, the latest ones
    config.log = ConfigDict(
        {
            # rows of the table of parameters that is printed first; -1 = all, 0 = no table
            'parameters': 40,
            # boards that show the run, too: 'tensorboard' | 'wandb' | 'mlflow'
            'writers': ('tensorboard',),
            'pictures': 0,  # clips of eval_data that they show at each evaluation
        }
    )
    config.profile = ConfigDict(
        {
            # (first, last) step of a trace that xprof opens, in workdir/profile; () = none
            'steps': (),
        }
    )
    return config


def evaluated(config: ConfigDict) -> ConfigDict:
    """config.eval_data; where it names no sources, with those of config.data and the rate of their
    folders of images.
    """
    data = ConfigDict(config.eval_data)
    if not data.sources:
        data.update(sources=config.data.sources, folder_fps=config.data.folder_fps)
    return data


def by_epochs(config: ConfigDict, epochs: int, clips: int) -> None:
    """Lets config.steps follow from passes over so many clips and the batch size, also where the
    command line sets one of these; steps that it sets are taken as they are.
    """
    config.epochs, config.epoch_clips = epochs, clips
    config.steps = _batches(config, config.get_ref('epochs'))


def on_cityscapes(config: ConfigDict, epochs: int, evaluated: int) -> None:
    """Trains on Cityscapes, prepared in data/cityscapes, and evaluates on its validation split:
    `epochs` passes over the training split, an evaluation every `evaluated` of them.
    """
    by_epochs(config, epochs, CITYSCAPES_CLIPS)
    config.eval_every = _batches(config, evaluated)
    for data in (config.data, config.eval_data):
        data.sources = ('records:data/cityscapes',)


def on_small_world(config: ConfigDict, encoded: bool = False) -> None:
    """Trains on the world as launch/train_small.sh prepares it: data/small holds it larger than
    it is cropped to, data/small_encoded what the frozen networks make of whole frames.
    """
    config.epoch_clips = SMALL_CLIPS
    config.data.sources = config.eval_data.sources = ('records:data/small',)
    config.data.crop = (0.8, 1.0)
    if encoded:
        config.data.update(
            sources=('encoded:data/small_encoded',), crop=(1.0, 1.0), flip=0.0, strides=(3,)
        )


def _batches(config, epochs):
    """Reference to the batches of so many epochs."""
    return epochs * config.get_ref('epoch_clips') // config.get_ref('batch_size')


def by_size(size: str, **values):
    """The entry of `values` that `size` names: a config file lists its sizes side by side with
    it.
    """
    if size not in values:
        raise UserError(
            f'config size {size!r}: expected one of {", ".join(values)}, as in '
            f'--config=FILE.py:{next(iter(values))}'
        )
    return values[size]


def data(split: str) -> ConfigDict:
    """The fields of `data` and `eval_data`."""
    return ConfigDict(
        {
            # 'world' | 'records:PATH' | 'videos:PATH' | 'encoded:PATH' | 'cityscapes:PATH' ...
            'sources': ('world',),
            'weights': (),  # share of the clips drawn from each source; none = equal shares
            'split': split,  # 'train' | 'validation' | 'test'
            'size': (64, 128),  # height, width of a frame in pixels
            'frames': 5,  # frames of a clip
            'strides': (3,),  # frames between two of them at 17 fps; one is drawn for each clip
            'crop': (1.0, 1.0),  # share of the frame kept by a random crop: least, most
            'flip': 0.0,  # probability of a horizontal flip
            'time_flip': 0.0,  # probability that the frames run backwards
            'labels': True,  # whether labels and depth are read too
            'label_size': (),  # height, width of labels and depth; () = size
            'unreadable': 'stop',  # 'stop' | 'skip': what to do about a clip that can't be read
            # of its clips that a source must be able to give: with fewer nothing begins [O]
            'least_share': 0.5,
            # of the training windows that a crop may enlarge [O]
            'most_enlarged': 0.25,
            'workers': 0,  # processes that read; 0 = the training process
            'clips': 0,  # clips of the procedural world; 0 = all
            # 'start' | 'native': strides count native frames | 'target': so too, up to the frame
            # that the protocol predicts | 'keyframes', in evaluation: so too, from each of them on
            'window': 'start',
            'start': 0,  # first native frame of the window in evaluation
            'source_size': (),  # height, width before the crop; () = as the loader finds best
            'folder_fps': 17.0,  # frames a second of image folders among videos
        }
    )


def optimizer() -> ConfigDict:
    """The fields of `optimizer`."""
    return ConfigDict(
        {
            # 'adam' | 'adamw' | 'muon': that for the kernels of repeated layers, adam for the rest
            'name': 'adamw',
            'learning_rate': 1e-3,  # at the end of the warm-up
            'warmup_steps': 100,  # linear
            # after the warm-up: 'constant' | 'cosine' | 'poly', the last two down to 0 at `steps`
            'schedule': 'cosine',
            'power': 0.9,  # of 'poly'
            'b1': 0.9,
            'b2': 0.999,
            'eps': 1e-8,
            'muon_momentum': 0.95,
            'weight_decay': 0.0,  # adamw and muon, kernels only
            'clip': 1.0,  # largest global norm of the gradient; 0 = no clipping
        }
    )


# Least and most of a field, both included.
RANGES = {
    'seed': (0, 2**32 - 1),
    'steps': (1, math.inf),
    'epochs': (0, math.inf),
    'epoch_clips': (0, math.inf),
    'batch_size': (1, math.inf),
    'accumulate': (1, math.inf),
    'log_every': (1, math.inf),
    'eval_every': (0, math.inf),
    'checkpoint_every': (0, math.inf),
    'keep': (1, math.inf),
    'ema': (0, math.nextafter(1, 0)),
    'mesh.model': (1, math.inf),
    'log.parameters': (-1, math.inf),
    'optimizer.learning_rate': (0, math.inf),
    'optimizer.warmup_steps': (0, math.inf),
    'optimizer.power': (0, math.inf),
    'optimizer.b1': (0, math.nextafter(1, 0)),
    'optimizer.b2': (0, math.nextafter(1, 0)),
    'optimizer.eps': (0, math.inf),
    'optimizer.muon_momentum': (0, math.nextafter(1, 0)),
    'optimizer.weight_decay': (0, math.inf),
    'optimizer.clip': (0, math.inf),
}
DTYPES = ('float32', 'bfloat16', 'float16')


def check(config) -> None:
    """Refuses a field of a config that is out of its range.

    Raises:
      UserError: with the field, its value and what was expected.
    """
    fields = flatten(config)
    for name, (least, most) in RANGES.items():
        value = fields.get(name, least)
        if not least <= value <= most:  # true of nan too
            expected = f'at least {least}' + (
                '' if most == math.inf else ' and below 1' if most < 1 else f' and at most {most}'
            )
            raise UserError(f'{name} is {value}: {expected} expected')
    if fields.get('dtype', DTYPES[0]) not in DTYPES:
        raise UserError(f'dtype is {config.dtype!r}: one of {", ".join(DTYPES)} expected')
    steps = fields.get('profile.steps', ())
    if steps and (len(steps) != 2 or not 1 <= steps[0] <= steps[1]):
        raise UserError(
            f'profile.steps is {steps}: the first and the last step expected, such as (10, 15)'
        )
    boards.check(fields.get('log.writers', ()))


def flatten(config, prefix: str = '') -> dict:
    """{'a.b': value} of the leaves of a ConfigDict or of nested dicts; an empty group is a leaf."""
    fields = {}
    for key, value in config.items():
        nested = isinstance(value, (ConfigDict, dict)) and len(value) > 0
        fields.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
    return fields
