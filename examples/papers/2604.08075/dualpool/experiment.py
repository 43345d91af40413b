"""The comparison: one shared pool against two pools, on the same traffic."""

import math
from dataclasses import dataclass, field

from .engine import Job
from .fleet import Objective, Pool, Sizer, simulate, smallest_pair
from .hardware import Instance
from .router import TokenBudgetRouter
from .workload import MAX_CONTEXT, generate


@dataclass(frozen=True)
class Config:
    """Everything the experiment assumes; the README says where each value comes from."""

    rate: float = 12.0  # requests per second
    duration: float = 600.0  # seconds of arrivals
    warmup: float = 60.0  # arrivals before this are served but not counted
    short_context: int = 8192
    long_context: int = MAX_CONTEXT
    overcommit: float = 4.0  # slots x max_context over the KV cache; 0 leaves only max_slots
    max_slots: int = 256
    step_tokens: int = 2048
    balancer: str = "requests"
    output_error: float = 0.5
    peak: float = 1.5  # traffic of the preemption test over the traffic sized for
    objective: Objective = Objective()
    instance: Instance = field(default_factory=Instance)

    def pool(self, name, context):
        slots = self.max_slots
        if self.overcommit > 0:
            granted = int(self.overcommit * self.instance.kv_tokens / context)
            slots = max(1, min(slots, granted))
        return Pool(name, context, slots, self.step_tokens, self.balancer)


class Traffic:
    """One seed's requests and the way the router splits them."""

    def __init__(self, config, seed, rate):
        self.requests = generate(seed, rate, config.duration, config.output_error)
        time, objective = config.instance.coefficients(), config.objective
        for request in self.requests:
            alone = time.unloaded_ttft(request.prompt, config.step_tokens)
            request.target = objective.base + objective.stretch * alone
        router = TokenBudgetRouter(config.short_context)
        self.short, self.long = router.split(self.requests)
        self.router = router
        self.measured = sum(1 for request in self.requests if request.arrival >= config.warmup)

    def guess(self, requests, config):
        """Instances that the requests' prompts keep busy, a starting point for the search."""
        o = config.objective
        busy = math.fsum((r.target - o.base) / o.stretch for r in requests)
        return max(1, math.ceil(busy / config.duration))


def make_jobs(requests, context):
    """Fresh jobs; outputs are cut off where they would outgrow the context."""
    return [
        Job(r.arrival, r.prompt, max(1, min(r.output, context - r.prompt)), r.target)
        for r in requests
    ]


def percentile(values, q):
    """The q-quantile by linear interpolation between order statistics; None when empty."""
    if not values:
        return None
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def scale_pair(pair, total):
    """A fleet of `total` instances divided between two pools as `pair` divides its own."""
    first = min(max(1, round(total * pair[0] / sum(pair))), total - 1)
    return first, total - first


def serve(config, traffic, counts):
    """Outcomes of a fleet: one count is the shared pool, two are short and long."""
    if len(counts) == 1:
        parts = [(traffic.requests, config.pool("shared", config.long_context), counts[0])]
    else:
        parts = [
            (traffic.short, config.pool("short", config.short_context), counts[0]),
            (traffic.long, config.pool("long", config.long_context), counts[1]),
        ]
    return [
        simulate(make_jobs(requests, pool.max_context), config.instance, pool, count)
        for requests, pool, count in parts
    ]


def summarize(config, outcomes, counts):
    """Numbers of one fleet under one traffic."""
    jobs = [job for outcome in outcomes for job in outcome.measured(config.warmup)]
    ttft = [job.ttft for job in jobs]
    tpot = [
        (job.finish - job.first_token) / (job.output - 1) for job in jobs if job.output > 1
    ]
    preemptions = sum(outcome.preemptions for outcome in outcomes)
    served = sum(len(outcome.jobs) for outcome in outcomes)
    return {
        "instances": list(counts),
        "gpus": sum(counts) * config.instance.gpus,
        "in_time_percent": 100 * sum(j.ttft <= j.target for j in jobs) / len(jobs),
        "p50_ttft_s": percentile(ttft, 0.5),
        "p99_ttft_s": percentile(ttft, 0.99),
        "p50_tpot_s": percentile(tpot, 0.5),
        "preemptions": preemptions,
        "preemptions_per_1000_requests": 1000 * preemptions / served,
    }


def run(config, seed):
    """All results of one seed, as a dict for JSON."""
    traffic = Traffic(config, seed, config.rate)
    allowed = math.floor((1 - config.objective.attainment) * traffic.measured)

    def sizer(requests, name, context):
        pool = config.pool(name, context)
        return Sizer(
            lambda: make_jobs(requests, context), config.instance, pool, config.warmup, allowed
        )

    shared = sizer(traffic.requests, "shared", config.long_context)
    short = sizer(traffic.short, "short", config.short_context)
    long = sizer(traffic.long, "long", config.long_context)
    guesses = traffic.guess(traffic.short, config), traffic.guess(traffic.long, config)
    dual_counts = smallest_pair(short, long, allowed, guesses)
    shared_count = shared.smallest(allowed, sum(guesses))

    sized_shared = summarize(config, serve(config, traffic, [shared_count]), [shared_count])
    sized_dual = summarize(config, serve(config, traffic, dual_counts), dual_counts)

    # The same GPUs for both: as many as the more demanding design needs.
    total = max(shared_count, sum(dual_counts))
    equal = scale_pair(dual_counts, total)
    equal_shared = summarize(config, serve(config, traffic, [total]), [total])
    equal_dual = summarize(config, serve(config, traffic, equal), equal)

    # A peak that both meet with the GPUs that suffice for the less demanding design.
    peak = Traffic(config, seed, config.rate * config.peak)
    few = min(shared_count, sum(dual_counts))
    peak_counts = scale_pair(dual_counts, few)
    peak_shared = summarize(config, serve(config, peak, [few]), [few])
    peak_dual = summarize(config, serve(config, peak, peak_counts), peak_counts)

    hours = config.duration / 3600
    return {
        "seed": seed,
        "requests": len(traffic.requests),
        "short_requests_percent": 100 * len(traffic.short) / len(traffic.requests),
        "bounced_requests": traffic.router.bounced,
        "truncated_outputs": traffic.router.truncated,
        "shared_gpu_hours": sized_shared["gpus"] * hours,
        "dual_gpu_hours": sized_dual["gpus"] * hours,
        "gpu_time_reduction_percent": 100 * (1 - sized_dual["gpus"] / sized_shared["gpus"]),
        "p99_ttft_improvement_percent": 100
        * (1 - equal_dual["p99_ttft_s"] / equal_shared["p99_ttft_s"]),
        "preemption_ratio": ratio(peak_shared["preemptions"], peak_dual["preemptions"]),
        "sized": {"shared": sized_shared, "dual": sized_dual},
        "equal_gpus": {"shared": equal_shared, "dual": equal_dual},
        "peak": {"shared": peak_shared, "dual": peak_dual},
    }


def ratio(shared, dual):
    """How many times fewer; None where the second is zero and there is no such number."""
    return shared / dual if dual else None
