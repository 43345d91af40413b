"""Open-loop traffic: Poisson arrivals of a heavy-tailed mixture of requests."""

import math
import random
from dataclasses import dataclass

MAX_CONTEXT = 65536


@dataclass(frozen=True)
class Category:
    """One kind of traffic. Lengths are log-normal; sigma is that of the logarithm."""

    name: str
    share: float
    prompt_median: float
    prompt_sigma: float
    output_median: float
    output_sigma: float
    bytes_per_token: float  # mean over the category
    bytes_sigma: float  # spread between its requests


CATEGORIES = (
    Category("chat", 0.72, 220, 1.0, 180, 0.8, 4.4, 0.10),
    Category("code_rag", 0.20, 2400, 0.7, 60, 1.0, 3.3, 0.10),
    Category("long_document", 0.08, 16000, 0.6, 350, 0.8, 4.0, 0.10),
)


class Request:
    """A request as it arrives. `prompt` and `output` are token counts."""

    __slots__ = ("arrival", "category", "prompt", "output", "prompt_bytes", "output_guess", "target")

    def __init__(self, arrival, category, prompt, output, prompt_bytes, output_guess):
        self.arrival = arrival
        self.category = category
        self.prompt = prompt
        self.output = output
        self.prompt_bytes = prompt_bytes
        self.output_guess = output_guess
        self.target = math.inf  # seconds until the first token that the objective allows


class Draw:
    """Random variates from Random.random() alone.

    That method's sequence is the only one Python promises to keep between versions, so
    the same seed gives the same traffic on every interpreter.
    """

    def __init__(self, seed):
        self._uniform = random.Random(seed).random

    def uniform(self):
        return self._uniform()

    def exponential(self, rate):
        return -math.log(1.0 - self._uniform()) / rate

    def normal(self):
        radius = math.sqrt(-2.0 * math.log(1.0 - self._uniform()))
        return radius * math.cos(2.0 * math.pi * self._uniform())

    def lognormal(self, median, sigma):
        return median * math.exp(sigma * self.normal())


def generate(seed, rate, duration, output_error, categories=CATEGORIES):
    """Requests that arrive within `duration` seconds at `rate` per second, in order.

    `output_error` is the log-scale error of the guess of the output length.
    """
    draw = Draw(seed)
    requests, now = [], 0.0
    while True:
        now += draw.exponential(rate)
        if now >= duration:
            return requests
        pick, category = draw.uniform(), categories[-1]
        for candidate in categories:
            if pick < candidate.share:
                category = candidate
                break
            pick -= candidate.share
        prompt = max(8, round(draw.lognormal(category.prompt_median, category.prompt_sigma)))
        output = max(1, round(draw.lognormal(category.output_median, category.output_sigma)))
        prompt = min(prompt, MAX_CONTEXT - 1024)
        output = min(output, MAX_CONTEXT - prompt)
        size = round(prompt * draw.lognormal(category.bytes_per_token, category.bytes_sigma))
        guess = max(1, round(output * draw.lognormal(1.0, output_error)))
        requests.append(Request(now, category.name, prompt, output, size, guess))
