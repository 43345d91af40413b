package python

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestImports(t *testing.T) {
	m := Scan(`"""Doc."""
import os, numpy as np
import a.b.c as d
from torch.nn import (
    functional as F,  # comment
    Module,
)
from . import x, y
from ..pkg.mod import *
try:
    import flash_attn
except ImportError:
    pass
text = "import nothing"
# import commented
def f():
    import late
`)
	var got []string
	for _, i := range m.Imports {
		got = append(got, fmt.Sprintf("%s%s%v:%d guard=%v", strings.Repeat(".", i.Level), i.Name, i.Names, i.Line, i.Guard))
	}
	want := []string{
		"os[]:2 guard=false", "numpy[]:2 guard=false", "a.b.c[]:3 guard=false", "torch.nn[functional Module]:4 guard=false", ".[x y]:8 guard=false",
		"..pkg.mod[]:9 guard=false", "flash_attn[]:11 guard=true", "late[]:17 guard=false",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if m.Doc != "Doc." {
		t.Errorf("doc %q", m.Doc)
	}
}

func TestFlags(t *testing.T) {
	m := Scan(`
import argparse, click
from absl import flags
p = argparse.ArgumentParser()
p.add_argument("--steps", "-s", type=int, default=100, help="how "
               "many")
p.add_argument("input")
p.add_argument("--quick", action="store_true")
p.add_argument("--mode", choices=["a", "b"], required=True)
@click.option("--epochs", default=3)
@click.option("--debug/--no-debug", is_flag=True)
def main(epochs): pass
flags.DEFINE_integer("max_steps", 7, "limit")
@dataclass
class Args:
    lr: float = 1e-3
    name: str
max_iters = 600
`)
	var got []string
	for _, f := range m.Flags {
		got = append(got, fmt.Sprintf("%s %v default=%s type=%s action=%s choices=%v required=%v help=%q", f.By, f.Names, f.Default, f.Type, f.Action, f.Choices, f.Required, f.Help))
	}
	want := []string{
		`argparse [--steps -s] default=100 type=int action= choices=[] required=false help="how many"`,
		`argparse [input] default= type= action= choices=[] required=false help=""`,
		`argparse [--quick] default= type= action=store_true choices=[] required=false help=""`,
		`argparse [--mode] default= type= action= choices=[a b] required=true help=""`,
		`click [--epochs] default=3 type= action= choices=[] required=false help=""`,
		`click [--debug] default= type= action=store_true choices=[] required=false help=""`,
		`absl [--max_steps] default=7 type=integer action= choices=[] required=false help="limit"`,
		`dataclass [--lr] default=1e-3 type=float action= choices=[] required=false help=""`,
		`dataclass [--name] default= type=str action= choices=[] required=true help=""`,
		`global [--max_iters] default=600 type= action= choices=[] required=false help=""`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestPrints(t *testing.T) {
	tests := map[string]string{
		`print(f"val loss {losses['val']:.4f}, acc {acc:.1%}")`: `val loss <losses['val']|.4f>, acc <acc|.1%>`,
		`print("accuracy:", acc, "%", sep="")`:                  `accuracy:<acc|>%`,
		`print("a", 1)`:                                         `a <1|>`,
		`print("loss %.3f (%d%%)" % (loss, n))`:                 `loss <loss|.3f> (<n|d>%)`,
		`print("* Acc {top1.avg:.3f}".format(top1=x))`:          `* Acc <top1.avg|.3f>`,
		`print("{} {1}".format(a, b))`:                          `<a|> <b|>`,
		`print("x: " + str(x) + " m")`:                          `x: <x|> m`,
		`logger.info(f"{{literal}} {v!r:>10} {a[1:2]}")`:        `{literal} <v|>10> <a[1:2]|>`,
		`print(f"{x=}")`:                                        `x=<x|>`,
		`print("open`:                                           `open`,
	}
	for src, want := range tests {
		m := Scan(src + "\n")
		var b strings.Builder
		for _, p := range m.Prints {
			for _, x := range p.Parts {
				if x.Expr == "" {
					b.WriteString(x.Text)
				} else {
					fmt.Fprintf(&b, "<%s|%s>", x.Expr, x.Spec)
				}
			}
		}
		if b.String() != want {
			t.Errorf("%s\n got %q\nwant %q", src, b.String(), want)
		}
	}
}

func TestWritesAndLeaves(t *testing.T) {
	m := Scan(`
import json
def summary(x):
    out = {"p99": x, "nested": {"a/b": 1}}
    out["late"] = 100 * x / 3
    return out
results = {"acc": correct / total, "inner": summary(1), f"{k}": 2, **other}
results["top"]["deep"] = 5
with open("results/metrics.json", "w") as f:
    json.dump(results, f, indent=2)
Path("b.json").write_text(json.dumps(dict(loss=l, n=3)))
print(json.dumps(results))
df.to_csv("table.csv")
for k in keys:
    d = {k: 1 for k in keys}
`)
	if len(m.Writes) != 3 {
		t.Fatalf("writes %+v", m.Writes)
	}
	var got []string
	for _, w := range m.Writes {
		for _, l := range m.Leaves(w, nil) {
			got = append(got, w.Path+" "+l.Pointer+" = "+l.Expr)
		}
	}
	want := []string{
		"results/metrics.json /acc = correct/total", "results/metrics.json /inner/p99 = x", "results/metrics.json /inner/nested/a~1b = 1",
		"results/metrics.json /inner/late = 100*x/3", "results/metrics.json /top/deep = 5", "b.json /loss = l", "b.json /n = 3",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLeavesOfImportedFunction(t *testing.T) {
	helper := Scan("def run():\n    return {'wer': 1}\n")
	m := Scan("import json, helper\njson.dump(helper.run(), open('o.json', 'w'))\nx = x\n")
	ls := m.Leaves(m.Writes[0], func(fn string) *Module {
		if fn == "run" {
			return helper
		}
		return nil
	})
	if len(ls) != 1 || ls[0].Pointer != "/wer" {
		t.Errorf("leaves %+v", ls)
	}
	loop := Scan("import json\na = f(a)\ndef f(x):\n    return f(x)\njson.dump(f(1), open('o.json','w'))\n")
	if ls := loop.Leaves(loop.Writes[0], func(string) *Module { return loop }); len(ls) != 0 {
		t.Errorf("recursion gave %+v", ls)
	}
}

func TestEnvironmentAndMain(t *testing.T) {
	m := Scan("import os\nk = os.environ['OPENAI_API_KEY']\nos.environ['SET'] = '1'\nos.getenv('HF_TOKEN', '')\nos.environ.get(\"X\")\nif __name__ == '__main__':\n    main()\n")
	var got []string
	for _, e := range m.Env {
		got = append(got, e.Text)
	}
	if strings.Join(got, " ") != "OPENAI_API_KEY HF_TOKEN X" || len(m.Needs) != 1 || !m.Main {
		t.Errorf("env %v main %v", got, m.Main)
	}
}

func TestSetup(t *testing.T) {
	s := ReadSetup(`
import os
from setuptools import setup
os.system("pip install evil")
base = ["numpy>=1", "tor" "ch"]
extra = base + ["scipy"]
setup(
    name="x",
    python_requires=">=3.8",
    install_requires=base,
    extras_require={"dev": ["pytest"], "all": extra},
    ext_modules=[CUDAExtension("k", ["k.cu"])],
)
`)
	text := func(ls []Literal) (out []string) {
		for _, l := range ls {
			out = append(out, l.Text)
		}
		return out
	}
	if d := cmp.Diff([]string{"numpy>=1", "torch"}, text(s.Requires)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"numpy>=1", "torch", "scipy"}, text(s.Extras["all"])); d != "" {
		t.Error(d)
	}
	if !s.Found || !s.Extensions || s.PythonRequires.Text != ">=3.8" || len(s.Executes) != 1 {
		t.Errorf("%+v", s)
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{
		"print(f\"{x:{y}} {{\" 'a' \"b\")", "def f(\n", "'''", "x = {\"a\": {", "@dataclass\nclass A:\n  b: int = 1", "a[\"b\"][\"c\"] = {", "json.dump(x, open(", "import a, b.",
		"setup(install_requires=[*x, 'y'], extras_require=z)", "\"%(a)s %d %%\" % (", "p.add_argument()", "x = x + y\ny = y + x\nsetup(install_requires=x)", "\\\n\\", "from . import (", "lambda: {1:2}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		m := Scan(src)
		for _, w := range m.Writes {
			m.Leaves(w, func(string) *Module { return m })
		}
		lines := strings.Count(src, "\n") + 1
		for _, p := range m.Prints {
			if p.Line < 1 || p.Line > lines {
				t.Fatalf("line %d of %d", p.Line, lines)
			}
		}
		ReadSetup(src)
	})
}

func BenchmarkScan(b *testing.B) {
	src := strings.Repeat("def f(x):\n    y = {'a': x, \"b\": [1, 2, 3]}\n    print(f\"epoch {x}: loss {y['a']:.4f}\")\n    return y\n\n", 500)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		Scan(src)
	}
}
