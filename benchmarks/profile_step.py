"""Time of one training step by part of the network and by operation: python -m benchmarks.profile_step [--out=FILE]

Runs some steps under JAX's profiler and sums the events of XLA's operations, without loops and branches, whose contents are events
themselves. On a CPU they run on several threads: their sum may exceed the step's time. An operation is attributed to the part of the
network in its XLA op_name; a fused operation has one name only.
"""

import collections
import glob
import gzip
import json
import re
import tempfile
import time

import jax

from benchmarks import timing
from benchmarks.flops import matrix_flops
from benchmarks.setting import Setting
from benchmarks.train_step import augmented_trainer
from benchmarks.trainers import JaxTrainer
from configs.mtl_aug import get_config

# Flax modules and methods of the network -> part; the first that fits.
_PARTS = (
    (r'block_\d', None),
    (r'step|step_norm', 'step projection'),
    (r'blstm', 'BLSTM'),
    (r'decoder_in|Model\._decode', 'decoder'),
    (r'Dropout_\d|drop_\w+|Model\._drop', 'dropout'),
    (r'.*attention|embedding|.*_hidden|.*_head', 'attention, heads'),
    (r'.*', 'between the modules'),
)
_INSTRUCTION = re.compile(
    r'^ *(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(.*?(?:op_name="([^"]*)".*)?$', re.M
)


def part_of(op_name: str) -> tuple[str, str]:
    """(part, 'forward', 'backward' or '') of an operation's source, e.g. 'jit(f)/transpose(jvp(Model))/blstm/dot_general'."""
    if 'jvp(' not in op_name:
        return ('optimiser, random keys' if op_name else 'without a name'), ''
    direction = 'backward' if 'transpose(' in op_name else 'forward'
    module = re.search(r'jvp\(Model\)+/(?:LogMelEncoder_0/)?([^/]+)', op_name)
    if not module:
        return 'losses', direction
    name = next(name or module[1] for form, name in _PARTS if re.fullmatch(form, module[1]))
    return name, direction


def operations(folder: str) -> dict[tuple[str, str], tuple[float, int]]:
    """The newest trace below a folder: (program, operation) -> microseconds, number of events."""
    path = sorted(glob.glob(f'{folder}/**/*.trace.json.gz', recursive=True))[-1]
    with gzip.open(path) as file:
        events = json.load(file)['traceEvents']
    totals = collections.defaultdict(lambda: (0.0, 0))
    for event in events:
        arguments = event.get('args', {})
        if 'hlo_op' in arguments:
            key = arguments.get('hlo_module', ''), arguments['hlo_op']
            microseconds, count = totals[key]
            totals[key] = microseconds + event['dur'], count + 1
    return dict(totals)


def main() -> None:
    """Prints the tables and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--config', default='demo_speech')
    parser.add_argument('--batch_size', type=int, help='default: of the config')
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--rows', type=int, default=40, help='single operations to print')
    parser.add_argument('--augmented', action='store_true')
    options = parser.parse_args()
    config = get_config(options.config)
    config.batch_size = options.batch_size or config.batch_size
    setting = Setting.of(config)
    plain = JaxTrainer(setting)
    trainer = augmented_trainer(setting) if options.augmented else plain
    trainer.run(3)
    start = time.perf_counter()
    trainer.run(options.steps)
    seconds = (time.perf_counter() - start) / options.steps
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            trainer.run(options.steps)
        totals = operations(folder)

    compiled = plain.step.lower(plain.state, plain.batch).compile()
    program = compiled.as_text()
    ours = re.match(r'HloModule (\w+)', program)[1]
    instructions = {name: (code, source) for name, code, source in _INSTRUCTION.findall(program)}
    parts, rows = collections.Counter(), []
    for (module, name), (microseconds, count) in totals.items():
        code, source = instructions.get(name, ('', '')) if module == ours else ('', '')
        if code in ('while', 'conditional', 'call'):
            continue
        part = ' '.join(part_of(source)).strip() if module == ours else 'augmentations'
        milliseconds = microseconds / 1000 / options.steps
        parts[part] += milliseconds
        rows.append((milliseconds, count / options.steps, name, part))

    cost = compiled.cost_analysis()
    written = cost.get('bytes accessedout{}', 0.0)
    work = {
        'products_gflop': matrix_flops(plain.step, plain.state, plain.batch) / 1e9,
        'xla_gflop': cost['flops'] / 1e9,
        'xla_megabytes_read': (cost['bytes accessed'] - written) / 1e6,
        'xla_megabytes_written': written / 1e6,
    }
    print(f'{1000 * seconds:.1f} ms a step without the profiler, batch {setting.batch_size}')
    print(
        f'products and convolutions: {work["products_gflop"]:.2f} GFLOP; '
        f"XLA's cost analysis, without the repetitions of loops: {work['xla_gflop']:.2f} GFLOP, "
        f'operands of all operations, cached or not, {work["xla_megabytes_read"]:.0f} MB read, '
        f'results {work["xla_megabytes_written"]:.0f} MB written'
    )
    total = sum(parts.values())
    for part, milliseconds in parts.most_common():
        print(f'{milliseconds:8.2f} ms {milliseconds / total:6.1%}  {part}')
    print(f'{total:8.2f} ms in all')
    for milliseconds, count, name, part in sorted(rows, reverse=True)[: options.rows]:
        print(f'{milliseconds:8.2f} ms {count:8.0f} x  {name} ({part})')
    timing.write(
        options.out,
        config=options.config,
        batch_size=setting.batch_size,
        seconds_per_step=seconds,
        work=work,
        milliseconds_by_part=dict(parts.most_common()),
    )


if __name__ == '__main__':
    main()
