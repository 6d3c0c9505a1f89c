"""What is trained. A task is all that a new model must bring; `re2pix_jax.training` knows how to
train any of them.
"""

from re2pix_jax import errors


def create(config, load: bool = True, frozen: dict | None = None):
    """The task that `config.task` names, with its frozen parts loaded from the bundles in
    `config.frozen`, or without them where shapes are all that is asked for; or with `frozen`,
    {name: part}, in their place.
    """
    from re2pix_jax.tasks import autoencoder, encoder, forecaster, generator, head, judge

    tasks = {
        'autoencoder': autoencoder.AutoencoderTask,
        'encoder': encoder.EncoderTask,
        'head': head.HeadTask,
        'forecaster': forecaster.ForecasterTask,
        'generator': generator.GeneratorTask,
        'judge': judge.JudgeTask,
    }
    if config.task not in tasks:
        raise errors.UserError(
            f'config.task: expected one of {", ".join(tasks)}, got {config.task!r}'
        )
    return tasks[config.task](config, load, frozen)
