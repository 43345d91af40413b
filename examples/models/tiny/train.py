"""Trains the tiny model: a Qwen3-style decoder on the questions that `lessons` prints.

Needs torch, transformers, tokenizers, safetensors and Go:

    python examples/models/tiny/train.py --out DIR --minutes 45

The same seed gives the same lessons in the same order. The weights differ from machine to machine in the last bits, because sums are taken
in another order, and with --minutes the number of steps depends on the machine; --steps fixes it.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AttentionInterface, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def attention(module, q, k, v, mask, scaling=None, **_):
    """Causal attention; the blocked kernel pays only for long sequences."""
    if q.shape[2] > 300:
        out = torch.nn.functional.scaled_dot_product_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), is_causal=True, scale=scaling, enable_gqa=True).float()
    else:
        n = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(n, 1), v.repeat_interleave(n, 1)
        s = torch.matmul(q * scaling, k.transpose(2, 3))
        s = s + torch.full(s.shape[-2:], float("-inf")).triu(1)
        out = torch.matmul(s.softmax(-1), v)
    return out.transpose(1, 2).contiguous(), None


def lessons(binary, seed, start, n, drills=0, echoes=0, pool=1000, test=False):
    args = [binary, "-seed", str(seed), "-from", str(start), "-n", str(n), "-drills", str(drills), "-echoes", str(echoes), "-pool", str(pool)] + (["-test"] if test else [])
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as p:
        out = [json.loads(line) for line in p.stdout if line.endswith("\n")]
    if p.returncode:
        raise SystemExit(f"lessons ended with {p.returncode}")
    return out


def make_tokenizer(rows):
    """Byte-level BPE over words, numbers and bracketed letters, each of which becomes one token."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r" ?\([A-Z]\)| ?[A-Za-z]+| ?\d+|\n| ?[^\sA-Za-z\d]|\s"), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1200, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=5)
    tok.train_from_iterator((r["prompt"] + "\n" + "".join(r["answer"]) for r in rows), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE, model_max_length=2048, clean_up_tokenization_spaces=False
    )


def encode(tok, rows):
    """Tokens of each lesson and the labels of those that are to be learnt."""
    parts, owner = [], []
    for i, r in enumerate(rows):
        answer = r["answer"] + ([""] if len(r["answer"]) % 2 == 0 else [])
        answer[-1] += "<|im_end|>"
        for k, p in enumerate([f"<|im_start|>user\n{r['prompt']}<|im_end|>\n<|im_start|>assistant\n"] + answer):
            parts.append(p)
            owner.append((i, k % 2 == 1))
    out = [([], []) for _ in rows]
    for (i, asked), ids in zip(owner, tok(parts, add_special_tokens=False)["input_ids"]):
        out[i][0].extend(ids)
        out[i][1].extend(ids if asked else [-100] * len(ids))
    return out


def batches(pairs, tokens, rng):
    """Batches of about `tokens` tokens, each of sequences of like length, in random order."""
    pairs = sorted(pairs, key=lambda p: len(p[0]))
    out, batch = [], []
    for p in pairs:
        if batch and (len(batch) + 1) * len(p[0]) > tokens:
            out.append(batch)
            batch = []
        batch.append(p)
    if batch:
        out.append(batch)
    for i in torch.randperm(len(out), generator=rng).tolist():
        width = max(len(p[0]) for p in out[i])
        ids = torch.zeros(len(out[i]), width, dtype=torch.long)
        labels = torch.full((len(out[i]), width), -100)
        for row, (tokens_of, labels_of) in enumerate(out[i]):
            ids[row, : len(tokens_of)] = torch.tensor(tokens_of)
            labels[row, : len(labels_of)] = torch.tensor(labels_of)
        yield ids, labels


def loss_of(model, ids, labels):
    """Cross entropy of the answers alone; the head is applied where there is an answer."""
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    want = labels[:, 1:]
    there = want != -100
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[there]).float(), want[there])


