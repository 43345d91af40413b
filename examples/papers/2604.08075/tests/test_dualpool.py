"""Run with: python -m unittest"""

import dataclasses
import hashlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import unittest

from dualpool.engine import Engine, Job
from dualpool.experiment import Config, Traffic, make_jobs, percentile, run, scale_pair
from dualpool.fleet import Pool, Sizer, simulate, smallest_pair
from dualpool.hardware import GIB, Instance
from dualpool.router import TokenBudgetRouter
from dualpool.workload import CATEGORIES, Request, generate

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class PlainEngine:
    """The same schedule, written the slow way: every sequence on its own, step by step.

    It shares no code with Engine but the step time, and is what Engine is checked against.
    """

    def __init__(self, instance, slots, step_tokens):
        self.time, self.size = instance.coefficients(), instance.block_tokens
        self.total, self.slots, self.step_tokens = instance.kv_blocks, slots, step_tokens

    def blocks(self, tokens):
        return math.ceil(tokens / self.size)

    def serve(self, arrivals):
        """Serve (arrival, prompt, output) and return (first token, finish) per request."""
        waiting, running, now, following, preemptions = [], [], 0.0, 0, 0
        state = [
            {"i": i, "kv": 0, "want": p, "made": 0, "output": o, "first": None, "finish": None, "prompt": p}
            for i, (_, p, o) in enumerate(arrivals)
        ]  # fmt: skip
        while following < len(arrivals) or waiting or running:
            if not waiting and not running:
                now = max(now, arrivals[following][0])
            while following < len(arrivals) and arrivals[following][0] <= now:
                waiting.append(state[following])
                following += 1

            def used():
                return sum(self.blocks(s["kv"]) for s in running)

            def evict():
                victim = running.pop()
                victim["kv"], victim["want"] = 0, victim["prompt"] + victim["made"]
                waiting.insert(0, victim)

            evicted = False
            decode = lambda: [s for s in running if s["kv"] >= s["want"]]  # noqa: E731
            while used() + sum(s["kv"] % self.size == 0 for s in decode()) > self.total:
                evict()
                preemptions, evicted = preemptions + 1, True
            step = decode()
            for s in step:
                s["kv"] += 1
            tokens = len(step)
            context = pairs = sum(s["kv"] for s in step)
            room, prefilled = self.step_tokens - tokens, []
            while room > 0:
                part = [s for s in running if s["kv"] < s["want"]]
                if part:
                    s = part[0]
                elif waiting and not evicted and len(running) < self.slots:
                    s = waiting[0]
                    s["want"] = s["prompt"] + s["made"]
                    if self.blocks(min(s["want"], room)) + used() > self.total:
                        break
                    running.append(waiting.pop(0))
                else:
                    break
                chunk = min(room, s["want"] - s["kv"])
                if used() - self.blocks(s["kv"]) + self.blocks(s["kv"] + chunk) > self.total:
                    evict()
                    preemptions += 1
                    break
                s["kv"] += chunk
                tokens, context, room = tokens + chunk, context + s["kv"], room - chunk
                pairs += chunk * (s["kv"] - chunk / 2)
                if s["kv"] == s["want"]:
                    prefilled.append(s)
            if tokens == 0:
                continue
            now += self.time.of(tokens, context, pairs)
            for s in step + prefilled:
                s["made"] += 1
                if s["first"] is None:
                    s["first"] = now
                if s["made"] == s["output"]:
                    s["finish"] = now
                    running.remove(s)
                # The token just made is not in the cache; the next step writes it.
                s["want"] = s["kv"] if s["finish"] is None else s["want"]
        return [(s["first"], s["finish"]) for s in state], preemptions


def small_instance(blocks):
    """An instance with room for about `blocks` KV blocks."""
    base = Instance()
    per_block = base.model.kv_bytes_per_token * base.block_tokens
    need = base.model.weight_bytes + blocks * per_block
    memory = (need / base.gpus + base.reserved_per_gpu) / base.memory_utilization
    return dataclasses.replace(base, gpu_memory=memory + 1)


