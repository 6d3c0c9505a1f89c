"""Package definition. Requirements live in requirements.txt, once."""

import pathlib

import setuptools

ROOT = pathlib.Path(__file__).parent
REQUIREMENTS = [
    line.split('#')[0].strip()
    for line in (ROOT / 'requirements.txt').read_text().splitlines()
    if line.split('#')[0].strip()
]
TEST = ['pytest>=8', 'pytest-xdist>=3.6', 'scikit-learn>=1.5', 'scipy>=1.13', 'ruff>=0.8']

setuptools.setup(
    name='re2pix_jax',
    version='0.1.0',
    description='Re2Pix in JAX/Flax: forecast the semantics of a driving video, then render them '
    'into future frames',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=setuptools.find_packages(include=['re2pix_jax', 're2pix_jax.*']),
    package_data={'re2pix_jax': ['bundles/shipped/**/*']},
    install_requires=REQUIREMENTS,
    extras_require={
        'cuda': ['jax[cuda13]>=0.10.2'],
        'tpu': ['jax[tpu]>=0.10.2'],
        'colab': ['jax[cuda12]>=0.10.2', 'huggingface_hub>=1.0'],
        'test': TEST,
        'parity': [*TEST, 'torch==2.13.0', 'transformers>=5.0', 'diffusers>=0.36'],
    },
)
