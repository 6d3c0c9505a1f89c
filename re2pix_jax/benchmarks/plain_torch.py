"""Stage 1's training step in plain PyTorch: what a careful user would write, with torch's own
attention, Adam and clipping. On a GPU in bfloat16 by autocast, the layers compiled.
"""

import time

import torch
from torch import nn
from torch.nn import functional

from re2pix_jax.benchmarks import forecaster_work as sizes
from re2pix_jax.benchmarks.torch_device import DEVICE, compiled, finish


def _attend(qkv, heads, dropout):
    """[batch, tokens, 3 width] -> [batch, tokens, width]."""
    query, key, value = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return (
        functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        .transpose(1, 2)
        .flatten(2)
    )


class Attention(nn.Module):
    def __init__(self, width, heads, dropout=0.0):
        super().__init__()
        self.qkv, self.proj, self.heads, self.dropout = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
            dropout,
        )

    def forward(self, x):
        return self.proj(_attend(self.qkv(x), self.heads, self.dropout if self.training else 0.0))


def _mlp(width, dropout=0.0):
    return nn.Sequential(
        nn.Linear(width, 4 * width),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(4 * width, width),
        nn.Dropout(dropout),
    )


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.attention, self.mlp = Attention(width, heads), _mlp(width)
        self.scales = nn.ParameterList(torch.ones(width) for _ in range(2))

    def forward(self, x):
        x = x + self.scales[0] * self.attention(self.norms[0](x))
        return x + self.scales[1] * self.mlp(self.norms[1](x))


class Encoder(nn.Module):
    """Normalised images [N, 3, H, W] -> principal components [N, places, P]."""

    def __init__(self):
        super().__init__()
        width, channels = sizes.ENCODER_WIDTH, sizes.ENCODER_WIDTH * len(sizes.LAYERS)
        self.patch_embed = nn.Conv2d(3, width, sizes.PATCH, sizes.PATCH)
        self.front = nn.Parameter(torch.randn(1, 1 + sizes.REGISTERS, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, sizes.PLACES, width) * 0.02)
        self.blocks = nn.ModuleList(
            Block(width, sizes.ENCODER_HEADS) for _ in range(sizes.ENCODER_DEPTH)
        )
        self.norm, self.project = (
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(channels, sizes.COMPONENTS),
        )

    def forward(self, images):
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.places
        x = torch.cat([self.front.expand(len(x), -1, -1), x], dim=1)
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in sizes.LAYERS:
                kept.append(self.norm(x)[:, 1 + sizes.REGISTERS :])
        return self.project(torch.cat(kept, dim=-1))


class Layer(nn.Module):
    """[B, T, N, D] -> [B, read, N, D], as our own: only frames that are read go on after attention
    over time.
    """

    def __init__(self, read, dropout=0.1):
        super().__init__()
        self.read, width = read, sizes.WIDTH
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.temporal, self.spatial = (Attention(width, sizes.HEADS, dropout) for _ in range(2))
        self.mlp = _mlp(width, dropout)

    def forward(self, x):
        batch, _, places, _ = x.shape
        by_place = self.norms[0](x).transpose(1, 2).flatten(0, 1)
        x = x + self.temporal(by_place).unflatten(0, (batch, places)).transpose(1, 2)
        x = x[:, -self.read :]
        x = x + self.spatial(self.norms[1](x).flatten(0, 1)).unflatten(0, (batch, self.read))
        return x + self.mlp(self.norms[2](x))


class Forecaster(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.embed, self.fc_out = (
            nn.Linear(sizes.COMPONENTS, sizes.WIDTH),
            nn.Linear(sizes.WIDTH, sizes.COMPONENTS),
        )
        self.replace = nn.Parameter(torch.randn(sizes.WIDTH) * 0.02)
        self.codes = nn.ParameterList(
            torch.randn(size, sizes.WIDTH // 3) * 0.01 for size in (sizes.TIME, *sizes.GRID)
        )
        self.layers = nn.ModuleList(
            Layer(1 if index == depth - 1 else sizes.TIME) for index in range(depth)
        )

    def forward(self, context):
        batch, _, places, _ = context.shape
        x = torch.cat([self.embed(context), self.replace.expand(batch, 1, places, -1)], dim=1)
        shape = (sizes.TIME, *sizes.GRID, -1)
        time_code, rows, columns = self.codes
        codes = [
            time_code[:, None, None].expand(shape),
            rows[None, :, None].expand(shape),
            columns[None, None].expand(shape),
        ]
        x = x + torch.cat(codes, dim=-1).flatten(1, 2)
        for layer in self.layers:
            x = layer(x)
        return self.fc_out(x)[:, 0]


class Step:
    """A training step on uint8 frames [B, T, H, W, 3]; `parts` has the seconds of the last one."""

    def __init__(self, depth, threads, frames):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.encoder = Encoder().eval().to(DEVICE)
        self.forecaster = Forecaster(depth).train().to(DEVICE)
        compiled(self.encoder.blocks)
        compiled(self.forecaster.layers)
        self.optimizer = torch.optim.Adam(
            self.forecaster.parameters(), 6.4e-4, fused=DEVICE.type == 'cuda'
        )
        self.frames, self.parts = torch.from_numpy(frames).to(DEVICE), {}
        self.mean, self.std = (
            torch.tensor(values, device=DEVICE)[:, None, None]
            for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        )

    def __call__(self):
        marks, gpu = [time.perf_counter()], DEVICE.type == 'cuda'
        half = torch.autocast(DEVICE.type, torch.bfloat16, enabled=gpu)
        with torch.inference_mode(), half:
            images = self.frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
            components = self.encoder((images - self.mean) / self.std)
            components = components.float().unflatten(0, self.frames.shape[:2])
        components = components.clone()
        finish()
        marks.append(time.perf_counter())
        with half:
            forecast = self.forecaster(components[:, :-1])
        loss = functional.smooth_l1_loss(forecast.float(), components[:, -1], beta=0.1)
        finish()
        marks.append(time.perf_counter())
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.forecaster.parameters(), 1.0)
        self.optimizer.step()
        finish()
        marks.append(time.perf_counter())
        self.parts = {
            name: end - begin
            for name, begin, end in zip(('encoder', 'forward', 'backward'), marks, marks[1:])
        }
        return loss.item()
