import pytest
import torch

from genrep import data as data_sets

TEXT = "To be, or not to be, that is the question.\n" * 80


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text(TEXT, encoding="utf8")
    return path


def test_windows_follow_each_other_and_splits_do_not_overlap(file):
    splits = data_sets.load(file, shape=(16,))
    characters = splits.about["characters"]
    assert splits.spec.levels == len(set(TEXT)) == len(characters)
    parts = [data_sets.as_text(part.x, characters) for part in (splits.train, splits.validation, splits.test)]
    cut = [len(TEXT) - 2 * (len(TEXT) // 20), len(TEXT) - len(TEXT) // 20]
    for part, start, end in zip(parts, [0, *cut], [*cut, len(TEXT)], strict=True):
        whole = "".join(part)
        assert TEXT[start:end].startswith(whole)
        assert len(TEXT[start:end]) - len(whole) < 64 + 16  # what fills no window


def test_text_and_back():
    characters = sorted(set(TEXT))
    levels = torch.tensor([data_sets.from_text("that", characters)])
    assert data_sets.as_text(levels, characters) == ["that"]
    with pytest.raises(ValueError, match="no character 'z'"):
        data_sets.from_text("zebra", characters)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"short", "at least 1280 characters"), (b"a" * 5000, "different characters"), (b"\xff\xfe\xfa" * 999, "UTF-8")],
)
def test_text_that_is_none(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        data_sets.load(path)


def test_options_without_meaning_are_refused(file):
    with pytest.raises(ValueError, match="takes no label"):
        data_sets.load(file, label="speaker")
    with pytest.raises(ValueError, match="one number of characters"):
        data_sets.load(file, shape=(1, 8, 8))
