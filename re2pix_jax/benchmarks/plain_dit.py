"""The generator in plain PyTorch: what a careful user would write, with torch's own attention,
AdamW and average of parameters.

One sequence of context and future frames, each with its own time, and a mask that keeps the context
from the future; so the whole of it is computed at every step of the sampler. On a GPU torch
compiles its layers, one program for all of them.
"""

import math
import time

import torch
from torch import nn
from torch.nn import functional
from torch.optim import swa_utils

from re2pix_jax.benchmarks.generator_work import hidden
from re2pix_jax.benchmarks.torch_device import DEVICE, compiled, finish
from re2pix_jax.generator.dit import EPSILON, FREQUENCIES
from re2pix_jax.nn import rotary


def on_device(array):
    return torch.from_numpy(array).to(DEVICE)


def _modulate(x, shift, scale):
    return x * (1 + scale) + shift


def _rotate(x, code):
    """x [..., N, d]; code: cosine and sine [N, d / 2]."""
    cosine, sine = code.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class Attention(nn.Module):
    """[batch, tokens, width] -> the same."""

    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.out, self.heads = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
            heads,
        )

    def forward(self, x, code, mask=None):
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key = (
            _rotate(functional.rms_norm(x, x.shape[-1:], eps=EPSILON), code).to(value.dtype)
            for x in (query, key)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.out(mixed.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x):
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(functional.silu(gate) * value)


class Block(nn.Module):
    """[B, T, N, D] -> the same; modulation: 9 of [B, T, 1, D]."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.time_norm, self.space_norm, self.ff_norm = (
            nn.RMSNorm(width, EPSILON) for _ in range(3)
        )
        self.time, self.space, self.ff = (
            Attention(width, heads),
            Attention(width, heads),
            SwiGLU(width, hidden),
        )

    def forward(self, x, modulation, time_code, space_code, mask):
        time, space, ff = modulation[:3], modulation[3:6], modulation[6:]
        by_place = _modulate(self.time_norm(x), *time[:2]).transpose(1, 2)
        x = x + time[2] * self.time(by_place.flatten(0, 1), time_code, mask).view(
            by_place.shape
        ).transpose(1, 2)
        by_frame = _modulate(self.space_norm(x), *space[:2])
        x = x + space[2] * self.space(by_frame.flatten(0, 1), space_code).view(x.shape)
        return x + ff[2] * self.ff(_modulate(self.ff_norm(x), *ff[:2]))


class DiT(nn.Module):
    """The network with the fields of our `net`; its modules have the names of our parameters."""

    def __init__(self, net):
        super().__init__()
        width, patch = net.width, net.patch_size**2 * net.latent_channels
        self.grid, self.size, self.past, self.future = (
            net.token_grid,
            net.patch_size,
            net.context_frames,
            net.future_frames,
        )
        self.embed, self.fusion = (
            nn.Linear(patch, width),
            nn.ModuleDict({'embed': nn.Linear(net.components, width)}),
        )
        self.time_embedding = nn.ModuleDict(
            {'inner': nn.Linear(FREQUENCIES, width), 'outer': nn.Linear(width, width)}
        )
        self.modulation = nn.ModuleDict({'linear': nn.Linear(width, 9 * width)})
        self.layers = nn.ModuleList(Block(width, net.heads, hidden(net)) for _ in range(net.depth))
        self.final_norm, self.final_modulation = (
            nn.RMSNorm(width, EPSILON),
            nn.ModuleDict({'linear': nn.Linear(width, 2 * width)}),
        )
        self.out = nn.Linear(width, patch)
        future = torch.arange(self.past + self.future) >= self.past
        codes = {
            'time': rotary.time_code(0, len(future), width // net.heads),
            'space': rotary.space_code(*self.grid, width // net.heads),
        }
        for name, pair in codes.items():
            self.register_buffer(
                f'{name}_code',
                torch.stack([torch.from_numpy(part) for part in pair]),
                persistent=False,
            )
        self.register_buffer('mask', future[:, None] | ~future, persistent=False)

    def forward(self, latents, t, components):
        """latents [B, T, H, W, c], times t [B, T] and components [B, T, h, w, P] -> the clean
        future latents [B, F, H, W, c].
        """
        (rows, columns), size, dtype = self.grid, self.size, self.embed.weight.dtype
        patches = (
            latents.to(dtype)
            .unflatten(3, (columns, size))
            .unflatten(2, (rows, size))
            .transpose(3, 4)
            .flatten(4)
        )
        x = (self.embed(patches) + self.fusion['embed'](components.to(dtype))).flatten(2, 3)
        rates = torch.exp(
            -math.log(10_000) * torch.arange(FREQUENCIES // 2, device=t.device) / (FREQUENCIES // 2)
        )
        angles = 1000 * t[..., None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).to(dtype)
        embedding = functional.silu(
            self.time_embedding['outer'](functional.silu(self.time_embedding['inner'](waves)))
        )
        modulation = self.modulation['linear'](embedding)[:, :, None].chunk(9, dim=-1)
        for layer in self.layers:
            x = layer(x, modulation, self.time_code, self.space_code, self.mask)
        last = self.final_modulation['linear'](embedding[:, self.past :])[:, :, None].chunk(
            2, dim=-1
        )
        x = _modulate(self.final_norm(x[:, self.past :]), *last)
        patches = self.out(x).unflatten(2, (rows, columns)).unflatten(4, (size, size, -1))
        return patches.transpose(3, 4).flatten(4, 5).flatten(2, 3).float()

    def load(self, params):
        """Takes our parameters (numpy), the layers of which are stacked."""
        self.load_state_dict(self.named_as_here(params))
        return self

    def named_as_here(self, params):
        """{name: tensor} of our parameters or gradients."""
        named = {}

        def put(name, kind, array):
            named[f'{name}.{"bias" if kind == "bias" else "weight"}'] = torch.tensor(
                array.T if kind == 'kernel' else array
            )

        def walk(tree, name):
            for key, value in tree.items():
                if isinstance(value, dict):
                    walk(value, [*name, key])
                elif name[0] == 'layers':
                    for index, array in enumerate(value):
                        put('.'.join(['layers', str(index), *name[1:]]), key, array)
                else:
                    put('.'.join(name), key, value)

        walk(params['params'], [])
        return named


def noisy_and_prediction(model, latents, components, t, noise):
    """z and the prediction [B, F, H, W, c] at times t [B]; latents [B, T, H, W, c]."""
    past, away = model.past, t[:, None, None, None, None]
    noisy = away * latents[:, past:] + (1 - away) * noise
    times = torch.cat(
        [torch.ones(len(t), past, device=t.device), t[:, None].expand(-1, noise.shape[1])], dim=1
    )
    return noisy, model(torch.cat([latents[:, :past], noisy], dim=1), times, components)


def flow_loss(model, latents, components, t, noise):
    """Mean squared error of the velocity that the predicted latents imply."""
    noisy, prediction = noisy_and_prediction(model, latents, components, t, noise)
    velocity = (prediction - noisy) / (1 - t[:, None, None, None, None]).clamp(min=0.05)
    return functional.mse_loss(velocity, latents[:, model.past :] - noise)


class Step:
    """A training step on latents [B, T, H, W, c] and components [B, T, h, w, P]; `parts` has the
    seconds of the last one.
    """

    def __init__(self, net, threads, counts, latents, components):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.model = DiT(net).to(DEVICE)
        compiled(self.model.layers)
        self.average = swa_utils.AveragedModel(
            self.model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9999)
        )
        gpu = DEVICE.type == 'cuda'
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), 1e-4, (0.9, 0.95), weight_decay=0.0, fused=gpu
        )
        self.latents, self.components, self.counts = (
            on_device(latents),
            on_device(components),
            torch.tensor(counts, device=DEVICE),
        )
        self.future, self.parts = net.future_frames, {}

    def __call__(self):
        marks = [time.perf_counter()]
        latents, batch = self.latents, len(self.latents)
        count = self.counts[torch.randint(len(self.counts), (batch, 1, 1, 1, 1), device=DEVICE)]
        components = self.components * (
            torch.arange(self.components.shape[-1], device=DEVICE) < count
        )  # nested dropout
        t = torch.sigmoid(torch.randn(batch, device=DEVICE) - 0.4)
        noise = torch.randn_like(latents[:, -self.future :])
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=DEVICE.type == 'cuda'):
            loss = flow_loss(self.model, latents, components, t, noise)
        finish()
        marks.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        finish()
        marks.append(time.perf_counter())
        self.parts = {
            name: end - begin for name, begin, end in zip(('forward', 'backward'), marks, marks[1:])
        }
        return loss.item()


class Prediction:
    """Samples chunk by chunk: (steps) -> latents [B, chunks F, H, W, c] on the CPU, the context
    being the last frames so far.

    latents [B, M, H, W, c]; components [B, M + chunks F, h, w, P]; noise [chunks, B, F, H, W, c].
    """

    def __init__(self, model, threads, latents, components, noise):
        torch.set_num_threads(threads)
        self.model = model.to(DEVICE, torch.bfloat16 if DEVICE.type == 'cuda' else None).eval()
        compiled(self.model.layers)
        self.latents, self.components, self.noise = (
            on_device(array) for array in (latents, components, noise)
        )

    @torch.inference_mode()
    def __call__(self, steps):
        past, future = self.model.past, self.model.future
        latents, futures = self.latents, []
        for number, z in enumerate(self.noise):
            components = self.components[:, number * future : number * future + past + future]
            for index in range(steps):
                t = torch.ones(z.shape[0], past + future, device=DEVICE)
                t[:, past:] = index / steps
                prediction = self.model(torch.cat([latents, z], dim=1), t, components)
                z = z + (prediction - z) / max(1 - index / steps, 0.05) / steps
            futures.append(z)
            latents = torch.cat([latents, z], dim=1)[:, -past:]
        return torch.cat(futures, dim=1).cpu()
