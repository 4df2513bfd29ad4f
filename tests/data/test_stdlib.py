import sysconfig
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from saccade.data import DataSettings, load
from saccade.data.stdlib import LEFT_OUT, passages

LENGTH = 53


@pytest.fixture
def library(tmp_path, monkeypatch) -> Path:
    """A standard library of two packages whose passages tell which file they are from."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    add_package(tmp_path / "stdlib" / "alpha", files=17)
    add_package(tmp_path / "stdlib" / "beta", files=23)
    return tmp_path / "stdlib"


def add_package(folder: Path, files: int) -> None:
    """Files of 1 to 3 passages; every 5 bytes name the file."""
    (folder / "inner").mkdir(parents=True)
    for i in range(files):
        name = "__init__" if i == 0 else f"inner/m{i:02}" if i % 3 == 0 else f"m{i:02}"
        mark = f"{folder.name[0]}{i:03} "
        (folder / f"{name}.py").write_text((mark * LENGTH)[: LENGTH * (1 + i % 3)])


def texts(data, split) -> list[str]:
    return [data.vocabulary.decode(sequence) for sequence in split.sequences]


def file_of(passage: str) -> str:
    """The mark of the file; a passage need not begin with a whole one."""
    return next(word for word in passage.split() if len(word) == 4)


def settings(**options) -> DataSettings:
    return DataSettings(length=LENGTH, **options)


def same(one, other) -> bool:
    return all(
        torch.equal(one.splits[name].labels, other.splits[name].labels)
        and all(map(torch.equal, one.splits[name].sequences, other.splits[name].sequences))
        for name in one.splits
    )


def test_a_class_is_a_package_and_its_examples_are_its_passages(library):
    data = load(settings())
    assert data.classes == ("alpha", "beta")
    for split in data.splits.values():
        for text, label in zip(texts(data, split), split.labels.tolist(), strict=True):
            assert file_of(text)[0] == data.classes[label][0]
            assert len(text) == LENGTH
    files = 17, 23
    assert sum(map(len, data.splits.values())) == sum(1 + i % 3 for count in files for i in range(count))


def test_the_split_is_by_file_and_every_class_is_in_every_split(library):
    data = load(settings())
    homes = defaultdict(set)
    for name, split in data.splits.items():
        assert set(split.labels.tolist()) == {0, 1}
        for text in texts(data, split):
            homes[file_of(text)].add(name)
    assert len(homes) == 17 + 23
    assert all(len(splits) == 1 for splits in homes.values())
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert 0.6 < sizes["train"] / sum(sizes.values()) < 0.8


def test_the_seed_draws_the_split_and_nothing_else_does(library):
    one, other = load(settings(seed=3)), load(settings(seed=4))
    assert same(one, load(settings(seed=3)))
    assert {file_of(text) for text in texts(one, one.test)} != {file_of(text) for text in texts(other, other.test)}
    few = [set(texts(data, data.train)) for data in (load(settings(per_class=10)), load(settings(per_class=20)))]
    assert few[0] < few[1]


def test_at_most_so_many_passages_of_a_class_are_kept(library):
    data = load(settings(per_class=20))
    for label in (0, 1):
        kept = [int((split.labels == label).sum()) for split in data.splits.values()]
        assert kept[0] == 14
        assert all(1 <= count <= 3 for count in kept[1:])


def test_a_rest_is_kept_if_it_is_half_a_passage_or_all_there_is():
    assert passages(b"abcdefgh", 3) == [b"abc", b"def", b"gh"]
    assert passages(b"abcdefg", 3) == [b"abc", b"def"]
    assert passages(b"abcdef", 3) == [b"abc", b"def"]
    assert passages(b"a", 3) == [b"a"]
    assert passages(b"abcdef", 4) == [b"abcd", b"ef"]


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_some_folders_are_no_classes(library, name):
    add_package(library / name, files=19)
    assert load(settings()).classes == ("alpha", "beta")


def test_small_packages_and_folders_that_are_no_packages_are_no_classes(library):
    add_package(library / "gamma", files=14)
    add_package(library / "delta", files=19)
    (library / "delta" / "__init__.py").unlink()
    (library / "alone.py").write_text("x")
    assert load(settings()).classes == ("alpha", "beta")
    add_package(library / "just", files=15)
    assert load(settings()).classes == ("alpha", "beta", "just")


def test_tests_and_empty_files_of_a_package_do_not_count(library):
    add_package(library / "gamma", files=14)
    for nested in ("test", "tests", "inner/tests"):
        add_package(library / "gamma" / nested, files=7)
    (library / "gamma" / "empty.py").touch()
    assert load(settings()).classes == ("alpha", "beta")


def test_the_facts_name_the_python_version(library, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.17.2")
    facts = load(settings()).facts
    assert facts["python"] == "3.17.2"
    assert facts["passage"] == "53 bytes"
    assert facts["classes"].startswith("beta ")
    assert "test" in facts["majority share"]


def test_without_sources_the_error_says_where_it_looked_and_what_to_do(library):
    for file in library.glob("beta/**/m*.py"):
        file.unlink()
    with pytest.raises(FileNotFoundError) as error:
        load(settings())
    for part in ("2 packages of 15 source files", str(library), "alpha (17), beta (1)", "uv", "'listops'"):
        assert part in str(error.value)


def test_without_a_library_at_all_the_error_is_the_same(library, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(library / "nowhere" / name))
    with pytest.raises(FileNotFoundError, match=r"got no source files\. This Python was installed without its sources"):
        load(settings())


def test_this_machine_has_a_standard_library():
    data = load(DataSettings())
    assert {"asyncio", "email", "xml"} <= set(data.classes)
    assert data.longest == 1024
    assert min(len(split) for split in data.splits.values()) >= 100
    for split in data.splits.values():
        assert set(split.labels.tolist()) == set(range(len(data.classes)))
        assert split.labels.bincount().max() <= 0.7 * 300
    assert max(map(data.majority_share, data.splits.values())) < 0.5
    assert same(data, load(DataSettings()))
