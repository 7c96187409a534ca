"""Finding recordings: linked folders, endings, and what is passed over."""

import os

import pytest
import soundfile
from trees import beep

from ser_jax.audio.finding import find_audio, passed_over


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(paths, folder):
    return [path.relative_to(folder).as_posix() for path in paths]


def test_linked_folders_are_searched_once(tmp_path):
    elsewhere = touch(tmp_path / 'elsewhere', *(f'{n}.wav' for n in range(24)), 'deep/24.wav')
    folder = touch(tmp_path / 'mine', 'z/own.wav', 'one.wav')
    (folder / 'session').symlink_to(elsewhere, target_is_directory=True)
    (folder / 'again').symlink_to(elsewhere, target_is_directory=True)
    (folder / 'a').symlink_to(folder / 'z', target_is_directory=True)
    (folder / 'loop').symlink_to(folder, target_is_directory=True)
    (elsewhere / 'back').symlink_to(folder, target_is_directory=True)
    (folder / 'self').symlink_to(folder / 'self')
    found = names(find_audio(folder).audio, folder)
    assert len(found) == 27
    assert {'one.wav', 'z/own.wav'} < set(found)
    assert found == sorted(found)
    assert not [name for name in found if name.startswith(('a/', 'loop/'))]
    assert os.listdir(elsewhere)


@pytest.mark.parametrize(
    ('name', 'form'),
    [
        ('a.WAVE', 'WAV'),
        ('a.rf64', 'RF64'),
        ('a.aifc', 'AIFF'),
        ('a.snd', 'AU'),
        ('a.caf', 'CAF'),
        ('a.mp2', 'MP3'),
        ('a.sph', 'NIST'),
        ('a.voc', 'VOC'),
    ],
)
def test_all_endings_that_can_be_read_are_found(tmp_path, name, form):
    soundfile.write(tmp_path / name, beep(), 16000, format=form)
    assert names(find_audio(tmp_path).audio, tmp_path) == [name]


def test_what_is_passed_over_is_counted_and_named(tmp_path):
    others = [*(f'{n}.m4a' for n in range(5)), 'b.webm', 'notes.txt', 'README']
    touch(tmp_path, 'a.wav', *others, '.DS_Store', '._a.wav', '.git/index')
    found = find_audio(tmp_path)
    assert names(found.audio, tmp_path) == ['a.wav']
    assert passed_over(found).startswith(
        'passed over 8 files that are not read: .m4a 5 (0.m4a, 1.m4a, 2.m4a, …), .txt 1 (notes.txt), .webm 1 (b.webm), '
        'no ending 1 (README); convert'
    )
    assert passed_over(find_audio(touch(tmp_path / 'x', 'a.wav'))) == ''


def test_tables_and_answers_next_to_recordings_are_not_reported(tmp_path):
    touch(tmp_path, 'a.wav', 'metadata.csv', 'answers.jsonl', 'a.TextGrid', 'page.html')
    assert passed_over(find_audio(tmp_path)) == ''
    touch(tmp_path, 'b.m4a')
    assert passed_over(find_audio(tmp_path)).startswith(
        'passed over 1 file that is not read: .m4a 1 (b.m4a); convert'
    )
