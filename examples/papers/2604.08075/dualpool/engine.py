"""One serving engine: continuous batching over a paged KV cache.

The schedule follows vLLM's: running sequences decode first, then one prompt at a time is
prefilled in chunks within the step's token budget, first come first served. A sequence
takes KV blocks as it grows. When none is left, the youngest running sequence is
preempted: its blocks are freed and it is computed again from its beginning later.

All decoding sequences grow by one token a step, so the engine keeps sums instead of
walking over them, and a stretch of steps without arrivals, prefills or completions is
taken in one jump. The cost of a step does not depend on the batch size.
"""

import heapq
import math
from collections import deque


class Job:
    """A request inside an engine."""

    __slots__ = (
        "arrival", "prompt", "output", "target", "generated", "first_token", "finish",
        "epoch", "start_step", "start_generated", "prefilled", "to_prefill", "blocks",
    )  # fmt: skip

    def __init__(self, arrival, prompt, output, target):
        self.arrival = arrival
        self.prompt = prompt
        self.output = output
        self.target = target  # seconds until the first token that the objective allows
        self.generated = 0
        self.first_token = None
        self.finish = None
        self.epoch = 0  # counts admissions; marks stale entries of heap and stack
        self.start_step = 0
        self.start_generated = 0
        self.prefilled = 0
        self.to_prefill = prompt
        self.blocks = 0

    @property
    def ttft(self):
        return self.first_token - self.arrival


