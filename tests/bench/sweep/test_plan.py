from dataclasses import asdict
from pathlib import Path

import pytest

from saccade.attention import MECHANISMS
from saccade.bench.sweep.choice import best, validation_scores
from saccade.bench.sweep.plan import Cell, read_plan

SHIPPED = Path(__file__).parents[3] / "plans/results.toml"


def test_a_plan_knows_its_cells(plan):
    assert plan.mechanisms == ("full", "linear", "local(left=2)")
    assert plan.first() == [Cell("letters", each, 0) for each in plan.mechanisms]
    second = plan.second(["linear"])
    assert second == [
        Cell(task, each, seed) for task in ("letters", "more") for each in ("full", "linear") for seed in (0, 1)
    ]
    assert Cell("more", "linear", None) in plan.speeds(["linear"])
    assert Cell("letters", "local(left=2)", None) in plan.speeds(["linear"])
    assert Cell("more", "local(left=2)", None) not in plan.speeds(["linear"])


def test_a_recipe_is_that_of_the_plan_with_what_the_task_changes(plan, letters):
    recipe = plan.recipe(Cell("more", "linear", 7))
    assert (recipe.model.mechanism, recipe.model.width, recipe.training.seed) == ("linear", 8, 7)
    assert (recipe.data.seed, recipe.data.length, recipe.data.source) == (1, 64, "{data_folder}/letters.csv")
    assert plan.located(recipe).data.source == str(letters)


def test_settings_tell_all_but_where_the_data_lie(plan, letters):
    settings = plan.settings(Cell("letters", "linear", 1))
    assert settings["threads"] == 1
    assert settings["training"] == asdict(plan.recipe(Cell("letters", "linear", 1)).training)
    assert str(letters.parent) not in str(settings)
    assert plan.settings(Cell("letters", "linear", None))["rounds"] == 1


def test_all_is_the_whole_list_with_the_options_of_the_plan(plan_path):
    overrides = ["mechanisms=all", 'options.local="local(left=5)"']
    plan = read_plan(plan_path, overrides)
    assert len(plan.mechanisms) == len(MECHANISMS)
    assert plan.mechanisms[0] == "full"
    assert "local(left=5)" in plan.mechanisms
    assert "linear" in plan.mechanisms


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("best=-1", "best must be"),
        ("seeds=[]", "seeds must be"),
        ("best_seeds=[1, 1]", "best_seeds must be"),
        ("threads=0", "threads must be"),
        ("round=3", "did you mean 'rounds'"),
        ("options.locl=x", "did you mean 'local'"),
        ("mechanisms=['locl']", "--set mechanisms=['locl']: "),
        ("tasks.more.mechanisms=some", "tasks.more.mechanisms must be one of all, best"),
        ("tasks.more.modell.width=8", "did you mean 'model'"),
        ("tasks.more.model.widht=8", "did you mean 'model.width'"),
        ("options.local=locl", "--set options.local=locl: "),
        ("options.local=5", "--set options.local=5: "),
        ("options=5", "options must be a table, got 5"),
        ("tasks.more=5", "tasks.more must be a table, got 5"),
        ("tasks.more.data=5", "tasks.more.data must be a table, got 5"),
        ("tasks=3", "tasks must be at least one table"),
    ],
)
def test_what_a_plan_cannot_be(plan_path, override, message):
    overrides = [override, "mechanisms=all"] if override.startswith("options") else [override]
    with pytest.raises(ValueError, match="--set") as caught:
        read_plan(plan_path, overrides)
    assert message in str(caught.value)


def test_the_best_are_chosen_by_validation_and_never_by_the_test(plan, made):
    records = dict(
        [
            made("letters", "full", test=0.9, validation=0.9),
            made("letters", "linear", test=0.9, validation=0.4),
            made("letters", "local(left=2)", test=0.1, validation=0.6),
        ]
    )
    assert best(plan, records) == ["local(left=2)"]
    assert validation_scores(plan, records) == {"linear": 0.4, "local(left=2)": 0.6}
    del records[Cell("letters", "linear", 0)]
    assert best(plan, records) is None


def test_what_failed_is_out_of_the_race_and_equals_keep_their_order(plan, made):
    records = dict([made("letters", name, validation=0.5) for name in plan.mechanisms])
    assert best(plan, records) == ["linear"]
    records |= dict([made("letters", "linear", status="failed")])
    assert best(plan, records) == ["local(left=2)"]


def test_the_shipped_plan_can_be_read():
    plan = read_plan(SHIPPED)
    assert len(plan.mechanisms) == len(MECHANISMS)
    assert plan.tasks("all") == ["stdlib", "listops"]
    assert plan.tasks("best") == ["authors-4k", "movie-reviews"]
    assert all("{data_folder}" in plan.recipes[task].data.source for task in plan.tasks("best"))