class EngineTest(unittest.TestCase):
    def check(self, seed, blocks, slots, step_tokens, count, rate):
        draw = random.Random(seed)
        now, arrivals = 0.0, []
        for _ in range(count):
            now += -math.log(1 - draw.random()) / rate
            arrivals.append((now, 1 + int(draw.random() * 500), 1 + int(draw.random() * 120)))
        instance = small_instance(blocks)
        expected, preemptions = PlainEngine(instance, slots, step_tokens).serve(arrivals)
        engine = Engine(instance, slots, step_tokens)
        jobs = [Job(a, p, o, 1.0) for a, p, o in arrivals]
        for job in jobs:
            engine.advance(job.arrival)
            engine.submit(job)
        engine.advance(math.inf)
        for job, (first, finish) in zip(jobs, expected):
            self.assertAlmostEqual(job.first_token, first, places=6)
            self.assertAlmostEqual(job.finish, finish, places=6)
        self.assertEqual(engine.preemptions, preemptions)
        self.assertEqual(engine.free, instance.kv_blocks)
        self.assertEqual((engine.context, engine.decoding, engine.running), (0, 0, 0))
        self.assertEqual(engine.queued_tokens, 0)
        self.assertEqual(sum(map(abs, engine.phase)), 0)
        return preemptions

    def test_agrees_with_the_plain_engine(self):
        preemptions = 0
        for seed in range(25):
            preemptions += self.check(seed, 60 + 7 * seed, 3 + seed % 9, 64 + 40 * (seed % 5), 60, 3.0)
        self.assertGreater(preemptions, 20)  # or the hard part was never reached

    def test_one_request_alone(self):
        instance = Instance()
        job = Job(0.0, 5000, 3, 1.0)
        engine = Engine(instance, 4, 2048)
        engine.submit(job)
        engine.advance(math.inf)
        time = instance.coefficients()
        alone = time.unloaded_ttft(5000, 2048)
        self.assertAlmostEqual(job.first_token, alone)
        self.assertAlmostEqual(job.finish, alone + time.of(1, 5001, 5001) + time.of(1, 5002, 5002))


class HardwareTest(unittest.TestCase):
    def test_known_sizes(self):
        instance = Instance()
        self.assertEqual(instance.model.kv_bytes_per_token, 327680)
        usable = 4 * (72 * GIB - 3 * GIB) - 141.2e9
        self.assertAlmostEqual(instance.kv_tokens, usable / 327680, delta=16)
        self.assertAlmostEqual(instance.coefficients().weights, 141.2e9 / (4 * 2.039e12 * 0.8))


class WorkloadTest(unittest.TestCase):
    def test_same_on_every_interpreter(self):
        text = ";".join(
            "%.6f,%d,%d,%d" % (r.arrival, r.prompt, r.output, r.output_guess)
            for r in generate(7, 5.0, 100.0, 0.5)
        )
        self.assertEqual(hashlib.sha256(text.encode()).hexdigest()[:16], "1361a2827814ff68")

    def test_shares_of_lengths(self):
        requests = generate(1, 100.0, 200.0, 0.5)
        total = [r.prompt + r.output for r in requests]
        self.assertAlmostEqual(sum(t <= 2048 for t in total) / len(total), 0.80, delta=0.03)
        self.assertAlmostEqual(sum(t <= 8192 for t in total) / len(total), 0.92, delta=0.01)
        self.assertLessEqual(max(total), 65536)
        self.assertAlmostEqual(sum(c.share for c in CATEGORIES), 1.0)

    def test_poisson_arrivals(self):
        requests = generate(3, 50.0, 400.0, 0.5)
        gaps = [b.arrival - a.arrival for a, b in zip(requests, requests[1:])]
        mean = math.fsum(gaps) / len(gaps)
        variance = math.fsum((g - mean) ** 2 for g in gaps) / len(gaps)
        self.assertAlmostEqual(mean, 1 / 50, delta=0.0005)
        self.assertAlmostEqual(math.sqrt(variance) / mean, 1.0, delta=0.03)


