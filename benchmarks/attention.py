"""Speed and memory of attention next to torch's dense attention, and to other libraries', in one run.

    pip install --no-deps -r benchmarks/requirements.txt    # the peers; all rows of ours run without them
    python benchmarks/attention.py
    python benchmarks/attention.py --only auto --rounds 9

Sections: `ratios` (patterns) and `mechanisms` (those that find their own pattern, or compress keys), both beside the
peers; `shapes` (one head, other head dims), `auto` (never slower than dense?), `memory` (of the window at 65,536
tokens) and `orders` (strides, grids, graphs). A ratio is the time of dense `scaled_dot_product_attention` without a
mask over that of the row, the median of rounds in which all take turns; b 1, fp32. An exclamation mark stands where a
goal is missed. Whatever is timed was held to its definition just before.
"""

import argparse
import logging
import time
import warnings

import torch

from saccade.machine import place, versions
from speed.auto import never_slower
from speed.mechanisms import found_patterns
from speed.memory import tensors
from speed.orders import far_apart
from speed.ratios import other_sizes, side_by_side
from speed.timing import Timer

SECTIONS = ("ratios", "mechanisms", "shapes", "auto", "memory", "orders")


def main() -> None:
    """Run the sections that are asked for, all of them otherwise."""
    options = parsed()
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.manual_seed(0)
    print(place() + ", " + ", ".join(f"{name} {number}" for name, number in versions().items()))
    timer = Timer(options.rounds, 5.0 if options.quick else 15.0, options.processor_time)
    begin = time.monotonic()
    for section in options.only or SECTIONS:
        run(section, options, timer)
    print(f"\n{time.monotonic() - begin:.0f} s in all")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="this section alone; repeat at will")
    parser.add_argument("--lengths", default="4096,16384", help="of the sections with peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--quick", action="store_true", help="small lengths, to see that all of it runs")
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with OMP_NUM_THREADS=1")
    return parser.parse_args()


def run(section: str, options: argparse.Namespace, timer: Timer) -> None:
    """One section."""
    quick = options.quick
    if section in ("ratios", "mechanisms"):
        lengths = [1024] if quick else [int(n) for n in options.lengths.split(",")]
        (side_by_side if section == "ratios" else found_patterns)(lengths, timer, options.peers)
    elif section == "shapes":
        other_sizes(1024 if quick else 4096, timer)
    elif section == "auto":
        never_slower([2**i for i in range(4, 11 if quick else 13)], timer)
    elif section == "memory":
        tensors(8192 if quick else 65_536)
    else:
        far_apart(*(1024, 2_000, 40_000) if quick else (4096, 11_758, 1_038_000), timer)


if __name__ == "__main__":
    main()
