package planner

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// generate writes a repository of n files: a third Python, documents, scripts,
// configurations and data.
func generate(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var readme strings.Builder
	readme.WriteString("# Project\n\n```\npip install -r requirements.txt\n```\n\n")
	for i := range 200 {
		fmt.Fprintf(&readme, "## Experiment %d\n\n```bash\npython exp/run%d.py --epochs 10 --out out%d.json\n```\n\nThe accuracy is %d.5%% on CIFAR-10.\n\n| model | acc | loss |\n|---|---|---|\n| a | 90.1 | 0.3 |\n\n", i, i, i, 50+i%40)
	}
	write("README.md", readme.String())
	write("requirements.txt", "torch==2.1.0\nnumpy\n")
	body := "import argparse, json\nimport torch\nfrom exp import util\np = argparse.ArgumentParser()\np.add_argument('--epochs', type=int, default=10)\n" +
		strings.Repeat("def f(x):\n    y = {'a': x, \"b\": [1, 2, 3]}\n    print(f\"epoch {x}: loss {y['a']:.4f}, acc {x * 2:.2f}\")\n    return y\n\n", 60) +
		"json.dump({'accuracy': 1.0}, open('o.json', 'w'))\n"
	for i := range n - 2 {
		switch i % 9 {
		case 0, 1, 2:
			write(fmt.Sprintf("exp/run%d.py", i), body)
		case 3:
			write(fmt.Sprintf("docs/d%d/page%d.md", i%50, i), "# Page\n\nSome prose with a loss of 0.5 in it.\n\n    $ python exp/run0.py\n")
		case 4:
			write(fmt.Sprintf("scripts/s%d/go%d.sh", i%30, i), "#!/bin/bash\npython exp/run0.py --epochs 3\n")
		case 5:
			write(fmt.Sprintf("configs/c%d.yaml", i), "lr: 0.1\n")
		case 6:
			write(fmt.Sprintf("sub%d/requirements.txt", i), "numpy==1.%d\n")
		default:
			write(fmt.Sprintf("data/x%d/f%d.txt", i%40, i), "1 2 3\n")
		}
	}
	return dir
}

func plan(t testing.TB, dir string) *spec.Plan {
	t.Helper()
	facts, err := inspect.Dir(context.Background(), dir, inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := Plan(Input{Target: spec.Target{Kind: "local"}, Source: spec.Source{Repo: "https://example.org/x"}, Repo: facts})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func benchmark(b *testing.B, files int) {
	dir := generate(b, files)
	var before, after runtime.MemStats
	peak := uint64(0)
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		plan(b, dir)
		runtime.ReadMemStats(&after)
		peak = max(peak, after.Sys)
	}
	b.ReportMetric(float64(peak)/(1<<20), "MB-from-OS")
}

func BenchmarkPlan2000(b *testing.B)  { benchmark(b, 2_000) }
func BenchmarkPlan10000(b *testing.B) { benchmark(b, 10_000) }
func BenchmarkPlan20000(b *testing.B) { benchmark(b, 20_000) }

// TestDeterministic holds that planning twice gives the same bytes.
func TestDeterministic(t *testing.T) {
	dir := generate(t, 400)
	var first bytes.Buffer
	if err := plan(t, dir).Encode(&first); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var again bytes.Buffer
		if err := plan(t, dir).Encode(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), again.Bytes()) {
			t.Fatal("two plans of the same checkout differ")
		}
	}
}

// BenchmarkPlanManyCommands plans a document of three thousand commands, each
// of which reads what the one before it writes.
func BenchmarkPlanManyCommands(b *testing.B) {
	dir := b.TempDir()
	var readme strings.Builder
	readme.WriteString("# Chain\n\n```bash\n")
	for i := range 3000 {
		fmt.Fprintf(&readme, "python train.py --data_dir data/d%d --input out/x%d.json --output out/x%d.json --model m%d/n\n", i, i, i+1, i)
	}
	readme.WriteString("```\n")
	for name, text := range map[string]string{"README.md": readme.String(), "train.py": "import torch\ndef main():\n    loss.backward()\nprint('accuracy:', a)\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		planDir(b, dir, "")
	}
}
