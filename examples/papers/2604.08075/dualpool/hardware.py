"""What one serving instance can do: memory, bandwidth, compute, time per step."""

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Model:
    """A dense decoder with grouped-query attention. Defaults: Llama-3-70B in BF16."""

    layers: int = 80
    hidden: int = 8192  # query heads x head size
    kv_heads: int = 8
    head_size: int = 128
    parameters: float = 70.6e9
    bytes_per_value: int = 2

    @property
    def weight_bytes(self):
        return self.parameters * self.bytes_per_value

    @property
    def kv_bytes_per_token(self):
        return 2 * self.layers * self.kv_heads * self.head_size * self.bytes_per_value


@dataclass(frozen=True)
class Instance:
    """One model replica on `gpus` GPUs with tensor parallelism. Defaults: 4 x A100 80 GB."""

    model: Model = Model()
    gpus: int = 4
    gpu_memory: float = 80 * GIB
    memory_utilization: float = 0.9
    reserved_per_gpu: float = 3 * GIB  # activations, CUDA graphs, communication buffers
    bandwidth: float = 2.039e12  # bytes/s per GPU
    bandwidth_efficiency: float = 0.8
    flops: float = 312e12  # dense BF16 per GPU
    flops_efficiency: float = 0.5
    overhead_per_layer: float = 65e-6  # s per layer and step: launches and all-reduces
    block_tokens: int = 16

    @property
    def kv_blocks(self):
        usable = self.gpus * (self.gpu_memory * self.memory_utilization - self.reserved_per_gpu)
        tokens = (usable - self.model.weight_bytes) / self.model.kv_bytes_per_token
        return int(tokens // self.block_tokens)

    @property
    def kv_tokens(self):
        return self.kv_blocks * self.block_tokens

    def coefficients(self):
        """Constants of the step time, in seconds.

        A step that handles `n` tokens, reads `c` context tokens from the KV cache and
        computes `p` query-key pairs takes

            overhead + max(n * gemm, weights) + max(c * kv_read, p * attention)
        """
        m = self.model
        compute = self.gpus * self.flops * self.flops_efficiency
        memory = self.gpus * self.bandwidth * self.bandwidth_efficiency
        return StepTime(
            overhead=self.overhead_per_layer * m.layers,
            gemm=2 * m.parameters / compute,
            weights=m.weight_bytes / memory,
            kv_read=m.kv_bytes_per_token / memory,
            attention=4 * m.layers * m.hidden / compute,
        )


@dataclass(frozen=True)
class StepTime:
    """Coefficients of the time of one engine step; see Instance.coefficients."""

    overhead: float
    gemm: float
    weights: float
    kv_read: float
    attention: float

    def of(self, tokens, context, pairs):
        """Seconds of a step with `tokens` tokens, `context` tokens read, `pairs` computed."""
        return (
            self.overhead
            + max(tokens * self.gemm, self.weights)
            + max(context * self.kv_read, pairs * self.attention)
        )

    def unloaded_ttft(self, prompt, chunk):
        """Seconds to the first token of a prompt that has an idle instance to itself."""
        seconds, done = 0.0, 0
        while done < prompt:
            n = min(chunk, prompt - done)
            seconds += self.of(n, done + n, n * (done + n / 2))
            done += n
        return seconds
