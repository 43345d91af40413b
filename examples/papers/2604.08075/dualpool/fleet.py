"""Fleets of engines behind a balancer, and the smallest fleet that keeps the objective."""

import math
from dataclasses import dataclass

from .engine import Engine, Job


@dataclass(frozen=True)
class Pool:
    """How every instance of a pool is configured."""

    name: str
    max_context: int  # tokens, max_model_len
    slots: int  # running sequences at most, max_num_seqs
    step_tokens: int  # tokens per engine step, max_num_batched_tokens
    balancer: str = "requests"  # between its instances: requests|tokens


@dataclass(frozen=True)
class Objective:
    """When a first token is in time: `base + stretch * (time on an idle instance)` seconds.

    A fleet keeps the objective when at least `attainment` of the requests are in time.
    """

    base: float = 2.0
    stretch: float = 2.0
    attainment: float = 0.99


class Outcome:
    """What happened to the requests of one simulated pool."""

    def __init__(self, jobs, engines, complete):
        self.jobs = jobs
        self.complete = complete  # False when the run was cut off as hopeless
        self.preemptions = sum(engine.preemptions for engine in engines)

    def measured(self, start):
        """Jobs that arrived after the warm-up."""
        return [job for job in self.jobs if job.arrival >= start]

    def late(self, start):
        return sum(1 for job in self.measured(start) if job.ttft > job.target)


def simulate(jobs, instance, pool, count, late_limit=None, warmup=0.0):
    """Serve `jobs` on `count` instances of `pool`.

    A job goes to the instance with the fewest outstanding requests, or with the fewest
    prompt tokens still to be computed, as the pool's balancer says. With `late_limit` the
    run stops as soon as more than that many first tokens are late, and the outcome is not
    complete.
    """
    by_tokens = pool.balancer == "tokens"
    engines = [Engine(instance, pool.slots, pool.step_tokens) for _ in range(count)]
    late = 0

    def on_first_token(job):
        nonlocal late
        if job.arrival >= warmup and job.ttft > job.target:
            late += 1

    for engine in engines:
        engine.on_first_token = on_first_token
    loads = [0] * count
    quiet = [math.inf] * count  # no need to look at an engine before this
    for job in jobs:
        now = job.arrival
        for i, until in enumerate(quiet):
            if until <= now:
                engine = engines[i]
                engine.advance(now)
                loads[i] = engine.queued_tokens if by_tokens else engine.outstanding
                quiet[i] = engine.quiet_until()
        i = loads.index(min(loads))
        engine = engines[i]
        engine.advance(now)
        engine.submit(job)
        loads[i] = engine.queued_tokens if by_tokens else engine.outstanding
        quiet[i] = now
        if late_limit is not None and late > late_limit:
            return Outcome(jobs, engines, complete=False)
    for engine in engines:
        engine.advance(math.inf)
    return Outcome(jobs, engines, complete=True)


class Sizer:
    """Finds how many instances a pool needs, remembering what it has simulated."""

    def __init__(self, make_jobs, instance, pool, warmup, allowed):
        self.make_jobs = make_jobs  # fresh jobs for each simulation
        self.instance = instance
        self.pool = pool
        self.warmup = warmup
        self.allowed = allowed  # more late first tokens than this are not told apart
        self.known = {}

    def late(self, count):
        """Late first tokens with `count` instances; infinity where more than allowed."""
        if count not in self.known:
            run = simulate(
                self.make_jobs(), self.instance, self.pool, count, self.allowed, self.warmup
            )
            late = run.late(self.warmup) if run.complete else math.inf
            self.known[count] = late if late <= self.allowed else math.inf
        return self.known[count]

    def smallest(self, allowed, guess):
        """The smallest count with no more than `allowed` late first tokens.

        The search gallops up from `guess`, which costs time but not the answer when wrong.
        """
        low, high = 1, max(1, guess)
        while self.late(high) > allowed:
            low, high = high + 1, math.ceil(high * 1.5)
        while low < high:
            middle = (low + high) // 2
            if self.late(middle) > allowed:
                low = middle + 1
            else:
                high = middle
        return low


def smallest_pair(first, second, allowed, guesses):
    """The smallest sum of two pools' counts whose late first tokens together are allowed."""
    first_low = first.smallest(allowed, guesses[0])
    count = second.smallest(allowed, guesses[1])
    best = None
    while best is None or first_low + count < sum(best):
        other = first.smallest(allowed - second.late(count), first_low)
        if best is None or other + count < sum(best):
            best = (other, count)
        count += 1
    return best
