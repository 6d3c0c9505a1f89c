"""Every field that a training config has, with what it means. A config file starts from
`defaults()` and changes some.
"""

from ml_collections import ConfigDict

from re2pix_jax.errors import UserError


def defaults():
    """Returns an unlocked ConfigDict with all fields of a training run."""
    config = ConfigDict()
    config.task = ''  # what is trained: a name that re2pix_jax.tasks knows
    config.seed = 0  # every random number of the run follows from this
    config.steps = 1000  # optimiser steps in all
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
    config.optimizer = optimizer()
    config.ema = (
        0.999  # decay of the parameter average that is evaluated and exported; 0 = none  [O]
    )
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
    config.checkpoint_every = (
        500  # steps between checkpoints; one is always written at the end; 0 = only that
    )
    config.keep = 2  # checkpoints kept, the latest ones
    return config


def by_size(size, **values):
    """The entry of `values` that `size` names: a config file lists its sizes side by side with
    it.
    """
    if size not in values:
        raise UserError(
            f'config size {size!r}: expected one of {", ".join(values)}, as in '
            f'--config=FILE.py:{next(iter(values))}'
        )
    return values[size]


def data(split):
    """The fields of `data` and `eval_data`."""
    return ConfigDict(
        {
            'sources': (
                'world',
            ),  # 'world' | 'records:PATH' | 'videos:PATH' | 'encoded:PATH' | 'cityscapes:PATH' ...
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
            'workers': 0,  # processes that read; 0 = the training process
            'clips': 0,  # clips of the procedural world; 0 = all
            # 'start' | 'native': strides count native frames | 'target': so too, up to the frame
            # that the protocol predicts
            'window': 'start',
            'start': 0,  # first native frame of the window in evaluation
            'source_size': (),  # height, width before the crop; () = as the loader finds best
        }
    )


def optimizer():
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


def flatten(config, prefix=''):
    """{'a.b': value} of the leaves of a ConfigDict or of nested dicts; an empty group is a leaf."""
    fields = {}
    for key, value in config.items():
        nested = isinstance(value, (ConfigDict, dict)) and len(value) > 0
        fields.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
    return fields
