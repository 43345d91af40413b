"""Token-budget routing: which pool gets a request, decided before tokenisation."""


class TokenBudgetRouter:
    """Sends a request to the short pool when its expected total tokens stay below a threshold.

    The prompt's tokens are estimated from its bytes by a ratio per category, learned
    online as an exponential moving average of what the engine reports in
    `usage.prompt_tokens`. The output's tokens come from a length predictor with error.
    """

    def __init__(self, short_context, margin=0.9, initial_ratio=4.0, decay=0.05):
        self.short_context = short_context
        self.threshold = margin * short_context
        self.initial_ratio = initial_ratio
        self.decay = decay
        self.ratio = {}
        self.bounced = 0
        self.truncated = 0

    def budget(self, request):
        """Expected total tokens of a request."""
        ratio = self.ratio.get(request.category, self.initial_ratio)
        return request.prompt_bytes / ratio + request.output_guess

    def observe(self, request):
        """Learn from the token count that the engine reports."""
        seen = request.prompt_bytes / request.prompt
        old = self.ratio.get(request.category, self.initial_ratio)
        self.ratio[request.category] = old + self.decay * (seen - old)

    def split(self, requests):
        """Two lists of requests: for the short pool and for the long pool.

        A prompt that does not fit the short pool is refused there and bounced to the
        long pool. An output that outgrows the short pool's context is cut off there, as
        an engine does at its maximal length.
        """
        short, long = [], []
        for request in requests:
            fits = self.budget(request) <= self.threshold
            self.observe(request)
            if fits and request.prompt >= self.short_context:
                self.bounced += 1
                fits = False
            if not fits:
                long.append(request)
                continue
            if request.prompt + request.output > self.short_context:
                self.truncated += 1
            short.append(request)
        return short, long