@torch.no_grad()
def score(model, tok, rows, limit=400):
    """Share of right answers by kind: the text in the last box after greedy decoding."""
    model.eval()
    model.config._attn_implementation = "sdpa"
    right, seen = {}, {}
    rows = rows[:limit]
    tok.padding_side = "left"
    for i in range(0, len(rows), 100):
        part = rows[i : i + 100]
        texts = [f"<|im_start|>user\n{r['prompt']}<|im_end|>\n<|im_start|>assistant\n" for r in part]
        enc = tok(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        enc.pop("token_type_ids", None)
        out = model.generate(**enc, max_new_tokens=48, do_sample=False, pad_token_id=0, eos_token_id=tok.eos_token_id)
        for r, o in zip(part, out):
            text = tok.decode(o[enc["input_ids"].shape[1] :], skip_special_tokens=True)
            got = text.rsplit("\\boxed{", 1)[-1].split("}", 1)[0] if "\\boxed{" in text else ""
            seen[r["category"]] = seen.get(r["category"], 0) + 1
            right[r["category"]] = right.get(r["category"], 0) + (got == r["answer"][0])
    model.train()
    model.config._attn_implementation = "tiny"
    return sum(right.values()) / sum(seen.values()), {k: round(right[k] / seen[k], 2) for k in seen}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--minutes", type=float, default=45)
    ap.add_argument("--steps", type=int, default=0)
    ap.add_argument("--hidden", type=int, default=128)
    ap.add_argument("--layers", type=int, default=4)
    ap.add_argument("--tokens", type=int, default=4096, help="tokens in a batch")
    ap.add_argument("--rate", type=float, default=0.02, help="learning rate of the matrices (Muon)")
    ap.add_argument("--drills", type=int, default=60, help="percent of drills among the lessons after the echoes; none are left in the last third")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # giving memory back to the system at every step costs more than the arithmetic
        os.environ.update(MALLOC_MMAP_THRESHOLD_=str(4 << 30), MALLOC_TRIM_THRESHOLD_=str(8 << 30), MALLOC_TOP_PAD_=str(64 << 20))
        os.execv(sys.executable, [sys.executable] + sys.argv)
    torch.set_num_threads(a.threads)
    torch.set_float32_matmul_precision("medium")  # products of BF16, sums in FP32
    AttentionInterface.register("tiny", attention)
    torch.manual_seed(a.seed)
    rng = torch.Generator().manual_seed(a.seed)
    os.makedirs(a.out, exist_ok=True)
    binary = os.path.join(tempfile.mkdtemp(), "lessons")
    subprocess.run(["go", "build", "-o", binary, "./lessons"], cwd=HERE, check=True)

    tok = make_tokenizer(lessons(binary, a.seed, 0, 24000, drills=10))
    test = lessons(binary, a.seed, 0, 0, test=True)
    probe = [r for r in test if "pairs" not in r["category"]][:300] + [r for r in test if "pairs" in r["category"]][:60]
    config = Qwen3Config(
        vocab_size=math.ceil(len(tok) / 16) * 16, hidden_size=a.hidden, num_hidden_layers=a.layers, num_attention_heads=a.hidden // 32,
        num_key_value_heads=max(a.hidden // 64, 1), head_dim=32, intermediate_size=3 * a.hidden, max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True, attention_bias=False, use_sliding_window=False,
        bos_token_id=tok.convert_tokens_to_ids("<|endoftext|>"), eos_token_id=tok.eos_token_id, pad_token_id=0, dtype="bfloat16",
    )
    config._attn_implementation = "tiny"
    model = Qwen3ForCausalLM(config).float()
    for name, p in model.named_parameters():
        if "q_norm" in name or "k_norm" in name:
            p.data.fill_(0.5)  # heads that look far and wide find pairs six times sooner than heads that begin sharp
    size = sum(p.numel() for p in model.parameters())
    print(f"{size:,} parameters, {len(tok)} tokens in the vocabulary", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in n)]
    opts = [torch.optim.Muon(matrices, lr=a.rate, weight_decay=0.01, momentum=0.95), torch.optim.AdamW(others, lr=6e-3, betas=(0.9, 0.95), weight_decay=0.0)]
    rates = [o.param_groups[0]["lr"] for o in opts]

    began, step, seen, start = time.time(), 0, 0, 0
    done = lambda: step / a.steps if a.steps else (time.time() - began) / (60 * a.minutes)
    mean, pools = None, [64, 1000]
    while done() < 1:
        if pools and mean is not None and mean < 0.2:
            print(f"step {step}  echoes of {pools.pop(0)} words are known", flush=True)
        chunk = 4000 if pools else 12000
        rows = lessons(binary, a.seed, start, chunk, drills=round(a.drills * max(0, 1 - 1.5 * done())), echoes=100 if pools else 10, pool=pools[0] if pools else 1000)
        start += chunk
        for ids, labels in batches(encode(tok, rows), a.tokens, rng):
            x = done()
            if x >= 1:
                break
            # Constant, then a linear decay over the last third.
            factor = min(1, (step + 1) / 100) * min(1, (1 - x) / 0.35)
            for o, r in zip(opts, rates):
                for g in o.param_groups:
                    g["lr"] = r * factor
            loss = loss_of(model, ids, labels)
            for o in opts:
                o.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for o in opts:
                o.step()
            step += 1
            seen += ids.numel()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % 100 == 0:
                print(f"step {step}  {x:4.0%}  loss {mean:.4f}  {seen / (time.time() - began):,.0f} tokens/s", flush=True)
            if step % 1500 == 0:
                right, kinds = score(model, tok, probe)
                print(f"step {step}  right {right:.1%}  {kinds}", flush=True)
                save(model, tok, a.out)
    save(model, tok, a.out)
    model = Qwen3ForCausalLM.from_pretrained(a.out, dtype=torch.bfloat16)
    choice, kinds = score(model, tok, [r for r in test if "pairs" not in r["category"]], 1000)
    long, lengths = score(model, tok, [r for r in test if "pairs" in r["category"]], 300)
    print(json.dumps({"parameters": size, "steps": step, "lessons": start, "tokens": seen, "minutes": round((time.time() - began) / 60, 1), "choice": choice, "lookup": long, "kinds": kinds, "lengths": lengths}))
    os.remove(binary)


def save(model, tok, out):
    kept = {k: v.clone() for k, v in model.state_dict().items()}
    model.to(torch.bfloat16).save_pretrained(out)
    model.float().load_state_dict(kept)
    tok.save_pretrained(out)


if __name__ == "__main__":
    main()
