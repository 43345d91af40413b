package inspect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestListed reads items of lists of packages as prose writes them.
func TestListed(t *testing.T) {
	tests := map[string]string{
		"PyTorch":                        "torch",
		"PyTorch 1.7.1":                  "torch==1.7.1",
		"PyTorch >= 1.6":                 "torch>=1.6",
		"torch: tested on v1.10.1+cu111": "torch==1.10.1+cu111",
		"TensorFlow 1.15 (although 2.0 may come)": "tensorflow==1.15",
		"scikit-learn":                              "scikit-learn",
		"OpenAI Gym":                                "gym",
		"Pytorch Geometric 2.0.4":                   "torch-geometric==2.0.4",
		"Python 3.8":                                "python==3.8",
		"Python 3.6+":                               "python>=3.6",
		"numpy == 1.19.4":                           "numpy==1.19.4",
		"PyTorch version 1.7.1":                     "torch==1.7.1",
		"transformers (tested with 4.21.2)":         "transformers==4.21.2",
		"pandas==0.25.1":                            "pandas==0.25.1",
		"Download the data from the project's page": "-",
		"Linux with one GPU":                        "-",
		"NumPy arrays are expected in the folder":   "-",
		"An NVIDIA driver 470.1":                    "-",
		"":                                          "-",
		"PyTorch models are kept in the folder `weights`.": "-",
	}
	for item, want := range tests {
		got := "-"
		if e, ok := listed(item); ok {
			got = e.Spec
		}
		if got != want {
			t.Errorf("%q: %s, want %s", item, got, want)
		}
	}
}

func FuzzListed(f *testing.F) {
	for _, s := range []string{"PyTorch 1.7.1", "torch: tested on v1.10.1+cu111", "Python 3", "a b", "numpy ≥ 1", "x==", "(torch)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if e, ok := listed(s); ok && (e.Name == "" || !strings.HasPrefix(e.Spec, e.Name)) {
			t.Errorf("%q: %+v", s, e)
		}
	})
}

