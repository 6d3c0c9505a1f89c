"""Stage 2's training step at 256x512 beside plain PyTorch: arithmetic, time, memory.

    re2pix benchmark generator_step --size=xl --batch=4        (on a CPU: --depth=2)

The network's loss on given latents and components (rectified flow, nested dropout), clipping, AdamW
and the average of parameters; the frozen networks and stage 1's own forecasts are no part of it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from re2pix_jax.benchmarks import generator_work as work
from re2pix_jax.benchmarks import measuring
from re2pix_jax.generator import SpaceTimeDiT, flow
from re2pix_jax.report.table import table
from re2pix_jax.tasks.generator import GeneratorTask
from re2pix_jax.training import defaults


class Given(GeneratorTask):
    """The task on clips that were encoded before: the networks that did it are not needed again."""

    frozen_parts = ()


def make_task(size, depth, batch, **changes):
    config = defaults.defaults()
    config.update(task='generator', batch_size=batch, dtype=measuring.compute_dtype(), ema=0.9999)
    config.model.update(work.fields(size, depth) | dict(backbone='dit') | changes)
    config.loss.update(
        nested_dropout=True,
        nested_counts='doublings',
        predicted_fraction=0.0,
        mixed='slice',
        path='flow',
        target='x',
        schedule='linear',
        times='logit_normal',
        time_mean=-0.4,
        time_std=1.0,
        sampler='euler',
        sampler_steps=20,
    )
    config.optimizer.update(name='adamw', learning_rate=1e-4, warmup_steps=0, b2=0.95, clip=1.0)
    return Given(config)


def lower_step(task):
    """The step for a batch of clips, not yet compiled."""
    net, batch = task.net, task.config.batch_size
    shapes = {
        'latents': (*net.latent_grid, net.latent_channels),
        'components': (*net.token_grid, net.components),
    }
    lead = batch, net.context_frames + net.future_frames
    return measuring.lower_step(
        task,
        {
            name: jax.ShapeDtypeStruct((*lead, *shape), jnp.float32)
            for name, shape in shapes.items()
        },
    )


def run(batch: int, size: str, depth: int | None, threads: int, repeats: int) -> None:
    """Prints everything; `depth` layers, None for what the size has."""
    measuring.share_gpu()
    task = make_task(
        size, depth, batch, unroll=True
    )  # XLA's cost analysis counts the body of a loop once
    step = lower_step(task).compile()
    print(f'{work.describe(size, task.net)}; batch {batch}\n')
    _arithmetic(task, batch)
    _agreement(threads)
    _time(task, step, batch, threads, repeats)
    step = None
    _memory(size, depth)


def _arithmetic(task, batch):
    parts = work.flops(task.net)
    forward = parts['context'] + parts['denoise']
    ours = (forward + parts['backward']) * batch
    theirs = ours + 3 * (parts['peer'] - forward) * batch
    with measuring.plain_attention():
        counted = lower_step(task).cost_analysis()['flops']
    print(
        table(
            ['TFLOP a step', 'forward', 'backward', 'by hand', "XLA's count", 'XLA / hand'],
            [
                [
                    'ours',
                    forward * batch / 1e12,
                    parts['backward'] * batch / 1e12,
                    ours / 1e12,
                    counted / 1e12,
                    counted / ours,
                ]
            ],
        )
    )
    print(
        'by hand: matrix products alone; XLA counts elementwise work and the optimiser too. The '
        f'peer takes {theirs / ours:.3f} times '
        "ours: it computes the context's last layer to its end, which no one reads\n"
    )


def _agreement(threads):
    """Loss, prediction and gradients at a small size, in float32: ours beside the peer's, from the
    same parameters.
    """
    import torch

    from re2pix_jax.benchmarks import plain_dit

    net = SpaceTimeDiT(**work.SMALL)
    params = work.draw_params(net)
    latents, components = work.draw(2, net.context_frames + net.future_frames, net)
    noise, t = work.draw(2, net.future_frames, net, seed=1)[0], np.float32([0.3, 0.98])
    past = net.context_frames

    def loss(params):
        noisy = flow.interpolate(latents[:, past:], noise, t)
        prediction = net.apply(
            params, latents[:, :past], noisy, t, components[:, :past], components[:, past:]
        )
        return flow.loss(prediction, latents[:, past:], noise, noisy, t), prediction

    with jax.default_matmul_precision('highest'):  # accelerators round float32 otherwise
        (value, prediction), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    torch.set_num_threads(threads)
    model = plain_dit.DiT(net).load(params).to(plain_dit.DEVICE)
    inputs = [plain_dit.on_device(array) for array in (latents, components, t, noise)]
    other = plain_dit.flow_loss(model, *inputs)
    other.backward()
    ours = model.named_as_here(jax.tree.map(np.asarray, gradients))
    apart = max(
        work.difference(ours[name].numpy(), parameter.grad.cpu().numpy())
        for name, parameter in model.named_parameters()
    )
    their_prediction = plain_dit.noisy_and_prediction(model, *inputs)[1].detach().cpu().numpy()
    print(
        'largest difference to the peer at a small size, relative: loss '
        f'{abs(float(value) / other.item() - 1):.1e}, prediction '
        f'{work.difference(np.asarray(prediction), their_prediction):.1e}, gradient of any '
        f'parameter {apart:.1e}\n'
    )


def _time(task, step, batch, threads, repeats):
    from re2pix_jax.benchmarks import plain_dit

    latents, components = work.draw(
        batch, task.net.context_frames + task.net.future_frames, task.net
    )
    data = {'latents': jnp.asarray(latents), 'components': jnp.asarray(components)}
    ours, other = (
        measuring.Stepper(task, step, data),
        plain_dit.Step(task.net, threads, task.counts, latents, components),
    )
    # In turn, the one may pay for memory that the other gave back; so each is taken by itself as
    # well.
    alone = [measuring.seconds_of(run, 3) for run in (ours, other)]
    seconds = measuring.in_turn(ours, other, repeats)
    parts, peak = work.flops(task.net), measuring.peak(task.config.dtype)
    forward = (parts['context'] + parts['denoise']) * batch
    print(measuring.speed_table(seconds, forward + parts['backward'] * batch, peak))
    print(peak.about)
    print(
        f'each by itself: ours {alone[0]:.2f} s, torch {alone[1]:.2f} s, torch / ours '
        f'{alone[1] / alone[0]:.2f}\n'
    )

    variables, ours.state = ours.state.variables, None
    loss = jax.jit(lambda variables: task.loss(variables, {}, data, jax.random.key(0)))
    times = {'forward': measuring.seconds_of(lambda: loss(variables))}
    times['backward'] = max(seconds[0] - times['forward'], 0.0)
    rows = [
        [label, times[name], other.parts[name], total / 1e9 / times[name] if times[name] else 0.0]
        for name, label, total in (
            ('forward', 'forward', forward),
            ('backward', 'the rest: backward and update', parts['backward'] * batch),
        )
    ]
    print(table(['where the time goes: seconds', 'ours', 'torch', 'ours, GFLOP/s'], rows))
    print()


def _memory(size, depth):
    """What a step needs at a time: state and gradients, and for each clip, from XLA's plans for one
    and two clips.
    """
    plan = lambda remat: measuring.bytes_by_clip(
        lambda clips: lower_step(make_task(size, depth, clips, remat=remat)).compile()
    )
    print(measuring.memory_table({'without': plan(False), 'with remat': plan(True)}))
    print(
        f"from XLA's plan of the whole step for {jax.default_backend()}, "
        f'{measuring.compute_dtype()}, the layers a loop; parameters, their average, both moments '
        'and gradients are float32'
    )
