"""Training step of MTL-AUG, compared with PyTorch: python -m benchmarks.train_step [--out=FILE]

The same network, batch, lengths, precision and optimiser (AdamW, schedule, clipping, parameter average), from the same parameters; both
must compute the same loss before anything is timed, in alternating blocks. Augmentation, which the PyTorch version lacks, is timed
separately. Needs the extra [bench].
"""

import functools

import numpy as np

from benchmarks import timing
from benchmarks.setting import BANDS, Setting
from benchmarks.trainers import JaxTrainer, same_losses, seconds_per_step
from configs.mtl_aug import get_config
from ser_jax.runtime import devices
from ser_jax.transforms import augment


def make_raw_batch(setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of noise as the host passes it to `augment`."""
    rng = np.random.default_rng(seed)
    size = setting.batch_size
    operations = augment.parse_operations(setting.augmentations)
    frames = augment.input_frames(operations, setting.crop_frames)
    return {
        'log_mel': rng.normal(-6.0, 2.0, (size, frames, BANDS)).astype(np.float32),
        'length': np.full(size, frames, np.int32),
        'emotion': np.eye(setting.classes, dtype=np.float32)[
            rng.integers(setting.classes, size=size)
        ],
        'emotion_mask': np.ones(size, bool),
    }


def augmented_trainer(setting: Setting) -> JaxTrainer:
    """The training step of ser_jax with augmentation, as in training."""
    augmentation = functools.partial(
        augment.augment,
        operations=augment.parse_operations(setting.augmentations),
        frames=setting.crop_frames,
        clean_share=setting.clean_share,
        axis_name=devices.AXIS,
    )
    return JaxTrainer(setting, augment=augmentation, make=make_raw_batch)


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--config', default='demo_speech', help='corpus whose config is timed')
    parser.add_argument('--block', type=int, default=10, help='steps of a block')
    parser.add_argument('--blocks', type=int, default=8)
    parser.add_argument('--without', default='', help='comma-separated: torch, compile')
    options = parser.parse_args()

    setting = Setting.of(get_config(options.config))
    ours = JaxTrainer(setting)
    runs = {
        'ser_jax': ours.run,
        'ser_jax with augmentations': augmented_trainer(setting).run,
    }
    without = options.without.split(',')
    if 'torch' not in without:
        from benchmarks.torch_mtl_aug import TorchTrainer

        losses = same_losses(setting)
        print('losses of the first steps (ser_jax, PyTorch):', losses)
        params = ours.variables()['params']
        runs['PyTorch eager'] = TorchTrainer(setting, params).run
        if 'compile' not in without:
            runs['PyTorch torch.compile'] = TorchTrainer(setting, params, compiled=True).run
    seconds = seconds_per_step(runs, options.block, options.blocks)
    size = setting.batch_size
    print(f'{options.config}: batch {size} x {setting.crop_frames} frames, made up')
    rows = timing.print_steps(seconds, size)
    timing.write(options.out, config=options.config, rows=rows)


if __name__ == '__main__':
    main()