func checkout(t testing.TB, files map[string]string) *Facts {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f, err := Dir(context.Background(), dir, Config{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestBulletsOfADocument(t *testing.T) {
	f := checkout(t, map[string]string{"README.md": `# Thing

* PyTorch models are in the folder

## Requirements

We need CUDA 11.1 and ` + "`nvcr>=21.05`" + `.

- Python 3.7
- [PyTorch](https://pytorch.org) 1.8.1
- [scikit-learn](https://scikit-learn.org) and [SciPy](https://scipy.org) (for the metrics).
- four GPUs

## Results

- NumPy 1.0
`})
	d := f.Dependency("README.md")
	if d == nil {
		t.Fatal("no dependencies in prose")
	}
	var got []string
	for _, e := range d.Entries {
		got = append(got, fmt.Sprintf("%s@%d", e.Spec, e.Line))
	}
	if want := "torch==1.8.1@10 scikit-learn@11 scipy@11"; strings.Join(got, " ") != want || d.Python.Spec != "3.7" {
		t.Errorf("%v, Python %q; want %s", got, d.Python.Spec, want)
	}
}

// TestOddConda finds environments of conda by what they hold, and nothing else.
func TestOddConda(t *testing.T) {
	f := checkout(t, map[string]string{
		"README.md":         "# x\n",
		"scripts/thing.yml": "name: thing\nchannels: [pytorch]\ndependencies:\n  - python=3.9.7\n  - cudatoolkit=10.*\n  - pytorch=1.10.2\n  - pip:\n    - numpy==1.20\n",
		"charts/app.yaml":   "name: app\ndependencies:\n  - name: redis\n    version: 1\n",
		"conf/model.yaml":   "dependencies: none\npython: 3\n",
	})
	d := f.Dependency("scripts/thing.yml")
	if d == nil || d.Kind != Conda || d.Python.Spec != "3.9.7" || d.CUDA.Spec != "10" {
		t.Errorf("scripts/thing.yml: %+v", d)
	}
	for _, p := range []string{"charts/app.yaml", "conf/model.yaml"} {
		if f.Dependency(p) != nil {
			t.Errorf("%s is taken for an environment", p)
		}
	}
}

// TestNotebookOutputs keeps what a cell prints and the tables it shows, and
// leaves its error stream out, whichever order the members stand in.
func TestNotebookOutputs(t *testing.T) {
	src := `{"cells": [
 {"cell_type": "markdown", "source": ["# Results\n"]},
 {"cell_type": "code", "source": ["evaluate()"], "outputs": [
  {"name": "stderr", "output_type": "stream", "text": ["accuracy: 0.11\n"]},
  {"output_type": "stream", "text": ["loss: 9.9\n"], "name": "stderr"},
  {"name": "stdout", "output_type": "stream", "text": ["accuracy: 0.93\n"]},
  {"output_type": "execute_result", "data": {
   "text/html": ["<table border=\"1\" class=\"dataframe\">\n", "<thead><tr><th></th><th>accuracy</th></tr></thead>\n", "<tbody>\n", "<tr><th>ours</th>\n", "<td>0.95</td></tr>\n", "</tbody></table>"],
   "text/plain": ["      accuracy\n", "ours      0.95"]}}
 ]}]}`
	d, err := ReadNotebook([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range d.Outputs {
		out = append(out, strings.TrimSpace(o.Text))
	}
	if got := strings.Join(out, " / "); got != "accuracy: 0.93 / accuracy / ours      0.95" {
		t.Errorf("output %q", got)
	}
	if len(d.Doc.Tables) != 1 || len(d.Doc.Tables[0].Rows) != 1 {
		t.Fatalf("tables %+v", d.Doc.Tables)
	}
	tb := d.Doc.Tables[0]
	if tb.Header[1] != "accuracy" || tb.Rows[0].Cells[1] != "0.95" || tb.Heading != "Results" || tb.Rows[0].Line != 8 {
		t.Errorf("table %+v", tb)
	}
}

// TestComposed reads settings as Hydra composes them.
func TestComposed(t *testing.T) {
	f := checkout(t, map[string]string{
		"configs/train.yaml":        "# main\ndefaults:\n  - trainer: gpu\nseed: 1   # fixed\ndata:\n  batch_size: 8\n  files: [a, b]\nname: \"x: y\"\n",
		"configs/trainer/gpu.yaml":  "max_epochs: 100\naccelerator: gpu\n",
		"configs/trainer/long.yaml": "max_epochs: 1000\n",
		"other/eval.yaml":           "max_steps: 5\n",
	})
	var got []string
	for _, o := range f.Composed("configs", "train") {
		got = append(got, fmt.Sprintf("%s=%s@%s:%d", o.Key, o.Value, o.File, o.Line))
	}
	want := "seed=1@configs/train.yaml:4 data.batch_size=8@configs/train.yaml:6 name=x: y@configs/train.yaml:8 " +
		"trainer.max_epochs=100@configs/trainer/gpu.yaml:1 trainer.accelerator=gpu@configs/trainer/gpu.yaml:2"
	if strings.Join(got, " ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, " "), want)
	}
}

func FuzzOptions(f *testing.F) {
	f.Add("a:\n  b: 1\n c: 2\n")
	f.Add("a: {b: 1}\n- x: 2\n  y:\n    z: 3 # w\n")
	f.Add(strings.Repeat("a:\n ", 50))
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Count(s, "\n") + 1
		for _, o := range options("x.yaml", s) {
			if o.Key == "" || o.Line < 1 || o.Line > lines {
				t.Errorf("%+v", o)
			}
		}
	})
}

// TestInstallScripts takes the lines of a script that installs for what a
// document says.
func TestInstallScripts(t *testing.T) {
	f := checkout(t, map[string]string{
		"README.md":     "# x\n\n```\nconda create -yn thing python=3.8\nbash install.sh\n```\n",
		"install.sh":    "#!/bin/bash\npip install torch==1.9.1+cu111 -f https://h.example/whl\npip install lmdb\n",
		"run_tests.sh":  "pip install nothing\n",
		"deploy/env.py": "",
	})
	d := f.Dependency("install.sh")
	if d == nil || len(d.Entries) != 2 || d.Entries[0].Spec != "torch==1.9.1+cu111" || len(d.Indexes) != 1 {
		t.Errorf("install.sh: %+v", d)
	}
	if f.Dependency("run_tests.sh") != nil {
		t.Error("run_tests.sh is taken for an installation")
	}
	if r := f.Dependency("README.md"); r == nil || r.Python.Spec != "3.8" || len(r.Entries) != 0 {
		t.Errorf("README.md: %+v", r)
	}
}
