"""A report of a whole model, or of a forecaster by itself, as text."""

from re2pix_jax.evaluation import protocol as protocols
from re2pix_jax.report import table


def describe(report):
    """A report as text: the protocol, each stage by itself, then the table of steps."""
    protocol = report['protocol']

    def percent(scores, name='miou'):
        return f'{100 * scores[name]:.1f}' if scores and scores[name] is not None else '-'

    heading = f'{report.get("model", "model")} on {protocols.describe(protocol)}'
    stages = []
    if vae := report.get('vae'):
        stages.append(
            [
                'VAE',
                f'PSNR of reconstruction ({vae["frames"]} frames)',
                f'{vae["reconstruction_psnr"]:.2f} dB',
            ]
        )
    for kind, how in (
        ('bilinear', 'logits a patch, upsampled'),
        ('subpixel', 'logits a pixel of the patch'),
    ):
        if scores := report['encoder'][f'probe_{kind}']:
            stages.append(['encoder', f'mIoU of linear probe, {how}', f'{percent(scores)} %'])
    for name, how in (('true_features', ''), ('true_principal_features', ' through the PCA')):
        if scores := report['head'][name]:
            value = f'{percent(scores)} % ({percent(scores, "moving_miou")} %)'
            stages.append(['head', f'mIoU (moving) on true features{how}', value])
    blocks = [heading, *([table.table(['stage', 'measure', 'value'], stages)] if stages else [])]
    if 'forecaster' in report:
        forecaster = report['forecaster']['steps']
        read = ('miou', 'moving_miou') if forecaster[0]['miou'] is not None else ()
        rows = [
            [row[name] for name in ('step', 'smooth_l1', 'copy_last', 'ratio')]
            + [table.Number(percent(row, name)) for name in read]
            for row in forecaster
        ]
        header = ['step', 'forecast', 'copy last', 'ratio', *(table.METRICS[name] for name in read)]
        blocks.append(
            'Stage 1: SmoothL1 on principal components, beta 0.1\n' + table.table(header, rows)
        )
    if 'steps' in report:
        for title, metrics in (
            ('Predicted frames', table.IMAGE_METRICS),
            ('Predicted frames, as the encoder and its heads see them', table.FEATURE_METRICS),
        ):
            if any(
                name in metrics
                for row in report['steps']
                for method in table.METHODS
                for name in row.get(method, ())
            ):
                blocks.append(f'{title}\n{table.horizon_table(report["steps"], metrics)}')
        blocks.append(table.LEGEND)
        if distances := report['distances']:
            methods = [
                name for name in table.METHODS if any(name in found for found in distances.values())
            ]
            rows = [
                [table.DISTANCES[measure], *(found.get(name) for name in methods)]
                for measure, found in distances.items()
            ]
            blocks.append(
                'Fréchet distances to the true frames\n'
                + table.table(['', *(table.METHODS[name] for name in methods)], rows)
            )
        notes = [f'warning: {line}' for line in report['warnings']] + [
            f'left out: {line}' for line in report['left_out']
        ]
        blocks += ['\n'.join(notes)] if notes else []
    return '\n\n'.join(blocks)
