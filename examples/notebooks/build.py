"""Writes the four notebooks from the cells below, without outputs.

One source for all of them keeps the first cells the same and the diffs small:
edit here, then `python build.py`. `--check` writes nothing and fails when a notebook
is not what the cells say. nbformat 4.5, no dependencies.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent

PARAMETERS = '''\
import os, pathlib

# Where results lie: `repromill results list` names the folder. The default is the
# small data set beside this notebook, whose model servers were simulated.
root = os.environ.get("REPROMILL_RESULTS", "data")
figures = pathlib.Path(os.environ.get("REPROMILL_FIGURES", "figures"))
'''

SETUP = '''\
import duckdb
import matplotlib.pyplot as plt

figures.mkdir(parents=True, exist_ok=True)
plt.rcParams.update({"figure.figsize": (7.5, 4), "figure.dpi": 110, "axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False})
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#7f7f7f"  # Okabe and Ito: safe for colour-blind readers
con = duckdb.connect()
con.execute("SET TimeZone = 'UTC'")
for table in ["runs", "claims", "metrics", "samples", "requests", "estimates", "events", "comparisons", "verdicts", "layers", "servers"]:
    if any(pathlib.Path(root, table, "v1").rglob("*.parquet")):
        con.execute(f"""CREATE VIEW {table} AS SELECT * FROM read_parquet('{root}/{table}/v1/**/*.parquet',
            union_by_name = true, hive_partitioning = true, hive_types = {{'date': DATE{", 'suite': VARCHAR" if table in ("samples", "requests") else ""}}})""")
'''


def md(text):
    return ("markdown", text.strip("\n"), [])


def code(text, tags=()):
    return ("code", text.strip("\n"), list(tags))


def notebook(name, title, intro, *cells):
    head = [md(f"# {title}\n\n{intro.strip()}\n\n`simulated` marks rows whose numbers come from a simulation and say nothing of a real system."), code(PARAMETERS, ["parameters"]), code(SETUP)]
    out = []
    for i, (kind, text, tags) in enumerate(head + list(cells)):
        cell = {"cell_type": kind, "id": f"c{i:02d}", "metadata": {"tags": tags} if tags else {}, "source": text.splitlines(keepends=True)}
        if kind == "code":
            cell.update(execution_count=None, outputs=[])
        out.append(cell)
    doc = {"cells": out, "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    text = json.dumps(doc, indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv:
        (HERE / name).write_text(text)
    elif (HERE / name).read_text() != text:
        sys.exit(f"{name} is not what build.py makes: edit build.py and run it")


notebook(
    "1-what-ran.ipynb",
    "What ran",
    "Every run with its target, verdict, cost and claims. DuckDB first; the same with Polars and pandas at the end.",
    code('''
runs = con.sql("""
    SELECT run_id, created_at, status, verdict, coalesce(title, target_input) AS target, executor, sku, simulated,
           round(wall_s, 1) AS wall_s, gpu_hours, usd
    FROM runs ORDER BY created_at DESC""")
runs
'''),
    md("Claims of papers against what was measured. A claim that was not checked says why in `reason`."),
    code('''
con.sql("""
    SELECT v.run_id, v.subject_id AS claim, v.metric, v.reported_lo, v.reported, v.reported_hi, v.measured, v.unit, v.verdict, v.simulated, v.reason
    FROM verdicts v WHERE v.subject = 'claim' ORDER BY v.run_id, claim""")
'''),
    md("Where the time went, by stage."),
    code('''
stages = con.sql("""
    SELECT run_id, coalesce(title, target_input) AS target, coalesce(fetch_s, 0) AS fetch, coalesce(prepare_s, 0) AS prepare,
           coalesce(execute_s, 0) AS execute, coalesce(collect_s, 0) AS collect
    FROM runs WHERE execute_s IS NOT NULL ORDER BY execute DESC LIMIT 12""").df()
fig, ax = plt.subplots()
left = [0.0] * len(stages)
labels = [f"{t[:28]}  …{r[-6:]}" for t, r in zip(stages.target.fillna("-"), stages.run_id)]
for stage, colour in zip(["fetch", "prepare", "execute", "collect"], [GREY, GREEN, BLUE, ORANGE]):
    ax.barh(labels, stages[stage], left=left, color=colour, label=stage, height=0.6)
    left = [a + b for a, b in zip(left, stages[stage])]
ax.grid(axis="y", visible=False)
ax.set_xlabel("seconds")
ax.set_ylim(max(len(stages), 4) - 0.5, -0.5)
ax.set_title("Time by stage, longest runs first")
ax.legend(frameon=False, ncols=4, loc="lower right")
fig.tight_layout()
fig.savefig(figures / "what-ran.png")
'''),
    md("The same table with **Polars** and **pandas**. `hive_partitioning` gives both the partition columns."),
    code('''
import polars as pl

pl.scan_parquet(f"{root}/runs/v1/**/*.parquet", hive_partitioning=True).select("run_id", "created_at", "status", "verdict", "wall_s", "date").sort("created_at", descending=True).collect()
'''),
    code('''
import pandas as pd

pd.read_parquet(f"{root}/runs/v1", columns=["run_id", "created_at", "status", "verdict", "wall_s", "date"]).sort_values("created_at", ascending=False).head(10)
'''),
)

notebook(
    "2-fp8-against-nvfp4.ipynb",
    "FP8 against NVFP4, paired",
    "Both models answered the same questions, so they are compared question by question: what counts are the pairs on which only one was right.",
    code('''
pairs = con.sql("""
    WITH best AS (  -- the run with most answers of both arms
        SELECT run_id, suite FROM samples GROUP BY ALL HAVING count(DISTINCT arm) = 2 ORDER BY count(*) DESC, run_id LIMIT 1)
    SELECT a.run_id, a.suite, a.item_id, a.category, a.score AS baseline, b.score AS candidate, a.simulated OR b.simulated AS simulated
    FROM samples a JOIN samples b USING (run_id, suite, dataset_sha, item_id, repeat) JOIN best USING (run_id, suite)
    WHERE a.arm = 'fp8' AND b.arm = 'nvfp4' AND a.score IS NOT NULL AND b.score IS NOT NULL""")
con.sql("""
    SELECT any_value(run_id) AS run_id, any_value(suite) AS suite, count(*) AS pairs, avg(baseline) AS fp8, avg(candidate) AS nvfp4,
           avg(candidate - baseline) AS difference, stddev_samp(candidate - baseline) / sqrt(count(*)) AS stderr,
           count(*) FILTER (baseline > candidate) AS only_fp8, count(*) FILTER (candidate > baseline) AS only_nvfp4, bool_or(simulated) AS simulated
    FROM pairs""")
'''),
    md("What the program itself decided, look by look of its sequential test. The decision uses evidence that stays valid however often one looks."),
    code('''
looks = con.sql("""
    SELECT run_id, suite, method, look, n, diff, ci_lo, ci_hi, margin, e_value, e_beyond, alpha, verdict, final, reason
    FROM comparisons WHERE run_id = (SELECT any_value(run_id) FROM pairs) ORDER BY method, look""")
looks
'''),
    code('''
df = looks.df()
df = df[df.method == df[df.final].method.iloc[0]]
limit = 1 / df.alpha.iloc[0]
fig, (top, low) = plt.subplots(2, 1, sharex=True, figsize=(7.5, 6))
top.plot(df.n, 100 * df["diff"], color=BLUE, marker="o", ms=3, label="NVFP4 − FP8")
ends = df[df.ci_lo.notna()]  # an interval is stated where the test ended
top.vlines(ends.n, 100 * ends.ci_lo, 100 * ends.ci_hi, color=BLUE, lw=3, alpha=0.5, label="interval")
for sign in (-1, 1):
    top.axhline(sign * 100 * df.margin.iloc[0], color=ORANGE, ls="--", label="margin" if sign > 0 else None)
top.axhline(0, color=GREY, lw=1)
top.set_ylabel("difference, points")
top.set_title(f"{df.verdict.iloc[-1]} after {int(df.n.iloc[-1])} questions")
top.legend(frameon=False, ncols=3)
for column, colour, name in [("e_value", GREEN, "within the margin"), ("e_beyond", ORANGE, "beyond it")]:
    low.plot(df.n, df[column].clip(1e-2, 1e3), color=colour, marker="o", ms=3, label=f"evidence for a difference {name}")
low.axhline(limit, color=GREY, ls="--", label=f"decided, {limit:.0f}")
low.set_yscale("log")
low.set_ylim(top=30 * limit)
low.set_xlabel("questions asked")
low.set_ylabel("e-value")
low.legend(frameon=False, loc="upper left")
fig.tight_layout()
fig.savefig(figures / "fp8-against-nvfp4.png")
'''),
    md("By kind of question. Small groups have wide intervals: read them as a hint of where to look."),
    code('''
kinds = con.sql("""
    SELECT category, count(*) AS n, 100 * avg(candidate - baseline) AS points, 196 * stddev_samp(candidate - baseline) / sqrt(count(*)) AS half
    FROM pairs GROUP BY category ORDER BY points""").df()
fig, ax = plt.subplots()
ax.errorbar(kinds.points, kinds.category + "  (" + kinds.n.astype(str) + ")", xerr=kinds.half, fmt="o", color=BLUE, capsize=3)
ax.axvline(0, color=GREY, lw=1)
ax.set_xlabel("NVFP4 − FP8, points, with 95 % interval")
fig.tight_layout()
fig.savefig(figures / "by-kind.png")
'''),
    md("The paired table with **Polars**, and the exact McNemar test from it."),
    code('''
import math
import polars as pl

answers = pl.scan_parquet(f"{root}/samples/v1/**/*.parquet", hive_partitioning=True).filter(pl.col("score").is_not_null(), pl.col("run_id") == con.sql("SELECT any_value(run_id) FROM pairs").fetchall()[0][0])
wide = answers.collect().pivot(on="arm", index=["suite", "item_id", "repeat"], values="score").drop_nulls()
b = wide.filter(pl.col("fp8") > pl.col("nvfp4")).height
c = wide.filter(pl.col("fp8") < pl.col("nvfp4")).height
p = min(1.0, 2 * sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c))
print(f"only FP8 right {b}, only NVFP4 right {c}, p = {p:.3g}")
'''),
    md("And with **pandas**."),
    code('''
import pandas as pd

s = pd.read_parquet(f"{root}/samples/v1", columns=["run_id", "suite", "item_id", "repeat", "arm", "score"])
s.pivot_table(index=["run_id", "suite", "item_id", "repeat"], columns="arm", values="score", observed=True).dropna().groupby(["run_id", "suite"], observed=True).mean()
'''),
)

notebook(
    "3-throughput-latency.ipynb",
    "Throughput and latency",
    "What a server gives all users together against what one user sees, for every load that was put on it.",
    code('''
cells = con.sql("""
    WITH r AS (
        SELECT run_id, simulated, coalesce(concurrency, 0) AS concurrency, cell, arm, osl, end_s, sent_s, ttft_s, tpot_s,
               max(end_s) OVER w - min(sent_s) OVER w AS span
        FROM requests WHERE status = 'ok' AND coalesce(phase, 'steady') <> 'warmup'
        WINDOW w AS (PARTITION BY run_id, cell, arm))
    SELECT r.run_id, coalesce(max(s.model), max(r.arm)) AS model, r.cell, r.concurrency, count(*) AS requests,
           sum(r.osl) / max(r.span) AS tokens_per_s, 1 / median(r.tpot_s) AS tokens_per_s_per_user,
           1000 * median(r.ttft_s) AS ttft_p50_ms, 1000 * quantile_cont(r.ttft_s, 0.99) AS ttft_p99_ms, bool_or(r.simulated) AS simulated
    FROM r LEFT JOIN (SELECT run_id, any_value(model) AS model FROM servers GROUP BY run_id) s ON s.run_id = r.run_id
    GROUP BY r.run_id, r.cell, r.concurrency, r.arm ORDER BY model, r.concurrency""")
cells
'''),
    code('''
df = cells.df()
fig, ax = plt.subplots()
for (run, model), colour, mark in zip(df.groupby(["run_id", "model"]).groups, [BLUE, ORANGE, GREEN, GREY], "osD^"):
    one = df[(df.run_id == run)].sort_values("concurrency")
    ax.plot(one.tokens_per_s_per_user, one.tokens_per_s, marker=mark, color=colour, label=f"{model}  …{run[-6:]}")
    for _, row in one.iterrows():
        ax.annotate(f"{int(row.concurrency)}", (row.tokens_per_s_per_user, row.tokens_per_s), textcoords="offset points", xytext=(5, 3), fontsize=8)
ax.set_xlabel("output tokens/s that one user sees (median)")
ax.set_ylabel("output tokens/s of the server")
ax.set_title("Frontier; numbers are requests in flight" + (", simulated" if df.simulated.any() else ""))
ax.legend(frameon=False)
fig.tight_layout()
fig.savefig(figures / "frontier.png")
'''),
    md("""Time to the first token, every request. `ttft_s` counts from when the request was sent, `ttft_intended_s` from when the schedule wanted it sent, which a client that falls behind cannot hide. How long a cell must be for its p99 is said when it is measured."""),
    code('''
ttft = con.sql("SELECT coalesce(concurrency, 0) AS concurrency, run_id, 1000 * ttft_s AS ms FROM requests WHERE status = 'ok' AND coalesce(phase, 'steady') <> 'warmup' AND ttft_s IS NOT NULL").df()
fig, ax = plt.subplots()
groups = sorted(ttft.groupby("concurrency"))
ax.boxplot([g.ms for _, g in groups], tick_labels=[int(k) for k, _ in groups], showfliers=True, flierprops={"markersize": 3})
ax.set_xlabel("requests in flight")
ax.set_ylabel("time to first token, ms")
fig.tight_layout()
fig.savefig(figures / "ttft.png")
'''),
    md("Gaps between tokens lie in the list `itl_s`; DuckDB unnests it, and so does **Polars**."),
    code('''
con.sql("SELECT concurrency, count(*) AS gaps, 1000 * quantile_cont(gap, 0.5) AS p50_ms, 1000 * quantile_cont(gap, 0.99) AS p99_ms FROM (SELECT concurrency, unnest(itl_s) AS gap FROM requests WHERE status = 'ok') GROUP BY ALL ORDER BY ALL")
'''),
    code('''
import polars as pl

(
    pl.scan_parquet(f"{root}/requests/v1/**/*.parquet", hive_partitioning=True)
    .filter(pl.col("status") == "ok")
    .select("concurrency", gap=pl.col("itl_s") * 1000)
    .explode("gap")
    .drop_nulls()
    .group_by("concurrency")
    .agg(gaps=pl.len(), p50_ms=pl.col("gap").median(), p99_ms=pl.col("gap").quantile(0.99, "linear"))
    .sort("concurrency")
    .collect()
)
'''),
    code('''
import pandas as pd

r = pd.read_parquet(f"{root}/requests/v1", columns=["run_id", "concurrency", "status", "ttft_s", "tpot_s"])
r[r.status == "ok"].groupby(["run_id", "concurrency"], observed=True)[["ttft_s", "tpot_s"]].median()
'''),
)

notebook(
    "4-nights-and-estimates.ipynb",
    "Nights, and how good the estimates were",
    "The history of a nightly series, and every prediction beside what was measured for it.",
    code('''
nights = con.sql("""
    SELECT r.run_id, r.created_at AS night, s.suite, s.arm, any_value(s.model) AS model, avg(s.score) AS accuracy, count(s.score) AS n,
           sqrt(avg(s.score) * (1 - avg(s.score)) / count(s.score)) AS stderr, median(s.latency_s) AS latency_s, bool_or(s.simulated) AS simulated
    FROM samples s JOIN runs r USING (run_id)
    WHERE r.idempotency_key IS NOT NULL AND s.score IS NOT NULL  -- nights are submitted under the key of their slot
    GROUP BY ALL ORDER BY night""")
nights
'''),
    code('''
df = nights.df()
fig, ax = plt.subplots()
for (model, suite), one in df.groupby(["model", "suite"]):
    ax.errorbar(range(1, len(one) + 1), 100 * one.accuracy, yerr=196 * one.stderr, fmt="o-", color=BLUE, capsize=3, label=f"{model}, {suite}")
ax.xaxis.get_major_locator().set_params(integer=True)
ax.set_xlabel("night")
ax.set_ylabel("accuracy, % with 95 % interval")
ax.set_title("Nightly history" + (", simulated" if df.simulated.any() else ""))
ax.legend(frameon=False)
fig.tight_layout()
fig.savefig(figures / "nights.png")
'''),
    md("""Since when? The split into two levels that leaves the least squares. `repromill nightly report` decides with more care: two nights, an effect floor, and control over all series."""),
    code('''
step = con.sql("""
    WITH n AS (SELECT row_number() OVER (ORDER BY night) AS i, accuracy FROM nights),
         cuts AS (SELECT c.i AS first_bad, avg(n.accuracy) FILTER (n.i < c.i) AS level1, avg(n.accuracy) FILTER (n.i >= c.i) AS level2,
                         var_pop(n.accuracy) FILTER (n.i < c.i) * (c.i - 1) + var_pop(n.accuracy) FILTER (n.i >= c.i) * (count(*) - c.i + 1) AS rest
                  FROM n, n AS c WHERE c.i > 1 GROUP BY c.i)
    SELECT first_bad AS first_night, round(100 * level1, 1) AS percent_before, round(100 * level2, 1) AS percent_since FROM cuts ORDER BY rest LIMIT 1""")
step
'''),
    md("Estimates against measurements. A ratio of 1 is right; an honest 80 % interval covers eight of ten."),
    code('''
errors = con.sql("""
    SELECT run_id, scope, sku, quantity, unit, p10, p50, p90, measured, ratio, covered, simulated
    FROM estimates WHERE measured IS NOT NULL AND p50 > 0 ORDER BY quantity, run_id""")
errors
'''),
    code('''
df = errors.df()
fig, ax = plt.subplots()
if len(df):
    names = df.quantity + "  …" + df.run_id.str[-6:]
    ax.hlines(names, df.p10 / df.p50, df.p90 / df.p50, color=GREY, lw=4, alpha=0.6, label="predicted, 10 to 90 %")
    ax.scatter(df.ratio, names, color=[BLUE if c else ORANGE for c in df.covered], zorder=3, label="measured")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:g}×")
    ax.set_ylim(max(len(df), 4) - 0.5, -0.5)
    ax.axvline(1, color=GREY, lw=1)
    ax.legend(frameon=False, loc="lower right")
ax.set_xlabel("over the predicted median")
ax.set_title("Estimate error")
fig.tight_layout()
fig.savefig(figures / "estimates.png")
'''),
    md("With **Polars** and **pandas**: how far predictions were off, as a factor."),
    code('''
import polars as pl

(
    pl.scan_parquet(f"{root}/estimates/v1/**/*.parquet", hive_partitioning=True)
    .filter(pl.col("measured").is_not_null(), pl.col("p50") > 0)
    .group_by("quantity")
    .agg(n=pl.len(), median_factor=pl.col("ratio").log().abs().median().exp(), covered=pl.col("covered").mean())
    .collect()
)
'''),
    code('''
import pandas as pd

e = pd.read_parquet(f"{root}/estimates/v1", columns=["quantity", "p50", "measured", "ratio", "covered"])
e[e.measured.notna()].groupby("quantity", observed=True)[["ratio"]].describe()
'''),
)
