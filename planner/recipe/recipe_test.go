package recipe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/inspect/markdown"
)

func facts(t testing.TB, files map[string]string) *inspect.Facts {
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
	f, err := inspect.Dir(context.Background(), dir, inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

var tree = map[string]string{
	"README.md": "# x\n", "run.py": "print(1)", "sub/main.py": "print(1)", "sub/dir/eval.py": "", "pkg/__init__.py": "", "pkg/cli.py": "", "go.sh": "python run.py",
	"app.py": "import gradio\ngradio.Blocks().launch()", "prepare_data.py": "", "download_models.sh": "wget x", "job.sh": "#SBATCH -N 1\npython run.py", "src/lib/tool.py": "",
}

// TestCommandLines resolves command lines: what is run, where, in which
// environment, and as what.
func TestCommandLines(t *testing.T) {
	r := &resolver{f: facts(t, tree)}
	tests := map[string]string{
		"python run.py --a 1":        `run ["python" "run.py" "--a" "1"] in . entry=run.py`,
		"python3.9 run.py":           `run ["python" "run.py"] in . entry=run.py`,
		"./go.sh x":                  `run ["bash" "./go.sh" "x"] in . entry=go.sh`,
		"cd sub && python main.py":   `run ["python" "main.py"] in sub entry=sub/main.py`,
		"cd sub/dir; python eval.py": `run ["python" "eval.py"] in sub/dir entry=sub/dir/eval.py`,
		"git clone https://h/o/x && cd x && python run.py": `run ["python" "run.py"] in . entry=run.py`,
		"python main.py":                             `run ["python" "main.py"] in sub entry=sub/main.py`,
		"python -m pkg.cli --b":                      `run ["python" "-m" "pkg.cli" "--b"] in . entry=pkg/cli.py`,
		"python -u -W ignore run.py":                 `run ["python" "-u" "-W" "ignore" "run.py"] in . entry=run.py`,
		"uv run --frozen python run.py":              `run ["python" "run.py"] in . entry=run.py`,
		"torchrun --nproc_per_node 4 run.py -x":      `run ["torchrun" "--nproc_per_node" "4" "run.py" "-x"] in . entry=run.py gpus=4`,
		"accelerate launch --num_processes=2 run.py": `run ["accelerate" "launch" "--num_processes=2" "run.py"] in . entry=run.py gpus=2`,
		"accelerate config":                          `other ["accelerate" "config"] in . entry=`,
		"python -m torch.distributed.launch --nproc_per_node=8 --nnodes=2 run.py": `run ["python" "-m" "torch.distributed.launch" "--nproc_per_node=8" "--nnodes=2" "run.py"] in . entry=run.py gpus=8`,
		"CUDA_VISIBLE_DEVICES=3 A='x y' python run.py":                            `run ["python" "run.py"] in . entry=run.py env=A=x y,CUDA_VISIBLE_DEVICES=0 patch=env`,
		"python run.py --out $(pwd)/o --w $PWD":                                   `run ["python" "run.py" "--out" "o" "--w" "."] in . entry=run.py`,
		"python run.py --d ${DATA} --n N":                                         `run ["python" "run.py" "--d" "${DATA}" "--n" "N"] in . entry=run.py unbound=${DATA} N`,
		"python run.py | tee log":                                                 `run ["python" "run.py"] in . entry=run.py`,
		"python run.py > out.txt 2>&1 &":                                          `run ["python" "run.py"] in . entry=run.py`,
		"python run.py | grep x":                                                  `run script in . entry=run.py`,
		"python run.py *.csv":                                                     `run script in . entry=run.py`,
		"python run.py < in.txt":                                                  `run script in . entry=run.py`,
		"python run.py --t $(date +%s)":                                           `run script in . entry=run.py`,
		"python run.py; python sub/main.py":                                       `run script in . entry=run.py`,
		"for s in 1 2; do python run.py --seed $s; done":                          `run script in . entry=run.py`,
		"python gone.py":                                                          `run ["python" "gone.py"] in . entry= missing`,
		"python /abs/run.py":                                                      `run ["python" "/abs/run.py"] in . entry= missing`,
		"python ../run.py":                                                        `run ["python" "../run.py"] in . entry= missing`,
		"python <your_script>.py":                                                 `run ["python" "<your_script>.py"] in . entry= missing unbound=<your_script>`,
		"python run.py –lr 1":                                                     `run ["python" "run.py" "--lr" "1"] in . entry=run.py patch=flag`,
		"python app.py":                                                           `blocking ["python" "app.py"] in . entry=app.py`,
		"streamlit run app.py":                                                    `blocking ["streamlit" "run" "app.py"] in . entry=`,
		"tensorboard --logdir x":                                                  `blocking ["tensorboard" "--logdir" "x"] in . entry=`,
		"jupyter notebook":                                                        `blocking ["jupyter" "notebook"] in . entry=`,
		"vllm serve x":                                                            `blocking ["vllm" "serve" "x"] in . entry=`,
		"sbatch job.sh":                                                           `cluster ["sbatch" "job.sh"] in . entry=`,
		"bash job.sh":                                                             `cluster ["bash" "job.sh"] in . entry=job.sh`,
		"srun python run.py":                                                      `cluster ["srun" "python" "run.py"] in . entry=`,
		"pip install x":                                                           `install ["pip" "install" "x"] in . entry=`,
		"conda activate x":                                                        `install ["conda" "activate" "x"] in . entry=`,
		"python setup.py install":                                                 `install ["python" "setup.py" "install"] in . entry= missing`,
		"wget https://h/x":                                                        `download ["wget" "https://h/x"] in . entry=`,
		"bash download_models.sh":                                                 `download ["bash" "download_models.sh"] in . entry=download_models.sh`,
		"python prepare_data.py":                                                  `setup ["python" "prepare_data.py"] in . entry=prepare_data.py`,
		"pytest -q":                                                               `run ["pytest" "-q"] in . entry=`,
		"echo hi":                                                                 `other [] in . entry=`,
		"ls -la":                                                                  `other ["ls" "-la"] in . entry=`,
	}
	for in, want := range tests {
		c := r.line(markdown.Command{Text: in, Line: 1}, ".", &state{cwd: ".", env: map[string]string{}, block: map[string]bool{}})
		got := fmt.Sprintf("%s %q in %s entry=%s", c.Role, c.Argv, c.Cwd, c.Entry)
		if c.Script != nil {
			got = fmt.Sprintf("%s script in %s entry=%s", c.Role, c.Cwd, c.Entry)
		}
		if c.Missing != "" {
			got += " missing"
		}
		if c.GPUs > 0 {
			got += fmt.Sprintf(" gpus=%d", c.GPUs)
		}
		var env []string
		for k, v := range c.Env {
			env = append(env, k+"="+v)
		}
		slices.Sort(env)
		if len(env) > 0 {
			got += " env=" + strings.Join(env, ",")
		}
		if len(c.Unbound) > 0 {
			got += " unbound=" + strings.Join(c.Unbound, " ")
		}
		for _, p := range c.Patches {
			got += " patch=" + p.Kind
		}
		if got != want && !(strings.HasSuffix(want, `["python"`) && strings.HasPrefix(got, want)) {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestPlaceholders(t *testing.T) {
	for in, want := range map[string][]string{
		"--data /path/to/coco":           {"/path/to/coco"},
		"--data=path/to/your/data":       {"path/to/your/data"},
		"--ckpt <checkpoint path>":       {"<checkpoint path>"},
		"--key YOUR_API_KEY":             {"YOUR_API_KEY"},
		"--dir your_output_dir":          {"your_output_dir"},
		"--x TODO":                       {"TODO"},
		"--n N":                          {"N"},
		"--gpus=N":                       {"N"},
		"--model [small/base/large]":     {"[small/base/large]"},
		"--mode {train|test}":            {"{train|test}"},
		"--data {DATA_DIR}":              {"{DATA_DIR}"},
		"--flags ...":                    {"..."},
		"--seed SEED":                    {"SEED"},
		"--task [TASK]":                  {"[TASK]"},
		"--url https://h/path/to/file":   nil,
		"--data data/train --n 5 --x X1": nil,
		"--ids [1,2,3] --cfg a/b/c.yaml": nil,
		"--name Nancy --note Todos":      nil,
		"--out results/{epoch}.ckpt":     nil,
	} {
		argv := strings.SplitN(in, " ", 2)
		if strings.Contains(in, " ") && strings.Count(in, "--") > 1 {
			argv = strings.Fields(in)
		}
		got := placeholders(append([]string{"python"}, argv...), nil)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

// TestTie covers what a number's unit and name must show before a rule is made.
func TestPrintRules(t *testing.T) {
	for src, want := range map[string]string{
		`print(f"test accuracy: {100 * ok / n:.2f}%")`:               `test\s+accuracy:\s*NUM %`,
		`print("accuracy", ok / n)`:                                  `accuracy\s*NUM ratio?`,
		`print(f"{name}: accuracy {a:.2f}")`:                         "",
		`print(f"epoch {epoch}: accuracy {a:.2f}")`:                  `epoch\s*\S+?:\s+accuracy\s*NUM`,
		`print("Accuracy of the network on the %d test images" % n)`: "",
		`print(f"accuracy", file=sys.stderr)`:                        "",
		`logging.info("WER: %.2f", wer)`:                             `WER:\s*NUM`,
		`print("lr", lr)`:                                            "",
		`print("accuracy and loss:", a)`:                             "",
	} {
		f := facts(t, map[string]string{"README.md": "```\npython run.py\n```\n", "run.py": src + "\n"})
		var c *Command
		for _, x := range Commands(f) {
			if x.Entry == "run.py" {
				c = x
			}
		}
		got := ""
		for _, n := range Numbers(f, c) {
			got = strings.TrimSpace(strings.Replace(n.Rule.Pattern, numberPart, "NUM", 1) + " " + n.Unit)
		}
		if got != want {
			t.Errorf("%s\n got %q\nwant %q", src, got, want)
		}
	}
}

// TestLabelsEndWhereTheyEnd: of two labels one may begin as the other.
func TestLabelsEndWhereTheyEnd(t *testing.T) {
	f := facts(t, map[string]string{"README.md": "```\n$ python run.py\n{'pass@1': 0.3, 'pass@10': 1.0}\n```\n", "run.py": "print(score())\n"})
	got := map[string]string{}
	for _, n := range Numbers(f, Commands(f)[0]) {
		for _, m := range regexp.MustCompile(n.Rule.Pattern).FindAllStringSubmatch("{'pass@1': np.float64(0.3), 'pass@10': 1.0}", -1) {
			got[n.Label] = m[1]
		}
	}
	if d := cmp.Diff(map[string]string{"pass@1": "0.3", "pass@10": "1.0"}, got); d != "" {
		t.Error(d)
	}
}

// TestWithheld: a statement that a file needs is put in force, as a change of
// the run that reaches the file.
func TestWithheld(t *testing.T) {
	f := facts(t, map[string]string{
		"README.md": "```\npython eval.py\n```\n", "eval.py": "import harness\n",
		"harness.py": "def go(p):\n    with limit():\n# uncomment this:\n#         exec(p)\n    return 1\n", "other.py": "if x:\n#     run()\ny = 1\n",
	})
	c := Commands(f)[0]
	if len(c.Patches) != 1 || c.Patches[0].File != "harness.py" || c.Patches[0].Line != 4 || c.Patches[0].After != "          exec(p)" {
		t.Errorf("patches %+v", c.Patches)
	}
}

func TestSmokeSets(t *testing.T) {
	f := facts(t, map[string]string{
		"README.md": "```\npython train.py --epochs=90\n```\n",
		"train.py":  "import argparse, numpy\np = argparse.ArgumentParser()\np.add_argument('--epochs', type=int)\np.add_argument('--max_steps', type=int)\np.parse_args()\n",
	})
	ch := Choose(f, Commands(f), nil)
	var kinds []string
	for _, r := range ch.Runs {
		kinds = append(kinds, fmt.Sprintf("%s %q selected=%v", r.Kind, r.Argv, r.Selected))
	}
	want := []string{
		`smoke ["python" "train.py" "--epochs=90" "--max_steps" "10"] selected=false`,
		`minimal ["python" "train.py" "--epochs=90"] selected=true`, `full ["python" "train.py" "--epochs=90"] selected=false`,
	}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Error(d)
	}
	if p := ch.Runs[0].Patches; len(p) != 1 || p[0].File != "train.py" || p[0].Line != 4 {
		t.Errorf("patches %+v", p)
	}
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"cd x && A=1 python run.py", "python -m", "torchrun --nproc_per_node", "uv run", "bash", "for", "$(", "python ../../x", "export A=$B", "cd ~", "python - <<E\nE", "CUDA_VISIBLE_DEVICES=9,9 python run.py", "jupyter nbconvert"} {
		f.Add(s)
	}
	r := &resolver{f: facts(f, tree)}
	f.Fuzz(func(t *testing.T, s string) {
		st := &state{cwd: ".", env: map[string]string{}, block: map[string]bool{}}
		c := r.line(markdown.Command{Text: s, Line: 1}, ".", st)
		if strings.HasPrefix(c.Cwd, "..") || strings.HasPrefix(c.Cwd, "/") || strings.HasPrefix(st.cwd, "..") {
			t.Fatalf("%q leaves the checkout: %q", s, c.Cwd)
		}
		if c.Entry != "" && !r.f.Has(c.Entry) {
			t.Fatalf("%q: entry %q does not exist", s, c.Entry)
		}
		if c.Script != nil && len(c.Argv) > 0 {
			t.Fatalf("%q: both a script and arguments", s)
		}
	})
}
