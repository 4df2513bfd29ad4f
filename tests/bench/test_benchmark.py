import builtins
import json

import pytest

from saccade.bench import benchmark as module
from saccade.bench.benchmark import benchmark
from saccade.bench.choice import read_mechanisms
from saccade.bench.race import measure_speeds
from saccade.bench.speed import Setting

SETTING = Setting(lengths=(8, 16), heads=2, head_dim=4, rounds=1)


def names(path):
    return sorted(each.name for each in path.iterdir())


def test_records_grow_with_every_length(tmp_path, monkeypatch):
    seen = []

    def looks(*arguments, on_length, **options):
        def told(found):
            on_length(found)
            seen.append(len((tmp_path / "out/bench.jsonl").read_text(encoding="utf-8").splitlines()))

        return measure_speeds(*arguments, on_length=told, **options)

    monkeypatch.setattr(module, "measure_speeds", looks)
    found = benchmark(read_mechanisms("full, linear"), SETTING, tmp_path / "out")
    assert seen == [2, 4]
    assert names(tmp_path / "out") == ["bench.jsonl", "bench.png"]
    lines = (tmp_path / "out/bench.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["forward_seconds"] for line in lines] == [list(r.forward) for r in found.rows.values()]


def test_an_existing_folder_is_refused_and_stays_as_it_was(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="never overwritten; choose another folder with --out"):
        benchmark(read_mechanisms("full"), SETTING, tmp_path)
    assert names(tmp_path) == ["mine"]


def test_without_matplotlib_there_are_records(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    benchmark(read_mechanisms("full"), SETTING, tmp_path / "out")
    assert names(tmp_path / "out") == ["bench.jsonl"]