class Engine:
    """Simulates one instance with at most `slots` running sequences."""

    def __init__(self, instance, slots, step_tokens):
        self.time = instance.coefficients()
        self.per_token = max(self.time.kv_read, self.time.attention)
        self.block_tokens = instance.block_tokens
        self.free = instance.kv_blocks
        self.slots = slots
        self.step_tokens = step_tokens
        self.now = 0.0
        self.step = 0
        self.waiting = deque()
        self.partial = None  # the one sequence whose prompt is being prefilled
        self.running = 0  # sequences that hold blocks
        self.decoding = 0  # those of them that decode
        self.context = 0  # KV tokens of those sequences
        self.phase = [0] * self.block_tokens  # [step mod block]: sequences that need a block
        self.finishing = []  # heap of (step, order, epoch, job)
        self.stack = []  # (epoch, job) by admission; the last one is preempted first
        self.order = 0
        self.preemptions = 0
        self.queued_tokens = 0  # prompt tokens still to be prefilled
        self.on_first_token = None  # called with the job at its first token

    @property
    def outstanding(self):
        return len(self.waiting) + self.running

    def submit(self, job):
        self.waiting.append(job)
        self.queued_tokens += job.prompt

    def advance(self, until):
        """Run steps until the clock reaches `until`; the last one may end later."""
        while self.now < until:
            if self.partial is None and not self._can_admit(self.step_tokens - self.decoding):
                if not self.decoding:
                    if until < math.inf:
                        self.now = until
                    return
                if self._jump(until):
                    continue
            self._one_step()

    def quiet_until(self):
        """A time before which `outstanding` cannot change without a submission.

        While it only decodes, that is the next completion; preemption could only delay it.
        """
        if self.partial is not None or self.waiting:
            return self.now
        if not self.decoding:
            return math.inf
        steps = self._next_finish() - self.step
        grown = steps * self.context + self.decoding * steps * (steps + 1) // 2
        return self.now + steps * self.time.of(self.decoding, 0, 0) + self.per_token * grown

    def _blocks(self, tokens):
        return -(-tokens // self.block_tokens)

    def _can_admit(self, room):
        """Whether the first waiting job may start with `room` tokens left in the step."""
        if not self.waiting or self.running >= self.slots or room <= 0:
            return False
        job = self.waiting[0]
        return self._blocks(min(job.prompt + job.generated, room)) <= self.free

    def _next_finish(self):
        heap = self.finishing
        while heap[0][2] != heap[0][3].epoch:
            heapq.heappop(heap)
        return heap[0][0]

    def _jump(self, until):
        """Take many decode-only steps at once; False when blocks may run out."""
        n, size = self.decoding, self.block_tokens
        steps = self._next_finish() - self.step
        base = self.time.of(n, 0, 0)
        per_token = self.per_token
        if until < math.inf:
            # Solve base * x + per_token * (context * x + n * x * (x + 1) / 2) = left for x.
            a = per_token * n / 2
            b = base + per_token * self.context + a
            x = math.ceil((math.sqrt(b * b + 4 * a * (until - self.now)) - b) / (2 * a))
            if x < steps:
                steps = x if x > 1 else 1
        whole, rest = divmod(steps, size)
        if (whole + 1) * n > self.free:
            return False
        blocks = whole * n
        phase, first = self.phase, self.step % size
        for i in range(first, first + rest):
            blocks += phase[i % size]
        self.free -= blocks
        grown = steps * self.context + n * steps * (steps + 1) // 2
        self.context += n * steps
        self._tick(steps * base + per_token * grown, steps)
        return True

    def _tick(self, seconds, steps):
        """Let time pass and retire what has produced its last token."""
        self.now += seconds
        self.step += steps
        heap = self.finishing
        while heap and heap[0][0] <= self.step:
            _, _, epoch, job = heapq.heappop(heap)
            if epoch == job.epoch:
                self._leave_decode(job)
                self._retire(job)

    def _one_step(self):
        preempted = False
        while self.phase[self.step % self.block_tokens] > self.free:
            self._preempt()
            preempted = True
        self.free -= self.phase[self.step % self.block_tokens]
        tokens = self.decoding
        self.context += tokens
        context = pairs = self.context
        room = self.step_tokens - tokens
        done = []
        while room > 0:
            job = self.partial
            if job is None:
                if preempted or not self._can_admit(room):
                    break
                job = self._admit()
            chunk = min(job.to_prefill - job.prefilled, room)
            grow = self._blocks(job.prefilled + chunk) - job.blocks
            if grow > self.free:
                self._preempt()
                break
            self.free -= grow
            job.blocks += grow
            job.prefilled += chunk
            self.queued_tokens -= chunk
            tokens += chunk
            context += job.prefilled
            pairs += chunk * (job.prefilled - chunk / 2)
            room -= chunk
            if job.prefilled == job.to_prefill:
                done.append(job)
                self.partial = None
        if tokens:
            self._tick(self.time.of(tokens, context, pairs), 1)
        for job in done:
            self._first_token(job)

    def _admit(self):
        job = self.waiting.popleft()
        job.epoch += 1
        job.prefilled = job.blocks = 0
        job.to_prefill = job.prompt + job.generated
        self.partial = job
        self.running += 1
        self.stack.append((job.epoch, job))
        return job

    def _first_token(self, job):
        """A finished prefill yields one token; the sequence decodes from then on."""
        job.generated += 1
        if job.first_token is None:
            job.first_token = self.now
            if self.on_first_token is not None:
                self.on_first_token(job)
        left = job.output - job.generated
        if left == 0:
            self.free += job.blocks
            self._retire(job)
            return
        job.start_step = self.step
        job.start_generated = job.generated
        self.decoding += 1
        self.context += job.to_prefill
        self.phase[(self.step - job.to_prefill) % self.block_tokens] += 1
        heapq.heappush(self.finishing, (self.step + left, self.order, job.epoch, job))
        self.order += 1

    def _leave_decode(self, job):
        """Take a decoding sequence out of the sums and free its blocks."""
        grown = self.step - job.start_step
        length = job.to_prefill + grown
        job.generated = job.start_generated + grown
        self.decoding -= 1
        self.context -= length
        self.phase[(job.start_step - job.to_prefill) % self.block_tokens] -= 1
        self.free += self._blocks(length)

    def _retire(self, job):
        job.finish = self.now
        job.epoch += 1
        self.running -= 1

    def _preempt(self):
        """Free the youngest running sequence; it is computed again from its start."""
        while True:
            epoch, job = self.stack.pop()
            if epoch == job.epoch:
                break
        if job is self.partial:
            self.partial = None
            self.free += job.blocks
            self.queued_tokens += job.prefilled
        else:
            self._leave_decode(job)
            self.queued_tokens += job.prompt + job.generated
        job.epoch += 1
        self.running -= 1
        self.preemptions += 1
        self.waiting.appendleft(job)
