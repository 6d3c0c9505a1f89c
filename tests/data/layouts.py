"""Small raw folders of the published datasets: their folders, file names and tables, with tiny
frames that say their number.
"""

import hashlib
import json
import pathlib
import random

import numpy as np
import pytest
from PIL import Image

from re2pix_jax.data import video
from re2pix_jax.errors import UserError

SIZE = (32, 64)  # height, width
CAMERA = {
    'extrinsic': {
        'baseline': 0.209313,
        'pitch': 0.038,
        'roll': 0.0,
        'x': 1.7,
        'y': 0.1,
        'yaw': -0.0195,
        'z': 1.22,
    },
    'intrinsic': {'fx': 2262.52, 'fy': 2265.3017905988554, 'u0': 1096.98, 'v0': 513.137},
}


def frame(number, clip=0, size=SIZE) -> np.ndarray:
    """uint8 [H, W, 3]: the noise of its clip, as bright as its number, which repeats after 50."""
    noise = np.random.default_rng(clip).integers(-8, 9, (*size, 3))
    return (24 + 4 * (number % 50) + noise).astype(np.uint8)


def numbers(frames) -> list[int]:
    """The numbers of frames uint8 [T, H, W, 3], compressed ones too."""
    return np.rint((frames.mean((1, 2, 3)) - 24) / 4).astype(int).tolist()


