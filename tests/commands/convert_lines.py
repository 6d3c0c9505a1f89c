"""Command lines of `re2pix convert`, good and bad, and what is said of each."""

from tests.convert import torch_pickles

# name: (arguments, what the error says); {dir} holds the files, {golden} those of the authors' own
# code
BAD = {
    'kind': (
        'dinov4 {dir}/dinov2.safetensors {out}',
        r'convert dinov4: expected as kind one of dinov2, dinov3, sd-vae, dino-fore',
    ),
    'absent': (
        'dinov2 {dir}/none.pth {out}',
        r'none\.pth: no such file or folder; give one, or hf:',
    ),
    'cut': (
        'dinov2 {dir}/cut.safetensors {out} --heads=2 --layers=0,1',
        r'cut\.safetensors: is not a whole safetensors file',
    ),
    'other kind': (
        'dpt-head {dir}/dinov2.safetensors {out}',
        r'has no tensor scratch\.layer1_rn\.weight .*right kind of file',
    ),
    'other family': ('dinov3 {dir}/dinov2.safetensors {out}', r'expected DINOv3'),
    'shape': (
        'dinov2 {dir}/shape.safetensors {out} --heads=2 --layers=0,1',
        r'1 tensors do not match DINOv2: .*has shape \[5\]',
    ),
    'left over': (
        'dinov2 {dir}/more.safetensors {out} --heads=2 --layers=0,1',
        r'2 tensors .*left over head\.bias .*left over head\.w',
    ),
    'sizes': (
        'dinov2 {dir}/dinov2.safetensors {out}',
        r'not those of a published DINOv2: say how many heads',
    ),
    'layers': (
        'dinov2 {dir}/dinov2.safetensors {out} --layers=a,b',
        r'--layers=a,b: expected whole numbers from 0 on',
    ),
    'image size': (
        'dinov2 {dir}/dinov2.safetensors {out} --heads=2 --layers=0,1 --image_size=9',
        r'--image_size=9: expected HEIGHTx',
    ),
    'hub': ('sd-vae hf:owner/repo {out}', r'hf:owner/repo: .*pass the path'),
    'hub name': ('sd-vae hf:owner {out}', r'expected "hf:owner/repo", with "@revision"'),
    'empty folder': (
        'dpt-head {dir}/empty {out}',
        r'empty: holds 0 weight files, expected model\.safetensors',
    ),
    'other network': (
        'i3d {dir}/dinov2.safetensors {out}',
        r'has no tensor logits\.conv3d\.weight .*right kind of file',
    ),
    'no inception': (
        'inception {dir}/dinov2.safetensors {out}',
        r'tensors do not match Inception v3 of FID: .*missing Mixed_7c',
    ),
    'no linear': (
        'lpips {dir}/dinov2.safetensors {out}',
        r'LPIPS needs its linear weights too: .*as --linear',
    ),
    'destination': (
        'dinov2 {dir}/dinov2.safetensors {dir}/letters --heads=2 --layers=0,1',
        r'letters: already exists and is not a bundle',
    ),
    'options': (
        'dpt-head {dir}/dinov2.safetensors {out} --layers=1 --linear=x --pca=y',
        r'convert dpt-head: takes no --layers or --pca or --linear; it takes --storage: leave '
        r'others away',
    ),
    'options of another kind': (
        'dinov2 {dir}/dinov2.safetensors {out} --scaling_factor=1',
        r'takes no --scaling_factor; it takes --heads',
    ),
    'sizes of DINOv3': (
        'dinov3 {dir}/dinov3.safetensors {out}',
        r'of a published DINOv3: say how many heads .*\(--heads, --layers\)',
    ),
    'no scale': (
        'sd-vae {dir}/lone/vae.safetensors {out}',
        r'put it there, or pass --scaling_factor and --shift_factor',
    ),
    'no record': (
        'dino-foresight {dir}/bare.ckpt {out} --heads=2 --layers=0,1',
        r'how many heads .*: say it, --transformer_heads=',
    ),
    'strange record': (
        'dino-foresight {dir}/strange.ckpt {out}',
        r"say heads 'two', img_size \[8\]: expected a number of heads",
    ),
    'no record at all': (
        'dino-foresight {dir}/list.ckpt {out}',
        r"its 'hyper_parameters' are of type list: expected a dict or a Namesp",
    ),
    'channels of the components': (
        'dino-foresight {dir}/micro.ckpt {out} --heads=2 --layers=0,1 --pca={dir}/wide.pth',
        r'the encoder gives 16 channels, the principal components turn 24 into 6, the forecaster '
        r'takes 6; exp',
    ),
    'channels of the layers': (
        'dino-foresight {dir}/micro.ckpt {out} --heads=2 --layers=1',
        r'do not fit: the encoder gives 8 channels',
    ),
    'two encoders': (
        'dino-foresight {dir}/micro.ckpt {out} --encoder=none --heads=2 --image_size=4x6',
        r'--encoder=none: takes the place of the encoder .* --heads and --image_size would '
        r'describe: give one or the other',
    ),
    'words for numbers': (
        'dino-foresight {dir}/micro.ckpt {out} --heads=2 --layers=0,1 --pca={dir}/words.pth',
        r'words\.pth: expected mean, std and principal components as arrays of numbers',
    ),
    'full disk': (
        'dinov2 {dir}/dinov2.safetensors {out} --heads=2 --layers=0,1',
        r'full_disk: the disk is full; nothing half-written was left, free some space',
    ),
    'few arguments': (
        'dinov2 {dir}/dinov2.safetensors',
        r'positional arguments expected: KIND SOURCE DESTINATION',
    ),
}
# Every kind of file that torch writes and that this command takes: {dir}/evil holds one of each
# suffix for every malicious pickle.
TORCH_FORMATS = {
    '.pth': 'dinov2 {dir}/evil/NAME.pth {out}',
    '.ckpt': 'dino-foresight {dir}/evil/NAME.ckpt {out}',
    '.bin': 'sd-vae {dir}/evil/NAME.bin {out}',
    'head': 'dpt-head {dir}/evil/NAME.ckpt {out}',
    'DINOv3': 'dinov3 {dir}/evil/NAME.bin {out}',
    'PCA': 'dino-foresight {dir}/dinov2.safetensors {out} --pca={dir}/evil/NAME.pth',
    'old I3D': 'i3d {dir}/evil/NAME.pt {out}',
    'old Inception': 'inception {dir}/evil/NAME.pt {out}',
    'old LPIPS': 'lpips {dir}/evil/NAME.pt {out} --linear={dir}/evil/NAME.pt',
    'linear of LPIPS': 'lpips {dir}/dinov2.safetensors {out} --linear={dir}/evil/NAME.pt',
}
MISUSED = (
    'pointers as objects',
    'another item size of a storage',
    'another shape of a tensor',
    'other defaults of a function',
    'more numbers than are stored',
)
EVIL = {
    f'{name} in {kind}': (
        line.replace('NAME', name.replace(' ', '_')),
        rf'its pickle asks for {refused}, which weights do not need',
    )
    for name, (_, refused) in torch_pickles.malicious('').items()
    for kind, line in TORCH_FORMATS.items()
}
EVIL |= {
    f'{name} in {kind}': (
        TORCH_FORMATS[kind].replace('NAME', name.replace(' ', '_')),
        'is damaged .*: fetch it again',
    )
    for name in MISUSED
    for kind in ('.pth', 'PCA', 'old I3D', 'linear of LPIPS')
}
BARE = 'dino-foresight {dir}/bare.ckpt {out} --transformer_heads=2'
OTHERS = {  # name: (arguments, what is said to be left out)
    'dinov3': (
        'dinov3 {dir}/dinov3.safetensors {out} --heads=1 --layers=0,1 --image_size=8x12',
        None,
    ),
    'vae': ('sd-vae {data}/sd_vae {out} --scaling_factor=0.5 --shift_factor=0.25', None),
    'recorded': ('dino-foresight {dir}/micro.ckpt {out} --heads=2', None),
    'not recorded': (
        f'{BARE} --heads=2 --layers=0,1 --image_size=4x6',
        r'2 of head\.\* \(a head that was .* as dpt-head\)',
    ),
    'other parts': (
        f'{BARE} --encoder={{dir}}/encoder --pca={{dir}}/pca.pth',
        r'head\.\* \(.*; 4 of the principal components \(.*given\); \d\d of dino_v2\.\* \(another '
        r'encoder was given\)$',
    ),
}
GOOD = {
    'dinov2': 'dinov2 {dir}/dinov2.safetensors {out} --heads=2 --layers=0,1 --image_size=16x24',
    'bfloat16': 'dinov2 {dir}/bfloat16.safetensors {out} --heads=2 --layers=0,1',
    'bfloat16 of torch': 'dinov2 {dir}/bfloat16.pth {out} --heads=2 --layers=0,1',
    'half': 'dinov2 {dir}/dinov2.safetensors {out} --heads=2 --layers=0,1 --storage=float16',
}
PUBLISHED = {
    'dinov2 of a hub': 'dinov2 {golden}/dinov2_reg.pth {out} --heads=3',
    'dino-foresight': 'dino-foresight {golden}/dinof.ckpt {out} --heads=3 --pca={golden}/pca.pth',
    'dpt-head': 'dpt-head {golden}/head_segm.ckpt {out}',
}
BAD_PUBLISHED = {
    'other pca': (
        'dino-foresight {golden}/dinof.ckpt {out} --heads=3 --pca={dir}/fewer.pth',
        r'dinof\.ckpt: the forecaster takes 36 components, the PCA gives 20; expected the PCA '
        r'file that belongs to it',
    ),
}
