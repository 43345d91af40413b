#!/usr/bin/env python3
"""Run repromill load, vLLM's bench serve, guidellm and AIPerf side by side.

Each client has one core to itself, the server another. All send the same open
loop: constant arrivals, 100 tokens of output, a token every 20 ms after 200 ms.
There are two servers: the null mode of `repromill load server`, and replay/,
which plays fixed bytes and that no client was tuned on. Both tell afterwards how
they wrote in fact. A client's own lag is what it reports less that:

  TTFT  the median time to the first token
  ITL   the 99th percentile of the gaps between chunks (guidellm reports none, so
        for it that of each request's mean gap, which hides nearly all of it)

The table says up to how many events per second each lag stays within 5 % of the
ITL, that is 1 ms. A client that does not keep the schedule up has failed, too.

  python3 examples/load/side-by-side/run.py
  python3 examples/load/side-by-side/run.py --clients repromill,guidellm --levels 64,256
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TTFT, ITL, TOKENS = 0.2, 0.02, 100
LIFE = TTFT + (TOKENS - 1) * ITL  # of a stream
BOUND = 0.05 * ITL * 1e3  # ms

# What vLLM requires to serve, and its bench serve does not.
GPU_ONLY = re.compile(r"(torch|nvidia-|nvtx|flashinfer|apache-tvm|tilelang|quack|tokenspeed|humming|fastsafetensors|instanttensor|PyNvVideoCodec|xgrammar|numba|opentelemetry)", re.I)

TOKENIZER = """
import json, os, sys
from tokenizers import Tokenizer, models, pre_tokenizers, decoders
out = sys.argv[1]
vocab = {"<s>": 0, "</s>": 1}
for c in sorted(pre_tokenizers.ByteLevel.alphabet()):
    vocab[c] = len(vocab)
t = Tokenizer(models.BPE(vocab, []))
t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
t.decoder = decoders.ByteLevel()
os.makedirs(out, exist_ok=True)
t.save(out + "/tokenizer.json")
json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 1000000,
           "chat_template": "{% for m in messages %}{{ m['content'] }} {% endfor %}"}, open(out + "/tokenizer_config.json", "w"))
