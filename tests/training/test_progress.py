"""What a terminal shows of a run."""

import re

from saccade.training.progress import progress_bar


def shown(capsys, steps, done, losses=()):
    with progress_bar(steps, done) as move:
        for step, loss in enumerate(losses, done + 1):
            move(step, loss, 0.5)
    return capsys.readouterr().out


def test_the_bar_shows_the_last_loss_and_the_rate(capsys):
    assert re.search(r"3/3 .* loss 0.750 2.00 steps/s left 0:00:00", shown(capsys, 3, 1, (1.5, 0.75)))


def test_before_the_first_step_there_is_no_loss(capsys):
    text = shown(capsys, 3, 1)
    assert "1/3" in text
    assert not re.search("loss|nan|steps/s", text)


def test_a_finished_run_says_so(capsys):
    assert shown(capsys, 3, 3) == "all 3 steps were done before\n"