class RouterTest(unittest.TestCase):
    def test_learns_the_ratio(self):
        router = TokenBudgetRouter(8192)
        for _ in range(200):
            router.split([Request(0.0, "code", 1000, 10, 3000, 10)])
        self.assertAlmostEqual(router.ratio["code"], 3.0, delta=0.01)

    def test_bounce_and_truncation(self):
        router = TokenBudgetRouter(1000)
        fits = Request(0.0, "a", 100, 100, 400, 100)
        too_long = Request(0.0, "a", 2000, 10, 2000, 10)  # looks like 500 tokens
        outgrows = Request(0.0, "a", 500, 900, 500, 1)
        short, long = router.split([fits, too_long, outgrows])
        self.assertEqual((short, long), ([fits, outgrows], [too_long]))
        self.assertEqual((router.bounced, router.truncated), (1, 1))
        self.assertEqual([j.output for j in make_jobs(short, 1000)], [100, 500])


class FleetTest(unittest.TestCase):
    def test_smallest_is_smallest(self):
        config = dataclasses.replace(Config(), rate=3.0, duration=60.0, warmup=0.0)
        traffic = Traffic(config, 5, config.rate)
        pool = config.pool("shared", config.long_context)
        jobs = lambda: make_jobs(traffic.requests, config.long_context)  # noqa: E731
        for guess in (1, 7, 40):
            found = Sizer(jobs, config.instance, pool, 0.0, 3).smallest(3, guess)
            self.assertLessEqual(simulate(jobs(), config.instance, pool, found).late(0.0), 3)
            self.assertGreater(simulate(jobs(), config.instance, pool, found - 1).late(0.0), 3)

    def test_pair_shares_the_allowance(self):
        class Table(Sizer):
            def __init__(self, known):
                self.known = dict(enumerate(known))

        first = Table([99, 9, 4, 2, 0, 0, 0, 0])
        second = Table([99, 50, 10, 8, 3, 0, 0, 0])
        best = smallest_pair(first, second, 10, (1, 1))
        sums = [
            a + b for a in range(1, 8) for b in range(1, 8)
            if first.known[a] + second.known[b] <= 10
        ]  # fmt: skip
        self.assertEqual(sum(best), min(sums))

    def test_slots_follow_the_context(self):
        config = Config()
        self.assertEqual(config.pool("short", 8192).slots, 231)
        self.assertEqual(config.pool("long", 65536).slots, 28)
        free = dataclasses.replace(config, overcommit=0.0)
        self.assertEqual(free.pool("long", 65536).slots, 256)
        self.assertEqual(config.pool("x", 1).slots, 256)

    def test_helpers(self):
        self.assertEqual(percentile([3.0, 1.0, 2.0], 0.5), 2.0)
        self.assertEqual(percentile([0.0, 10.0], 0.99), 9.9)
        self.assertIsNone(percentile([], 0.5))
        self.assertEqual(scale_pair((1, 3), 8), (2, 6))
        self.assertEqual(scale_pair((1, 30), 4), (1, 3))


class CommandTest(unittest.TestCase):
    def test_quick_run_is_reproducible(self):
        documents = []
        with tempfile.TemporaryDirectory() as folder:
            for name in ("a.json", "b.json"):
                path = os.path.join(folder, "deep", name)
                done = subprocess.run(
                    [sys.executable, "simulate.py", "--quick", "--out", path],
                    cwd=ROOT, check=True, stdout=subprocess.PIPE, universal_newlines=True,
                )  # fmt: skip
                self.assertIn("\ngpu_time_reduction_percent: ", done.stdout)
                with open(path, encoding="utf-8") as file:
                    documents.append(json.load(file))
            self.assertEqual(sorted(os.listdir(os.path.dirname(path))), ["a.json", "b.json"])
        self.assertEqual(documents[0], documents[1])
        self.assertTrue(documents[0]["simulated"])

    def test_seeds_differ(self):
        config = dataclasses.replace(Config(), rate=3.0, duration=60.0, warmup=6.0)
        self.assertNotEqual(run(config, 1)["sized"], run(config, 2)["sized"])


if __name__ == "__main__":
    unittest.main()