json.dump({"model_type": "llama", "vocab_size": len(vocab)}, open(out + "/config.json", "w"))
"""

VLLM = """
import argparse, sys
from vllm.benchmarks.serve import add_cli_args, main
p = argparse.ArgumentParser()
add_cli_args(p)
main(p.parse_args())
"""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Failed(Exception):
    pass


def run(argv, timeout, log, **kw):
    """Run a command in a session of its own, so that nothing of it stays."""
    with open(log, "wb") as f:
        p = subprocess.Popen(argv, stdout=f, stderr=subprocess.STDOUT, start_new_session=True, **kw)
        try:
            code = p.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(p.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            p.wait()
    if code != 0:
        tail = pathlib.Path(log).read_text(errors="replace").strip().splitlines()[-8:]
        raise Failed(("ran past %d s" % timeout if code is None else "ended with %d" % code) + ": " + " | ".join(tail)[-600:])


def pip(venv, *packages):
    p = subprocess.run([venv / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages], capture_output=True, text=True)
    if p.returncode:
        raise Failed("pip install %s: %s" % (" ".join(packages), (p.stderr or p.stdout).strip()[-600:]))


def make_venv(venv, *packages):
    if (venv / "ready").exists():
        return
    say("installing %s" % " ".join(packages))
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip(venv, *packages)
    (venv / "ready").touch()


def install_vllm(venv):
    """vLLM without what only GPUs need, beside guidellm's torch; what its module
    of bench serve still cannot import is installed until it can."""
    if (venv / "vllm-ready").exists():
        return
    say("installing vllm")
    pip(venv, "--no-deps", "vllm")
    p = subprocess.run([venv / "bin/python", "-c", "import importlib.metadata as m; print('\\n'.join(m.requires('vllm')))"], capture_output=True, text=True, check=True)
    # By name alone: what it pins may be newer than an index has, and serves it to serve.
    needs = sorted({re.split(r"[^\w.-]", r)[0] for r in p.stdout.splitlines() if "extra ==" not in r and not GPU_ONLY.match(r)})
    pip(venv, *needs)
    # What stands beside torch is made for one version of it, and nothing here needs it.
    subprocess.run([venv / "bin/python", "-m", "pip", "uninstall", "-q", "-y", "torchaudio", "torchcodec", "torchvision"], check=True)
    for _ in range(20):
        p = subprocess.run([venv / "bin/python", "-c", "import vllm.benchmarks.serve"], capture_output=True, text=True)
        if p.returncode == 0:
            (venv / "vllm-ready").touch()
            return
        missing = re.search(r"No module named '([^'.]+)", p.stderr)
        if not missing:
            raise Failed("import vllm.benchmarks.serve: " + p.stderr.strip()[-600:])
        pip(venv, missing[1].replace("_", "-"))
    raise Failed("vllm lacks ever more modules")


class Bench:
    def __init__(self, a):
        self.a = a
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="side-by-side-"))
        self.venvs = pathlib.Path(a.venvs)
        self.env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.env.update(NO_COLOR="1", TMPDIR=str(self.dir), XDG_STATE_HOME=str(self.dir / "state"), XDG_DATA_HOME=str(self.dir / "data"))

    def setup(self):
        for out, pkg in (("repromill", "./cmd/repromill"), ("replay", "./examples/load/side-by-side/replay")):
            subprocess.run(["go", "build", "-o", self.dir / out, pkg], cwd=ROOT, check=True, env=dict(self.env, CGO_ENABLED="0"))
        self.broken = {}
        steps = {"guidellm": lambda: make_venv(self.venvs / "guidellm", "guidellm"), "vllm": lambda: install_vllm(self.venvs / "guidellm"),
                 "aiperf": lambda: make_venv(self.venvs / "aiperf", "aiperf")}
        for name in ("guidellm", "vllm", "aiperf"):
            if name in self.a.clients or name == "guidellm" and "vllm" in self.a.clients:
                try:
                    steps[name]()
                except Failed as e:
                    self.broken[name] = str(e)
        self.tok = self.dir / "tokenizer"
        for venv in ("guidellm", "aiperf"):
            python = self.venvs / venv / "bin/python"
            if python.exists() and not self.tok.exists():
                subprocess.run([python, "-c", TOKENIZER, self.tok], check=True, env=self.env)

    def serve(self, server, port):
        argv = {"null": [self.dir / "repromill", "load", "server", "--null", "--ttft", "200ms", "--itl", "20ms", "--port", str(port)],
                "replay": [self.dir / "replay", "-listen", "127.0.0.1:%d" % port, "-tokens", str(TOKENS), "-ttft", "200ms", "-itl", "20ms"]}[server]
        p = subprocess.Popen(["taskset", "-c", self.a.server_core, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)
        for _ in range(100):
            try:
                self.truth(port)
                return p
            except OSError:
                time.sleep(0.1)
        p.kill()
        raise SystemExit("the %s server does not come up" % server)

    def truth(self, port):
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open("http://127.0.0.1:%d/truth" % port, timeout=10) as r:
            return json.load(r)

    # Each returns TTFT p50, gap p99 or None, mean gap p99 or None, in ms.

    def repromill(self, url, rate, n, out):
        run(["taskset", "-c", self.a.client_core, self.dir / "repromill", "load", "--url", url, "--model", "simulated", "--rate", "%g" % rate, "--arrivals", "constant",
             "--requests", str(n), "--warmup", "0", "--isl", "32", "--osl", str(TOKENS), "--no-save", "--no-self-check", "--json"], self.a.timeout, out, env=self.env)
        text = out.read_text()
        tools = {t["name"]: t["value"] for t in json.loads(text[text.index("{"):])["cells"][0]["summary"]["tools"] if t["tool"] == "vllm bench serve"}
        return tools["median_ttft_ms"], tools["p99_itl_ms"], None

    def vllm(self, url, rate, n, out):
        res = out.with_suffix(".json")
        run(["taskset", "-c", self.a.client_core, self.venvs / "guidellm/bin/python", "-c", VLLM, "--backend", "openai-chat", "--base-url", url, "--endpoint", "/v1/chat/completions",
             "--model", "simulated", "--tokenizer", self.tok, "--dataset-name", "random", "--random-input-len", "160", "--random-output-len", str(TOKENS), "--random-range-ratio", "0",
             "--num-prompts", str(n), "--request-rate", "%g" % rate, "--burstiness", "1000000", "--ignore-eos", "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99",
             "--disable-tqdm", "--save-result", "--result-dir", res.parent, "--result-filename", res.name], self.a.timeout, out, env=self.env)
        d = json.loads(res.read_text())
        return d["median_ttft_ms"], d["p99_itl_ms"], None

    def guidellm(self, url, rate, n, out):
        res = out.with_suffix(".json")
        run(["taskset", "-c", self.a.client_core, self.venvs / "guidellm/bin/guidellm", "run", "--backend", "kind=openai_http,target=%s,model=simulated" % url,
             "--profile", "kind=constant,rate=%g" % rate, "--constraint", "kind=max_requests,count=%d" % n, "--tokenizer", "kind=hf_auto,model=%s" % self.tok,
             "--data", "kind=synthetic_text,prompt_tokens=160,output_tokens=%d" % TOKENS, "--output", "kind=json,path=%s" % res, "--disable-console"], self.a.timeout, out, env=self.env)
        m = json.loads(res.read_text())["benchmarks"][0]["metrics"]
        return m["time_to_first_token_ms"]["successful"]["median"], None, m["inter_token_latency_ms"]["successful"]["percentiles"]["p99"]

    def aiperf(self, url, rate, n, out):
        res = out.with_suffix("")
        run(["taskset", "-c", self.a.client_core, self.venvs / "aiperf/bin/aiperf", "profile", "-m", "simulated", "--url", url, "--endpoint-type", "chat", "--streaming", "--tokenizer", self.tok,
             "--request-rate", "%g" % rate, "--arrival-pattern", "constant", "--request-count", str(n), "--isl", "160", "--osl", str(TOKENS), "--use-server-token-count",
             "--extra-inputs", "ignore_eos:true", "--extra-inputs", "min_tokens:%d" % TOKENS, "--use-legacy-max-tokens", "--workers-max", "1", "--record-processor-service-count", "1",
             "--ui-type", "none", "--no-gpu-telemetry", "--no-server-metrics", "--output-artifact-dir", res], self.a.timeout, out, env=self.env)
        d = json.loads((res / "profile_export_aiperf.json").read_text())
        return d["time_to_first_token"]["p50"], d["inter_chunk_latency"]["p99"], None

    def level(self, client, server, port, streams):
        rate = streams / LIFE
        n = max(20, int(rate * self.a.seconds))
        time.sleep(0.3)
        self.truth(port)
        began = time.time()
        ttft, gap, mean = getattr(self, client)("http://127.0.0.1:%d" % port, rate, n, self.dir / ("%s-%s-%d.log" % (client, server, streams)))
        took = time.time() - began
        t = self.truth(port)
        row = {"client": client, "server": server, "streams": streams, "events_per_s": streams / ITL, "requests": t["requests"], "peak_streams": t["peak_streams"], "took_s": took,
               "ttft_ms": ttft, "true_ttft_ms": t["ttft_ms"]["p50"], "ttft_lag_ms": ttft - t["ttft_ms"]["p50"],
               "itl_ms": gap if gap is not None else mean, "true_itl_ms": (t["gap_ms"] if gap is not None else t["mean_gap_ms"])["p99"]}
        row["itl_lag_ms"] = row["itl_ms"] - row["true_itl_ms"]
        # Clients that probe first make a request or two more.
        row["kept"] = t["requests"] >= 0.98 * n and t["peak_streams"] >= 0.9 * min(n, streams)
        return row

    def climb(self, client, server, port):
        rows, bad = [], {"ttft_lag_ms": False, "itl_lag_ms": False}
        for streams in self.a.levels:
            try:
                r = self.level(client, server, port, streams)
            except (Failed, KeyError, ValueError, OSError) as e:
                rows.append({"client": client, "server": server, "streams": streams, "events_per_s": streams / ITL, "error": "%s: %s" % (type(e).__name__, e)})
                break
            rows.append(r)
            say("%-10s %-7s %6.0f events/s  TTFT p50 %8.2f (true %8.2f)  ITL p99 %7.2f (true %7.2f)  %3.0f s%s" % (
                client, server, r["events_per_s"], r["ttft_ms"], r["true_ttft_ms"], r["itl_ms"], r["true_itl_ms"], r["took_s"], "" if r["kept"] else "  schedule not kept"))
            for k in bad:
                bad[k] = bad[k] or r[k] > BOUND
            if all(bad.values()) or not r["kept"] or time.time() > self.deadline:
                break
        return rows

    def all(self):
        rows = []
        began = time.time()
        for i, server in enumerate(self.a.servers):
            self.deadline = began + self.a.budget * (i + 1) / len(self.a.servers)
            p = self.serve(server, self.a.port + i)
            try:
                for client in self.a.clients:
                    if client in self.broken:
                        rows.append({"client": client, "server": server, "error": self.broken[client]})
                    else:
                        rows += self.climb(client, server, self.a.port + i)
            finally:
                p.terminate()
                p.wait()
        return rows


NAMES = {"repromill": "repromill load", "vllm": "vllm bench serve", "guidellm": "guidellm", "aiperf": "AIPerf"}


def highest(rows, key, levels):
    """The highest rate up to which a lag stayed within the bound."""
    best, failed = None, None
    for r in rows:
        if "error" in r or not r["kept"] or r[key] > BOUND:
            failed = r["events_per_s"] if "events_per_s" in r else 0
            break
        best = r["events_per_s"]
    if best is None:
        return "< %d" % (levels[0] / ITL)
    return "%d" % best if failed is not None else "≥ %d" % best


def table(rows, a):
    print("\nEvents per second up to which a client's own lag stays within 5 %% of ITL (%g ms of %g ms); one core each\n" % (BOUND, ITL * 1e3))
    print("| client | server | by TTFT p50 | by ITL p99 | lag of TTFT p50, ms, at " + " / ".join("%d" % (s / ITL) for s in a.levels) + " events/s | lag of ITL p99, ms |")
    print("|---|---|--:|--:|---|---|")
    errors = []
    for server in a.servers:
        for client in a.clients:
            mine = [r for r in rows if r["client"] == client and r["server"] == server]
            lags = lambda key: " / ".join("%.2f%s" % (r[key], "" if r["kept"] else "†") for r in mine if key in r) or "–"
            star = "*" if client == "guidellm" else ""
            failed = [r["error"] for r in mine if "error" in r]
            errors += ["%s, %s server: %s" % (NAMES[client], server, e) for e in failed]
            if failed and len(mine) == 1:
                print("| %s | %s | did not run | did not run | – | – |" % (NAMES[client], server))
                continue
            print("| %s | %s | %s | %s%s | %s | %s |" % (NAMES[client], server, highest(mine, "ttft_lag_ms", a.levels), highest(mine, "itl_lag_ms", a.levels), star, lags("ttft_lag_ms"), lags("itl_lag_ms")))
    print("\n* mean gap of each request: the only one that guidellm reports. † schedule not kept.")
    for e in errors:
        print("error: " + e)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words = lambda s: s.split(",")
    p.add_argument("--clients", type=words, default=list(NAMES))
    p.add_argument("--servers", type=words, default=["null", "replay"])
    p.add_argument("--levels", type=lambda s: [int(x) for x in s.split(",")], default=[4, 16, 64, 128, 256, 512, 768], help="concurrent streams; events per second are 50 times as many")
    p.add_argument("--seconds", type=float, default=6, help="of arrivals at each level")
    p.add_argument("--timeout", type=float, default=120, help="of one client at one level")
    p.add_argument("--budget", type=float, default=570, help="seconds after which no client climbs further")
    p.add_argument("--venvs", default=str(pathlib.Path.home() / ".cache/repromill/side-by-side"), help="folder of the Python environments, which are kept")
    p.add_argument("--server-core", default="0")
    p.add_argument("--client-core", default="1")
    p.add_argument("--port", type=int, default=18431)
    p.add_argument("--json", help="write all figures to this file")
    a = p.parse_args()
    if not shutil.which("taskset"):
        raise SystemExit("taskset is needed: it gives each client a core of its own")
    b = Bench(a)
    try:
        b.setup()
        rows = b.all()
        table(rows, a)
        if a.json:
            pathlib.Path(a.json).write_text(json.dumps(rows, indent=1))
    finally:
        shutil.rmtree(b.dir, ignore_errors=True)


if __name__ == "__main__":
    main()
