"""The whole of it: look, prepare, tune, evaluate, predict, show."""

import functools

from re2pix_jax import bundles
from re2pix_jax.errors import UserError
from re2pix_jax.finetuning import parts, plan, result
from re2pix_jax.training import lock


def finetune(run: plan.Run, preview: bool = False) -> int:
    """Makes the bundle `run.out` with its page, saying on stdout what is done; goes on where the
    same run was interrupted. With `preview` it says what it would do, and writes nothing.

    Returns:
        An exit status: 0, or 143 where a SIGTERM or Ctrl-C ended a training, which is saved.

    Raises:
        UserError: `run.out` is there or in the footage, the footage or the disk does not do, or the
            run was begun otherwise or is under way.
    """
    if (run.out / 'index.html').is_file():
        raise UserError(f'{run.out}: is there already, with its page; remove it or choose another')
    if run.out.resolve().is_relative_to(run.footage.resolve()):
        raise UserError(
            f'{run.out}: lies in the footage, where what is made would be taken for more of it; '
            'choose an --out outside of it'
        )
    if not run.work.exists():
        bundles.check_place(run.out, 're2pix')
    seen = plan.look(run)
    size = plan.disk(run, seen)
    print(plan.describe(run, seen, plan.estimates(run, seen), size), flush=True)
    if preview:
        return 0
    plan.begin(run, seen, size)
    with lock.held(run.work, '--out'):
        return _made(run)


def _made(run) -> int:
    try:
        parts.tuned(run)
    except parts.Stopped:
        return 143
    reports = {
        name: plan.once(run, name, functools.partial(result.measured, run, model))
        for name, model in (('untuned', run.name), ('tuned', str(run.out)))
    }
    print(result.written(run, reports, result.predicted(run)))
    print(f'written to {run.out}: a bundle, and index.html to look at; {run.work} can be removed')
    return 0