def label_ids(clip=0, size=SIZE) -> np.ndarray:
    """uint8 [H, W] with every id that Cityscapes' labelIds files may hold."""
    return ((np.arange(size[0] * size[1]) // 3 + clip) % 34).astype(np.uint8).reshape(size)


def counts(clip=0, size=SIZE) -> np.ndarray:
    """uint16 [H, W] of 16-bit depth, a sixth of it unknown; at 256x256, every value."""
    values = (
        (np.arange(size[0] * size[1]) * (65536 // min(size[0] * size[1], 65536)) + clip) % 65536
    ).astype(np.uint16)
    if values.size < 65536:
        values[::6] = 0
    return values.reshape(size)


def save(path, pixels):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95) if path.suffix == '.jpg' else Image.fromarray(
        pixels
    ).save(path, compress_level=1)


def cityscapes(
    folder, train=10, validation=2, test=0, size=SIZE, labels='labelIds', disparity=None
):
    """Snippets of aachen (short sequences), frankfurt (one long recording) and berlin (short
    sequences).

    labels: 'labelIds', 'labelTrainIds' or None. disparity: 'disparity' (frame 19 of each snippet),
        'disparity_sequence' (all frames) or None. With fewer than ten clips, aachen and berlin
        count as cities of long recordings.
    """
    clips = [('train', 'aachen', number, 0) for number in range(train)]
    clips += [('val', 'frankfurt', 0, 275 + 40 * number) for number in range(validation)]
    clips += [('test', 'berlin', number, 0) for number in range(test)]
    for clip, (part, city, sequence, first) in enumerate(clips):
        snippet = range(first, first + 30)
        cityscapes_frames(folder, part, city, sequence, snippet, clip, size)
        if labels:
            ids = label_ids(clip, size) % (34 if labels == 'labelIds' else 19)
            cityscapes_save(
                folder,
                'gtFine',
                part,
                city,
                sequence,
                first + 19,
                f'gtFine_{labels}.png',
                ids if part != 'test' else ids % 7,
            )
        if disparity:
            for number in snippet if disparity == 'disparity_sequence' else [first + 19]:
                cityscapes_save(
                    folder,
                    disparity,
                    part,
                    city,
                    sequence,
                    number,
                    'disparity.png',
                    counts(clip, size),
                )
            cityscapes_save(
                folder, 'camera', part, city, sequence, first + 19, 'camera.json', CAMERA
            )
    return pathlib.Path(folder)


def cityscapes_frames(folder, part, city, sequence, frames, clip=0, size=SIZE):
    for number in frames:
        pixels = frame(number - frames[0], clip, size)
        cityscapes_save(
            folder, 'leftImg8bit_sequence', part, city, sequence, number, 'leftImg8bit.png', pixels
        )


def cityscapes_save(folder, kind, part, city, sequence, number, ending, content):
    path = pathlib.Path(folder, kind, part, city, f'{city}_{sequence:06d}_{number:06d}_{ending}')
    if isinstance(content, dict):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    else:
        save(path, content)


def nuscenes(
    folder, scenes=('scene-0001', 'scene-0003'), version='v1.0-trainval', frames=30, size=SIZE
):
    """Scenes at about 12 Hz, every sixth frame of them a key frame; the rows of the tables in no
    order.
    """
    tables = {
        name: []
        for name in (
            'attribute',
            'calibrated_sensor',
            'category',
            'ego_pose',
            'instance',
            'log',
            'map',
            'sample',
            'sample_annotation',
            'sample_data',
            'scene',
            'sensor',
            'visibility',
        )
    }
    channels = {'CAM_FRONT': 'jpg', 'CAM_FRONT_LEFT': 'jpg', 'LIDAR_TOP': 'pcd.bin'}
    for channel in channels:
        camera = channel.startswith('CAM')
        tables['sensor'].append(
            {
                'token': _token(channel),
                'channel': channel,
                'modality': 'camera' if camera else 'lidar',
            }
        )
    for clip, name in enumerate(scenes):
        log, keys = _token('log', name), range(0, frames, 6)
        tables['log'].append(
            {
                'token': log,
                'logfile': 'n015-2018-07-24-11-22-45+0800',
                'vehicle': 'n015',
                'date_captured': '2018-07-24',
                'location': 'singapore-onenorth',
            }
        )
        tables['scene'].append(
            {
                'token': _token(name),
                'log_token': log,
                'nbr_samples': len(keys),
                'first_sample_token': _token(name, 'sample', 0),
                'last_sample_token': _token(name, 'sample', len(keys) - 1),
                'name': name,
                'description': 'A street {in the rain}, "wet"',
            }
        )
        began = 1532402927612460 + 10**9 * int(name[-4:])
        for key in range(len(keys)):
            tables['sample'].append(
                {
                    'token': _token(name, 'sample', key),
                    'timestamp': began + 500000 * key,
                    'scene_token': _token(name),
                    'prev': _token(name, 'sample', key - 1) if key else '',
                    'next': _token(name, 'sample', key + 1) if key < len(keys) - 1 else '',
                }
            )
        for channel, ending in channels.items():
            camera = channel.startswith('CAM')
            tables['calibrated_sensor'].append(
                {
                    'token': _token(name, channel),
                    'sensor_token': _token(channel),
                    'translation': [1.7, 0.0, 1.5],
                    'rotation': [0.5, -0.5, 0.5, -0.5],
                    'camera_intrinsic': [
                        [1266.4, 0.0, 816.3],
                        [0.0, 1266.4, 491.5],
                        [0.0, 0.0, 1.0],
                    ]
                    if camera
                    else [],
                }
            )
            for k in range(frames):
                time = began + 83333 * k + 1000 * (k % 3)
                kind = 'sweeps' if k % 6 else 'samples'
                file = f'{kind}/{channel}/n015-2018-07-24-11-22-45+0800__{channel}__{time}.{ending}'
                token = _token(name, channel, k)
                tables['ego_pose'].append(
                    {
                        'token': token,
                        'timestamp': time,
                        'rotation': [1.0, 0.0, 0.0, 0.0],
                        'translation': [411.3, 1180.9, 0.0],
                    }
                )
                tables['sample_data'].append(
                    {
                        'token': token,
                        'sample_token': _token(name, 'sample', min(-(-k // 6), len(keys) - 1)),
                        'ego_pose_token': token,
                        'calibrated_sensor_token': _token(name, channel),
                        'timestamp': time,
                        'fileformat': ending.split('.')[0],
                        'is_key_frame': k % 6 == 0,
                        'height': size[0] if camera else 0,
                        'width': size[1] if camera else 0,
                        'filename': file,
                        'prev': _token(name, channel, k - 1) if k else '',
                        'next': _token(name, channel, k + 1) if k < frames - 1 else '',
                    }
                )
                if channel == 'CAM_FRONT':
                    save(pathlib.Path(folder, file), frame(k, clip, size))
    for name, rows in tables.items():
        random.Random(0).shuffle(rows)
        nuscenes_table(folder, name, rows, version)
    return pathlib.Path(folder)


def nuscenes_table(folder, name, rows=None, version='v1.0-trainval'):
    """Writes the rows of a table or, without any, reads them."""
    path = pathlib.Path(folder, version, f'{name}.json')
    if rows is None:
        return json.loads(path.read_text())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=0))


def covla(folder, clips=5, frames=30, size=SIZE, videos=False, below=None):
    """Folders of images, or videos.

    below: where they lie; None: in 'images' or 'videos'.
    """
    below = pathlib.Path(folder, ('videos' if videos else 'images') if below is None else below)
    for clip in range(clips):
        name, pixels = (
            _token('covla', clip)[:16],
            [frame(number, clip, size) for number in range(frames)],
        )
        if videos:
            video.write(below / f'{name}.mp4', np.stack(pixels), 20)
            continue
        for number, one in enumerate(pixels):
            save(below / name / f'{number:04d}.jpg', one)
    return pathlib.Path(folder)


def kitti(
    folder,
    drives=('2011_09_26_drive_0001', '2011_09_26_drive_0002'),
    frames=30,
    size=SIZE,
    depth='data_depth_annotated/train',
):
    """Drives, their annotated depth below the folder `depth` (None: without), which the first and
    last five frames lack.
    """
    for clip, drive in enumerate(drives):
        for number in range(frames):
            save(
                pathlib.Path(
                    folder, drive[:10], f'{drive}_sync', 'image_02', 'data', f'{number:010d}.png'
                ),
                frame(number, clip, size),
            )
            if depth and 5 <= number < frames - 5:
                maps = pathlib.Path(
                    folder, depth, f'{drive}_sync', 'proj_depth', 'groundtruth', 'image_02'
                )
                save(maps / f'{number:010d}.png', counts(clip, size))
    return pathlib.Path(folder)


def _token(*parts) -> str:
    return hashlib.md5(repr(parts).encode()).hexdigest()


def told(source):
    """What a source says of each clip."""
    return [
        (
            source.name(i),
            source.origin(i),
            source.num_frames(i),
            source.target(i),
            source.problem(i),
        )
        for i in range(len(source))
    ]


def message(action, *arguments) -> str:
    """The one line of the UserError that a call ends in."""
    with pytest.raises(UserError) as error:
        action(*arguments)
    assert '\n' not in str(error.value)
    return str(error.value)
