"""Write golden.json: logits of small random models, computed by transformers.

The weights are a function of their name alone, which the Go test repeats, so
that no weights are stored. Run once, with the versions that golden.json names:

    python golden.py > golden.json

Each model is computed in float32 and in BF16, and with weights and inputs of
its linear layers rounded as FP8 and NVFP4 prescribe (in float32, by a second,
independent implementation of the formats).
"""
import json
import sys

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM

MASK = np.uint64(0xFFFFFFFFFFFFFFFF)


def name_seed(name):
    h = 0xCBF29CE484222325  # FNV-1a
    for c in name.encode():
        h = ((h ^ c) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def values(name, n, spread, middle):
    """n values, bell-shaped around middle, by SplitMix64 from the name."""
    with np.errstate(over="ignore"):
        z = np.uint64(name_seed(name)) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    parts = [((z >> np.uint64(s)) & np.uint64(0xFFFF)).astype(np.float64) for s in (0, 16, 32, 48)]
    unit = (parts[0] + parts[1] + parts[2] + parts[3]) / 2.0**18
    return ((unit - 0.5) * 2 * spread + middle).astype(np.float32)


MODELS = {
    "llama": dict(
        model_type="llama", hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=160, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    ),
    "qwen2": dict(
        model_type="qwen2", hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, vocab_size=160, max_position_embeddings=128, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="linear", rope_theta=1000000.0, factor=2.0),
    ),
    "qwen3": dict(
        model_type="qwen3", hidden_size=96, intermediate_size=128, num_hidden_layers=2, num_attention_heads=6, head_dim=32,
        num_key_value_heads=2, vocab_size=160, max_position_embeddings=128, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
    ),
}
TOKENS = [(i * i * 7 + 3 * i + 11) % 160 for i in range(40)]
KEEP = [0, 7, 39]  # positions whose logits are kept


def build(name, dtype):
    spec = dict(MODELS[name])
    config = transformers.AutoConfig.for_model(**spec)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    state = {}
    for key, t in model.state_dict().items():
        if key == "lm_head.weight" and spec["tie_word_embeddings"]:
            continue
        if "norm" in key:
            v = values(name + "/" + key, t.numel(), 0.5, 1.0)
        elif t.dim() == 1:
            v = values(name + "/" + key, t.numel(), 0.3, 0.0)
        else:
            v = values(name + "/" + key, t.numel(), 3.4 / t.shape[-1] ** 0.5, 0.0)
        state[key] = torch.from_numpy(v).reshape(t.shape).to(torch.bfloat16).to(dtype)
    model = model.to(dtype)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and all(m == "lm_head.weight" for m in missing), (missing, unexpected)
    # Tables of rotations are kept in float32, as loading a checkpoint leaves them.
    for m in model.modules():
        if hasattr(m, "inv_freq") and hasattr(m, "original_inv_freq"):
            fresh = type(m)(config)
            m.inv_freq, m.original_inv_freq = fresh.inv_freq.float(), fresh.original_inv_freq.float()
    return model


E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
E2M1_MIDDLE = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])


def e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).to(torch.float32)


def e2m1(x):
    a = x.abs()
    at = torch.bucketize(a, E2M1_MIDDLE, right=False)  # a tie goes down
    up = torch.bucketize(a, E2M1_MIDDLE, right=True)  # a tie goes up
    at = torch.where(at % 2 == 0, at, up)  # to the even code
    return E2M1[at] * torch.sign(x)


def nvfp4(x, scale):
    """Values of x as NVFP4 with a global scale."""
    blocks = x.reshape(*x.shape[:-1], -1, 16)
    block_scale = blocks.abs().amax(-1, keepdim=True) / 6 / scale
    block_scale = e4m3(torch.where(block_scale == 0, torch.ones_like(block_scale), block_scale))
    back = block_scale * scale
    q = torch.where(back == 0, torch.zeros_like(blocks), e2m1(blocks / torch.where(back == 0, torch.ones_like(back), back)))
    return (q * back).reshape(x.shape)


def fp8(x, scale):
    return e4m3(x / scale) * scale


GROUPS = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "up", "up_proj": "up"}


def quantised(name, scheme):
    model = build(name, torch.float32)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"}
    inputs = {}
    hooks = [m.register_forward_pre_hook(lambda _, a, n=n: inputs.__setitem__(n, a[0].abs().amax().item())) for n, m in linears.items()]
    model(torch.tensor([TOKENS]))
    for h in hooks:
        h.remove()
    most = {}  # weights that an engine fuses share a global scale
    for n, m in linears.items():
        head, _, leaf = n.rpartition(".")
        key = head + "." + GROUPS.get(leaf, leaf)
        most[key] = max(most.get(key, 0.0), m.weight.abs().amax().item())
    scales = {}
    for n, m in linears.items():
        head, _, leaf = n.rpartition(".")
        amax = most[head + "." + GROUPS.get(leaf, leaf)]
        f32 = lambda v: torch.tensor(v, dtype=torch.float32)
        if scheme == "fp8":
            m.weight.data = fp8(m.weight.data, f32(amax) / 448)
            scale = f32(inputs[n]) / 448
            m.register_forward_pre_hook(lambda _, a, s=scale: (fp8(a[0], s),))
        else:
            m.weight.data = nvfp4(m.weight.data, f32(amax) / 2688)
            scale = f32(inputs[n]) / 2688
            if scheme == "nvfp4-w4a4":
                m.register_forward_pre_hook(lambda _, a, s=scale: (nvfp4(a[0], s),))
        scales[n] = scale.item()
    return model, scales


def logits(model):
    with torch.no_grad():
        out = model(torch.tensor([TOKENS])).logits[0].float()
    return [[float(f"{v:.6g}") for v in out[p].tolist()] for p in KEEP]


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    doc = {"torch": torch.__version__, "transformers": transformers.__version__, "tokens": TOKENS, "positions": KEEP, "models": {}}
    for name in MODELS:
        entry = {"config": json.loads(build(name, torch.float32).config.to_json_string(use_diff=False))}
        entry["config"] = {k: v for k, v in entry["config"].items() if k in MODELS[name] or k in ("hidden_act", "attention_bias", "mlp_bias", "head_dim", "use_sliding_window", "sliding_window", "layer_types")}
        entry["config"]["architectures"] = [type(build(name, torch.float32)).__name__]
        entry["config"]["dtype"] = "bfloat16"
        entry["float32"] = logits(build(name, torch.float32))
        entry["bfloat16"] = logits(build(name, torch.bfloat16))
        eager = build(name, torch.bfloat16)
        eager.set_attn_implementation("eager")
        entry["bfloat16_eager"] = logits(eager)
        for scheme in ("fp8", "nvfp4", "nvfp4-w4a4"):
            model, scales = quantised(name, scheme)
            entry[scheme] = logits(model)
            entry.setdefault("input_scales", {})[scheme] = scales
        doc["models"][name] = entry
    json.dump(doc, sys.stdout, separators=(",", ":"))
    print()


main()
