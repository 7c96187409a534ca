"""Small synthetic corpora in the owners' layouts, and checks shared by the tests of the builders."""

import contextlib
import io
import os
import pathlib
import sys
import time

import numpy as np
import soundfile

from tfds_builders import build

EMODB = ('03a01Fa', '03a01Nc', '03a01Wa', '08a01Na', '08a02Tb', '09a01Fa', '11a05Td', '16b10Wb')


def beep(seconds=0.4, hertz=300.0):
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(int(16000 * seconds)) / 16000)


def write_files(folder, *names):
    """Beeps of different pitch."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, beep(hertz=200 + 20 * number), 16000)
    return folder


def write_emodb(folder, names=EMODB):
    """Beeps under names that EMO-DB published."""
    (folder / 'wav').mkdir(parents=True)
    for number, name in enumerate(names):
        soundfile.write(
            folder / f'wav/{name}.wav', beep(0.3 + 0.05 * (number % 8), 200 + number), 16000
        )
    return folder


def write_csv(folder, text, files=()):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'metadata.csv').write_text(text, encoding='utf-8')
    return write_files(folder, *files)


def spoil(folder):
    """Makes four files unusable, each for another reason, and gives two the same audio."""
    (folder / 'wav/03a01Nc.wav').write_bytes(b'')
    soundfile.write(folder / 'wav/03a01Wa.wav', np.zeros(8000), 16000)
    soundfile.write(folder / 'wav/08a01Na.wav', beep(0.05), 16000)
    whole = (folder / 'wav/08a02Tb.wav').read_bytes()
    (folder / 'wav/08a02Tb.wav').write_bytes(whole[:2000])
    (folder / 'wav/09a01Fa.wav').write_bytes((folder / 'wav/03a01Fa.wav').read_bytes())


def call(tmp_path, module, name, *flags):
    """Runs the command of a module (build, doctor) in this process: (status, stdout, stderr)."""
    if module is build:
        flags = (*flags, f'--data_dir={tmp_path / "records"}')
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = module.main([name, *flags])
    return status, out.getvalue(), err.getvalue()


def leftovers(tmp_path):
    """All files below the data_dir but lock files."""
    root = tmp_path / 'records'
    return [p for p in root.rglob('*') if p.is_file() and p.suffix != '.lock']


def failed(result, *words, tmp_path=None):
    """Asserts a one-line error with some words, and no files written."""
    status, _, err = result
    assert status == 1
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    for word in words:
        assert word in err, f'{word!r} is not in {err!r}'
    if tmp_path is not None:
        assert leftovers(tmp_path) == []


def check_rows(corpus):
    """Row r of the index describes record r, field by field."""
    import tensorflow_datasets as tfds

    records = tfds.builder_from_directory(corpus.path).as_data_source('utterances')
    source = corpus.source()
    assert len(records) == len(source) == len(corpus)
    for row in range(len(corpus)):
        record = dict(records[row])
        array = record.pop(corpus.representation)
        assert np.array_equal(source[row], array)
        for field, value in record.items():
            stored = corpus.index[field][row]
            if isinstance(value, bytes):
                assert value.decode() == stored, field
            else:
                np.testing.assert_equal(np.asarray(value, stored.dtype), stored, err_msg=field)
        assert set(record) | {'log_mel_sum', 'log_mel_squares'} == set(corpus.index)
        if corpus.representation == 'log_mel':
            sums = array.astype(np.float64).sum(0)
            np.testing.assert_allclose(corpus.index['log_mel_sum'][row], sums, rtol=1e-9)
            squares = (array.astype(np.float64) ** 2).sum(0)
            np.testing.assert_allclose(corpus.index['log_mel_squares'][row], squares, rtol=1e-9)
            assert corpus.index['frames'][row] == len(array)


def slow_load(utterance, rate):
    """A `LOAD` that touches the file $STARTED and blocks at the last utterance."""
    pathlib.Path(os.environ['STARTED']).touch()
    if utterance.id.endswith('16b10Wb'):
        time.sleep(60)
    return (beep() * 32767).astype(np.int16)


def loaded_modules(_):
    """Names of the modules of this process."""
    return list(sys.modules)
