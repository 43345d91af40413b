#!/usr/bin/env python3
"""Compare one shared pool with dual-pool token-budget routing, by simulation.

Usage: python simulate.py --seed 0 --out results/metrics.json
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import time

from dualpool.experiment import Config, ratio, run

HEADLINES = ("gpu_time_reduction_percent", "preemption_ratio", "p99_ttft_improvement_percent")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="first seed (default 0)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds (default 3)")
    parser.add_argument("--out", default="results/metrics.json", help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="a smoke run: less traffic, one seed")
    parser.add_argument("--rate", type=float, help="requests per second")
    parser.add_argument("--duration", type=float, help="seconds of arrivals")
    parser.add_argument("--overcommit", type=float, help="slots x context over KV cache; 0: no limit")
    parser.add_argument("--balancer", choices=("requests", "tokens"), help="within each pool")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error("--seeds must be at least 1")
    for name in ("rate", "duration"):
        value = getattr(options, name)
        if value is not None and not value > 0:
            parser.error("--%s must be above 0" % name)
    return options


def configure(options):
    config = Config()
    if options.quick:
        config = dataclasses.replace(config, rate=4.0, duration=150.0, warmup=15.0)
        options.seeds = 1
    changes = {
        name: getattr(options, name)
        for name in ("rate", "duration", "overcommit", "balancer")
        if getattr(options, name) is not None
    }
    if "duration" in changes:
        changes["warmup"] = changes["duration"] / 10
    return dataclasses.replace(config, **changes)


def mean(values):
    """Mean of the values that exist; None when none does."""
    values = [value for value in values if value is not None]
    return math.fsum(values) / len(values) if values else None


def spread(values):
    values = [value for value in values if value is not None]
    return [min(values), max(values)] if values else None


def report(config, runs):
    """The document that is written: headline means first, then every seed."""
    document = {name: mean([r[name] for r in runs]) for name in HEADLINES}
    # A ratio of counts: pooled, because a single seed may have no preemption at all.
    counts = [[r["peak"][d]["preemptions"] for r in runs] for d in ("shared", "dual")]
    document["preemption_ratio"] = ratio(sum(counts[0]), sum(counts[1]))
    document["range_over_seeds"] = {name: spread([r[name] for r in runs]) for name in HEADLINES}
    document["simulated"] = True
    document["config"] = dataclasses.asdict(config)
    document["runs"] = runs
    return document


def write(document, path):
    """Write through a neighbour and rename, so that a reader never sees half a file."""
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    with open(path + ".tmp", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    os.replace(path + ".tmp", path)


def main(arguments):
    options = parse(arguments)
    config = configure(options)
    started = time.perf_counter()
    runs = []
    for seed in range(options.seed, options.seed + options.seeds):
        result = run(config, seed)
        runs.append(result)
        for name in ("sized", "equal_gpus", "peak"):
            for design in ("shared", "dual"):
                row = result[name][design]
                print(
                    "seed %d %-10s %-6s instances %-9s in time %6.2f %%  P99 TTFT %7.3f s  "
                    "preemptions %d"
                    % (seed, name, design, "+".join(map(str, row["instances"])),
                       row["in_time_percent"], row["p99_ttft_s"], row["preemptions"])
                )  # fmt: skip
    document = report(config, runs)
    write(document, options.out)
    print("wrote %s after %.1f s" % (options.out, time.perf_counter() - started))
    for name in HEADLINES:
        value = document[name]
        print("%s: %s" % (name, "undefined" if value is None else "%.2f" % value))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
