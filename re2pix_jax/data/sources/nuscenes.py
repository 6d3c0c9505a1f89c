"""nuScenes as published: the front camera of a scene, about 20 s at about 12 Hz. No labels, no
depth.

v1.0-{trainval,test,mini}/{scene,sample,sample_data}.json
samples/CAM_FRONT/*.jpg    key frames, 2 Hz
sweeps/CAM_FRONT/*.jpg     the frames between them
"""

import json
import mmap
import sys

from re2pix_jax.data.sources.image_clips import Clip, ImageClips, names
from re2pix_jax.errors import UserError

CHANNEL = 'CAM_FRONT'
TARGET = 28  # predicted from frames 3 apart [R]
FPS = 12.0  # of scenes whose frames don't tell
VERSIONS = {
    'train': ('v1.0-trainval', 'v1.0-mini'),
    'validation': ('v1.0-trainval', 'v1.0-mini'),
    'test': ('v1.0-test',),
}

# The official scenes of each split, by the numbers in their names.
TRAIN = """1-2 4-11 19-34 41-76 120-135 138-139 149-152 154-155 157-168 170-185 187-188 190-196
    199-200 202-204 206-214 218-220 222 224-264 283-306 315-318 321 323-324 328 347-386
    388-403 405-408 410-459 461-465 467-469 471-472 474-480 499-502 504-515 517-518 525-539
    541-546 566 568 570-578 580 582-600 639-679 681 683-689 695-698 700-701 703-719 726-728
    730-731 733-741 744 746-747 749-752 757-765 767-769 786-787 789-792 803-806 808-813
    815-817 819-822 847-856 858 860-866 868-873 875-878 880 882-903 945 947 949 952-953
    955-961 975-984 988-992 994-1025 1044-1058 1074-1102 1104-1110"""
VALIDATION = """3 12-18 35-36 38-39 92-110 221 268-278 329-332 344-346 519-524 552-565 625-627
    629-630 632-638 770-771 775 777-778 780-784 794-800 802 904-917 919-931 962-963 966-969 971-972
    1059-1073"""
TEST = """77-91 111-119 140 142-148 265-266 279-282 307-314 333-343 481-498 547-551 601-604
    606-624 827-831 833-842 844-846 932-933 935-943 1026-1043"""
SCENES = {
    ('v1.0-trainval', 'train'): TRAIN,
    ('v1.0-trainval', 'validation'): VALIDATION,
    ('v1.0-test', 'test'): TEST,
    ('v1.0-mini', 'train'): '61 553 655 757 796 1077 1094 1100',
    ('v1.0-mini', 'validation'): '103 916',
}


class NuScenes(ImageClips):
    """One clip a scene, its frames chained by `next`, at the mean rate of their timestamps.

    v1.0-mini is read where there is no v1.0-trainval. It has an official split of its own, and two
    of its training scenes, 0553 and 0796, are validation scenes of v1.0-trainval.
    """

    NAME = 'nuScenes'
    EXPECTED = 'v1.0-{trainval,test,mini}/sample_data.json'
    SPLITS = tuple(VERSIONS)

    def _list(self, split):
        version = next(
            (version for version in VERSIONS[split] if (self.path / version).is_dir()), None
        )
        if version is None:
            return []
        there = {
            f'{kind}/{CHANNEL}/{name}'
            for kind in ('samples', 'sweeps')
            for name in names(self.path / kind / CHANNEL)
        }
        if not there:
            raise UserError(
                f'{self.path}: no images in samples/{CHANNEL} and sweeps/{CHANNEL}; unpack the '
                'files of the dataset there'
            )
        chains = self._chains(version, scenes(version, split))
        # The dataset comes in ten parts of whole scenes: those of a part that was never unpacked
        # are no clips that have become bad.
        here = [
            name
            for name, frames in sorted(chains.items())
            if not frames or any(file in there for file, *_ in frames.values())
        ]
        if len(here) < len(chains):
            print(
                f'{self.path}: {len(chains) - len(here)} of {len(chains)} scenes of split {split} '
                'have no file here and are left out; unpack the other parts of the dataset to have '
                'them',
                file=sys.stderr,
                flush=True,
            )
        return [_clip(name, chains[name], there) for name in here]

    def keyframes(self, index) -> list[int]:
        """The native frames of a clip that are key frames."""
        return [k for k, file in enumerate(self._clip(index).files) if file.startswith('samples/')]

    def _chains(self, version, wanted) -> dict[str, dict]:
        """Scene → token → frame of it, in no order."""
        folder = self.path / version
        scene_names = {
            token: name
            for token, name in _table(folder / 'scene.json', 'token', 'name')
            if name in wanted
        }
        scene_of = {
            token: scene_names[scene]
            for token, scene in _table(folder / 'sample.json', 'token', 'scene_token')
            if scene in scene_names
        }
        chains = {name: {} for name in scene_names.values()}
        for token, sample, *frame in _frames(folder / 'sample_data.json'):
            if sample in scene_of:
                chains[scene_of[sample]][token] = frame
        if chains and not any(chains.values()):
            raise UserError(
                f'{folder / "sample_data.json"}: tells of no frames of {CHANNEL} in these scenes; '
                'unpack the metadata of nuScenes again'
            )
        return chains


