"""Package definition. Requirements live in requirements.txt, the version in the package, once."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
REQUIREMENTS = [
    line.split('#')[0].strip()
    for line in (ROOT / 'requirements.txt').read_text().splitlines()
    if line.split('#')[0].strip()
]
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 're2pix_jax' / '__init__.py').read_text())[1]
GCS = ['gcsfs>=2025.3']
TEST = [
    'beartype>=0.20',
    'gcp-storage-emulator>=2026.7',
    *GCS,
    'huggingface_hub>=1.0',
    'hypothesis>=6.100',
    'pytest-cov>=6',
    'pytest-xdist>=3.6',
    'pytest>=8',
    'ruff>=0.15',
    'scikit-learn>=1.5',
    'scipy>=1.13',
    'setuptools>=70',
]

setuptools.setup(
    name='re2pix_jax',
    version=VERSION,
    description='Re2Pix in JAX/Flax: forecast the semantics of a driving video, then render them '
    'into future frames',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    # The configs stand at the top, where people look for them, and are installed in the package,
    # where `--config=NAME` finds them.
    packages=[
        *setuptools.find_packages(include=['re2pix_jax', 're2pix_jax.*']),
        're2pix_jax.configs',
    ],
    package_dir={'re2pix_jax.configs': 'configs'},
    package_data={'re2pix_jax': ['*/README.md', 'bundles/shipped/**/*']},
    entry_points={'console_scripts': ['re2pix = re2pix_jax.commands:cli.main']},
    install_requires=REQUIREMENTS,
    extras_require={
        'cuda': ['jax[cuda13]>=0.10.2'],
        'tpu': ['jax[tpu]>=0.10.2'],
        'gcs': GCS,
        's3': ['s3fs>=2025.3'],
        'colab': ['jax[cuda12]>=0.10.2', 'huggingface_hub>=1.0'],
        'hub': ['huggingface_hub>=1.0'],
        'demo': ['gradio>=6'],
        'test': TEST,
        'parity': [*TEST, 'torch==2.13.0', 'transformers>=5.0', 'diffusers>=0.36'],
    },
)
