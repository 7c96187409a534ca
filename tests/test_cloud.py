"""The cloud scripts, run against a fake gcloud whose TPU is a few local processes."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import EMOTIONS, ROOT, run, simulated, write_beeps

from ser_jax.runtime import devices

CLOUD = ROOT / 'cloud'
# A queue that answers after a few polls; workers and bucket are folders; all requests are logged.
GCLOUD = r"""#!/usr/bin/env bash
set -eu
cd "$FAKE"
echo "gcloud $*" >> log
verb="$1 $2 ${3:-} ${4:-}"
for word in "$@"; do
  case $word in
    --worker=*) worker=${word#*=} ;;
    --command=*) command=${word#*=} ;;
  esac
done
case $verb in
  'compute tpus queued-resources create')
    [[ ! -e state ]] || { echo 'ALREADY_EXISTS' >&2; exit 1; }
    echo WAITING_FOR_RESOURCES > state ;;
  'compute tpus queued-resources describe')
    [[ -e state ]] || { echo 'ERROR: NOT_FOUND: no such resource' >&2; exit 1; }
    cat state
    case $(< state) in
      WAITING_FOR_RESOURCES) echo PROVISIONING > state ;;
      PROVISIONING) echo ACTIVE > state; mkdir -p worker0 worker1 ;;
      SUSPENDING) echo SUSPENDED > state ;;
    esac ;;
  'compute tpus queued-resources delete') rm -rf state worker0 worker1 ;;
  'compute tpus tpu-vm scp') for home in worker?; do cp "$5" "$home"; done ;;
  'compute tpus tpu-vm ssh')
    [[ $worker == all ]] && homes='worker0 worker1' || homes=worker$worker
    pids=''
    for home in $homes; do
      (
        export HOME=$FAKE/$home SLURM_PROCID=${home#worker}
        cd "$HOME"
        exec bash -c "$command"
      ) &
      pids="$pids $!"
    done
    code=0
    for pid in $pids; do wait "$pid" || code=1; done
    exit $code ;;
  'storage rsync --recursive '*)
    from=${4/gs:\/\//$FAKE/} to=${5/gs:\/\//$FAKE/}
    mkdir -p "$STARTED_IN/$to" 2> /dev/null || mkdir -p "$to"
    [[ $to == /* ]] || to=$STARTED_IN/$to
    cp -r "$from/." "$to" ;;
  *) echo "unknown: $*" >&2; exit 2 ;;
esac
"""
GCSFUSE = r"""#!/usr/bin/env bash
echo "gcsfuse $*" >> "$FAKE/log"
until [[ -L ${!#} ]]; do  # the other worker, which shares it, does the same
  rmdir "${!#}"
  ln -sT "$FAKE/${@: -2:1}" "${!#}"
done 2> /dev/null
exit 0
"""
UV = r"""#!/usr/bin/env bash
echo "uv $*" >> "$FAKE/log"
[[ $1 == pip ]] && exit
mkdir -p "${!#}/bin"
printf '#!/bin/sh\nexec %s "$@"\n' "$PYTHON" > "${!#}/bin/python"
chmod +x "${!#}/bin/python"
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A fake cloud in a folder with the bucket `bucket`; its commands come first on the path."""
    commands = tmp_path / 'commands'
    commands.mkdir()
    for name, text in (('gcloud', GCLOUD), ('gcsfuse', GCSFUSE), ('uv', UV)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    cloud = tmp_path / 'cloud'
    (cloud / 'bucket').mkdir(parents=True)
    environment = {
        **simulated(1),
        'PATH': f'{commands}{os.pathsep}{os.environ["PATH"]}',
        'PYTHON': sys.executable,
        'FAKE': str(cloud),
        'STARTED_IN': str(tmp_path),
        'ZONE': 'here',
        'BUCKET': 'bucket',
        'NAME': 'rehearsal',
        'MOUNT': str(cloud / 'mount'),  # workers on one machine have separate homes, but one user
        'POLL': '0.2',
        # From these jax.distributed.initialize() learns the other processes; on a TPU from its metadata.
        'SLURM_JOB_ID': str(os.getpid()),
        'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_NTASKS': '2',
        'SLURM_LOCALID': '0',
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    monkeypatch.delenv('PYTHONPATH', raising=False)
    return cloud


def tpu(fake, *arguments, **popen):
    return subprocess.Popen(
        ['bash', str(CLOUD / 'tpu.sh'), *arguments],
        cwd=fake.parent,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **popen,
    )


def finished(fake, *arguments):
    process = tpu(fake, *arguments)
    stderr = process.communicate(timeout=600)[1]
    return process.returncode, stderr


def asked(fake):
    """The logged requests in order, without queries of the state."""
    lines = (fake / 'log').read_text().splitlines() if (fake / 'log').exists() else []
    return [line for line in lines if ' describe ' not in line]


@pytest.mark.slow
def test_a_job_from_the_request_to_the_deletion_with_a_preemption(fake, monkeypatch):
    write_beeps(fake.parent / 'recordings' / 'beeps')
    assert finished(fake, 'upload', str(fake.parent / 'recordings'))[0] == 0
    monkeypatch.setenv('CORPORA', 'csv_corpus/beeps')
    flags = (
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        '--config.steps=60',
        '--config.eval_every=15',
        "--config.reported=('emotion',)",  # needs quoting in a shell
    )
    job = tpu(fake, 'job', 'v5e-16-spot', *flags)
    metrics = fake / 'bucket/runs/rehearsal/metrics.jsonl'
    begin = time.monotonic()
    while not metrics.exists():
        assert job.poll() is None, job.stderr.read()
        assert time.monotonic() - begin < 300
        time.sleep(0.05)
    (fake / 'state').write_text('SUSPENDING\n')
    for number in range(2):
        pid = int((fake / f'worker{number}/ser_jax.pid').read_text())
        os.kill(pid, signal.SIGTERM)
    stderr = job.communicate(timeout=600)[1]
    assert job.returncode == 0, stderr

    stopped = re.findall(r'stopped by SIGTERM: .* resumes from step (\d+) of fold_01', stderr)
    if stopped:
        assert len(stopped) == 2, stderr
        assert len(set(stopped)) == 1
        assert int(stopped[0]) % 10 == 0
        assert f'resumes from step {stopped[0]}\n' in stderr
    else:  # ten steps took longer than the deadline
        assert stderr.count('resumes from the last checkpoint\n') == 2, stderr
    assert not (fake / 'state').exists()
    collected = fake.parent / 'runs/rehearsal'
    card = json.loads((collected / 'results.json').read_text())
    assert set(card['labels']) == set(EMOTIONS)
    head = subprocess.run(['git', 'rev-parse', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    assert card['commit'].startswith(head.stdout.strip())
    steps = [json.loads(line)['step'] for line in (collected / 'metrics.jsonl').open()]
    assert steps == [15, 30, 45, 60]

    log = asked(fake)
    verbs = [' '.join(line.split()[3:5]) for line in log if ' queued-resources ' in line]
    assert verbs == ['queued-resources create', 'queued-resources delete'] * 2
    assert '--spot' in next(line for line in log if ' create ' in line)
    assert sum('worker.sh prepare' in line for line in log) == 2
    assert sum(line.startswith('gcsfuse') for line in log) >= 4
    assert not any('gs://' in line for line in log if 'ser_jax.main' in line)


@pytest.mark.slow
def test_a_failing_job_gives_up_and_deletes_the_tpu(fake, monkeypatch):
    monkeypatch.setenv('TRIES', '2')
    monkeypatch.setenv('CORPORA', '')
    begin = time.monotonic()
    code, stderr = finished(fake, 'job', 'v5e-1', '--config=configs/nothing.py')
    assert code == 1
    assert stderr.count('error: --config=configs/nothing.py: no such config file') == 4
    assert 'failed on a TPU that is there, 2 of 2' in stderr
    assert 'gave up' in stderr
    assert not (fake / 'state').exists()
    assert time.monotonic() - begin < 120


def test_an_interrupted_job_deletes_the_tpu(fake):
    (fake.parent / 'commands/uv').write_text('#!/bin/sh\nexec sleep 60\n')
    job = tpu(fake, 'job', 'v5e-1', '--config=configs/mtl_aug.py')
    while not (fake / 'worker1/ser_jax').exists():
        assert job.poll() is None
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGINT)
    assert job.wait(timeout=60) != 0
    assert not (fake / 'state').exists()


@pytest.mark.parametrize(
    ('arguments', 'unset', 'problem'),
    [
        (('job', 'v9-1'), '', 'no slice v9-1: .*v5e-8.sh'),
        (('install',), 'BUCKET', 'BUCKET is not set'),
        (('create', 'v5e-1'), 'ZONE', 'ZONE is not set'),
        (('fly',), '', 'no command fly'),
    ],
)
def test_user_errors_are_one_line_and_request_nothing(fake, monkeypatch, arguments, unset, problem):
    monkeypatch.delenv(unset, raising=False)
    code, stderr = finished(fake, *arguments)
    assert code == 1
    assert re.fullmatch(f'error: .*{problem}.*\n', stderr)
    assert asked(fake) == []


def test_the_scripts_pass_shellcheck():
    shellcheck = subprocess.run(['which', 'shellcheck'], capture_output=True, text=True)
    scripts = sorted(CLOUD.rglob('*.sh'))
    assert len(scripts) == 6
    for script in scripts:
        subprocess.run(['bash', '-n', script], check=True)
    if shellcheck.returncode:
        pytest.skip('shellcheck is not installed')
    subprocess.run(['shellcheck', '-x', *scripts], cwd=ROOT, check=True)


# Buckets and processes.


@pytest.mark.parametrize(
    ('command', 'flag'),
    [
        ('ser_jax.main --config=configs/mtl_aug.py:demo_speech,smoke', 'workdir'),
        ('ser_jax.main --config=configs/mtl_aug.py:demo_speech,smoke', 'config.data.data_dir'),
        ('ser_jax.grid --config=configs/grids/demo.py --list', 'workdir'),
        ('ser_jax.predict nothing.wav', 'workdir'),
        ('tfds_builders.build demo_speech', 'data_dir'),
        ('tfds_builders.doctor emodb', 'manual_dir'),
    ],
)
def test_the_address_of_a_bucket_is_refused_in_one_line(command, flag):
    result = run(*command.split(), f'--{flag}=gs://mine/runs')
    assert result.returncode == 1
    assert re.fullmatch(r'error: gs:/.*cloud/README.md\n', result.stderr)
    assert not (ROOT / 'gs:').exists()


@pytest.mark.parametrize(
    'environment',
    [{'SER_JAX_PROCESSES': 'auto'}, {'TPU_WORKER_HOSTNAMES': 'host-0,host-1'}],
    ids=['auto', 'hostnames'],
)
def test_jax_finds_the_processes_of_a_slice(monkeypatch, environment):
    """No addresses are passed; the job above shows that it works."""
    calls = []
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(devices.jax.distributed, 'is_initialized', lambda: False)
    record = lambda *arguments, heartbeat_timeout_seconds: calls.append(arguments)
    monkeypatch.setattr(devices.jax.distributed, 'initialize', record)
    devices.start_processes()
    assert calls == [()]
    monkeypatch.setenv('TPU_WORKER_HOSTNAMES', 'localhost')
    monkeypatch.delenv('SER_JAX_PROCESSES', raising=False)
    devices.start_processes()
    assert calls == [()]


def test_auto_on_no_platform_is_an_error(tmp_path):
    result = run(
        'ser_jax.main',
        '--config=configs/mtl_aug.py:demo_speech,smoke',
        f'--workdir={tmp_path / "run"}',
        SER_JAX_PROCESSES='auto',
    )
    assert result.returncode == 1
    *_, last = result.stderr.splitlines()  # after lines of preparation
    assert last.startswith('error: SER_JAX_PROCESSES=auto, but ')


# The Dockerfile, as far as it can be checked without Docker.


def test_the_dockerfile_copies_existing_files_and_runs_the_smoke_command():
    lines = [
        line for line in (CLOUD / 'Dockerfile').read_text().splitlines() if not line.startswith('#')
    ]
    steps = [line.split(maxsplit=1) for line in lines]
    assert steps[0] == ['FROM', 'python:3.11-slim']
    assert {word for word, _ in steps} == {'FROM', 'RUN', 'USER', 'WORKDIR', 'COPY', 'CMD'}
    copied = {word for name, rest in steps if name == 'COPY' for word in rest.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    assert {'setup.py', 'ser_jax', 'tfds_builders', 'configs'} <= copied
    ignore = (CLOUD / 'Dockerfile.dockerignore').read_text().splitlines()
    assert {line[1:] for line in ignore if line.startswith('!')} == copied
    assert [name for name, _ in steps].index('USER') < [name for name, _ in steps].index('COPY')

    readme = (ROOT / 'README.md').read_text()
    main = re.search(r'<!-- command: main -->\n```bash\n(.*?)```', readme, re.DOTALL)[1]
    *install, command = [part.strip() for part in main.replace('\\\n', '').split('&&')]
    ran = next(rest for name, rest in steps if name == 'RUN' and 'pip' in rest)
    assert [part.strip() for part in ran.split('&&')][:2] == install
    quick = command.replace('configs/mtl_aug.py', 'configs/mtl_aug.py:demo_speech,smoke')
    assert shlex.join(json.loads(dict(steps)['CMD'])) == quick