def scenes(version: str, split: str) -> set[str]:
    """Names of the official scenes of a split."""
    spans = (span.partition('-') for span in SCENES[version, split].split())
    return {
        f'scene-{number:04d}'
        for first, _, last in spans
        for number in range(int(first), int(last or first) + 1)
    }


def _clip(name, frames, there):
    """The clip of a scene from token → (file, microseconds, token of the one before, token of the
    next).
    """
    token = next(
        (token for token, (_, _, before, _) in frames.items() if before not in frames), None
    )
    chain = {}
    while token in frames and token not in chain:
        chain[token] = frames[token]
        token = chain[token][-1]
    files, times = [file for file, *_ in chain.values()], [time for _, time, *_ in chain.values()]
    missing = next((file for file in files if file not in there), None)
    problem = f'no file {missing}' if missing else None
    if len(chain) != len(frames) or len(chain) < 2:
        problem = f'its {len(frames)} frames of {CHANNEL} are not one chain in sample_data.json'
    elif times[-1] <= times[0]:
        problem = 'its timestamps in sample_data.json do not increase'
    fps = (
        1e6 * (len(times) - 1) / (times[-1] - times[0])
        if len(times) > 1 and times[-1] > times[0]
        else FPS
    )
    return Clip(name, files, fps, TARGET, problem=problem)


def _table(file, *fields) -> list[tuple]:
    """These fields of every row of a table."""
    try:
        return [tuple(row[field] for field in fields) for row in json.loads(file.read_bytes())]
    except FileNotFoundError as error:
        raise UserError(f'{file}: no such table; unpack the metadata of nuScenes again') from error
    except (ValueError, KeyError, TypeError) as error:
        raise _not_a_table(file, fields) from error


def _frames(file):
    """Yields (token, sample, file, microseconds, token before, token after) of the frames that lie
    in the channel's folders.

    Only these rows are parsed: the table has two and a half million, all of which would take
    gigabytes as Python objects.
    """
    fields = 'token', 'sample_token', 'filename', 'timestamp', 'prev', 'next'
    try:
        with (
            open(file, 'rb') as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as text,
        ):
            end = 0
            while (found := text.find(f'/{CHANNEL}/'.encode(), end)) >= 0:
                end = text.find(b'}', found) + 1  # a row holds no other braces
                row = json.loads(text[text.rfind(b'{', 0, found) : end])
                yield tuple(row[field] for field in fields)
    except FileNotFoundError as error:
        raise UserError(f'{file}: no such table; unpack the metadata of nuScenes again') from error
    except (ValueError, KeyError) as error:
        raise _not_a_table(file, fields) from error


def _not_a_table(file, fields):
    return UserError(
        f'{file}: not a nuScenes table with {", ".join(fields)}; unpack the metadata again'
    )
