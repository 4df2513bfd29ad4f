"""Kill a process while it writes a checkpoint, again and again: `python killed_writes.py FOLDER TIMES`.

A warm process forks one that writes, and kills it: first at each call to the file system that Python makes, one after
the other, then after random delays, which also hit what libraries write. `FOLDER/found.json` says what was found.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator

from saccade.training.checkpoint import Progress, _checked_manifest, restore, weights_of, write, written

CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
torch.set_num_threads(1)


def kill_at(call, folder):
    """Kill this process just before its call of that number to the file system in the folder."""
    left = [call]

    def watch(event, arguments):
        if event in CALLS and (event != "open" or str(arguments[0]).startswith(str(folder))):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def attempt(accelerator, model, folder, call=None, delay=None):
    """Write step 8 in a process that is killed; whether it came to its end first, and how long it took."""
    begun = time.perf_counter()
    process = os.fork()
    if process == 0:
        if call is not None:
            kill_at(call, folder)
        with torch.no_grad():
            model.weight.fill_(8)
        write(accelerator, folder, Progress(8, 8, 0.5, {"w": torch.ones(3)}, {"w": torch.zeros(3)}))
        os._exit(0)
    if delay is not None:
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    return status == 0, time.perf_counter() - begun


def judged(accelerator, model, folder):
    """What is left: the names before and after a restore, the step that is restored, and whether all of it is right."""
    left = sorted(path.name for path in folder.iterdir())
    step = restore(accelerator, folder).step
    whole = [_checked_manifest(path)["step"] for path in written(folder)]
    right = bool((model.weight == step).all()) and bool((weights_of(written(folder)[-1])["weight"] == step).all())
    return {"left": left, "cleaned": sorted(path.name for path in folder.iterdir()), "step": step, "whole": whole} | {
        "right": right
    }


def main(base, times):
    accelerator, model = Accelerator(cpu=True), torch.nn.Linear(40, 300, bias=False)
    model, _ = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    for step in (4, 6):
        with torch.no_grad():
            model.weight.fill_(step)
        write(accelerator, base / "template", Progress(step))
    call, took, ended, found = 0, 0.0, False, []
    for number in range(times):
        folder = base / f"killed-{number}"
        shutil.copytree(base / "template", folder)
        if not ended:
            ended, took = attempt(accelerator, model, folder, call=call)
            how = {"call": call}
            call += 1
        else:
            delay = random.Random(number).uniform(0, took)
            attempt(accelerator, model, folder, delay=delay)
            how = {"delay": delay}
        found.append(how | judged(accelerator, model, folder))
        write(accelerator, folder, Progress(10))
        assert restore(accelerator, folder).step == 10
        shutil.rmtree(folder)
    (base / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
