package python

import (
	"strings"
	"testing"
)

func TestRows(t *testing.T) {
	tests := map[string]string{
		`ds = load_dataset("glue", "sst2", split="validation")`:  `ds = load_dataset("glue", "sst2", split="validation[:100]")`,
		`    test = load_dataset(name, split='test').shuffle()`:  `    test = load_dataset(name, split='test[:100]').shuffle()`,
		`ds = tfds.load("mnist", split="train")`:                 `ds = tfds.load("mnist", split="train[:100]")`,
		`df = pd.read_csv(os.path.join(root, "a.csv"))`:          `df = pd.read_csv(os.path.join(root, "a.csv"), nrows=100)`,
		`df = pd.read_csv(path, sep=",", )[cols]`:                `df = pd.read_csv(path, sep=",", nrows=100)[cols]`,
		`data = [json.loads(l) for l in open(path)]`:             `data = [json.loads(l) for l in open(path)][:100]`,
		`lines = f.read().splitlines()`:                          `lines = f.read().splitlines()[:100]`,
		`ds = load_dataset("glue", "sst2")`:                      "",
		`ds = load_dataset("c4", split="train[:1%]")`:            "",
		`df = pd.read_csv(path, nrows=5)`:                        "",
		`df = pd.read_csv(`:                                      "",
		`df = pd.read_csv()`:                                     "",
		`# ds = load_dataset("glue", split="test")`:              "",
		`for l in f.readlines():`:                                "",
		"'''\nds = load_dataset('glue', split='test')\n'''":      "",
		"x = 1\r\nds = load_dataset('glue', split='test')\r\n":   "",
		"\"\"\" one line \"\"\"\nlines = open(p).readlines()\n#": "lines = open(p).readlines()[:100]",
	}
	for src, want := range tests {
		got := ""
		for _, r := range Scan(src).Rows {
			got = r.After
			if lines := strings.Split(src, "\n"); lines[r.Line-1] != r.Before {
				t.Errorf("%q: line %d is not %q", src, r.Line, r.Before)
			}
		}
		if got != want {
			t.Errorf("%q:\n got %q\nwant %q", src, got, want)
		}
	}
}

func TestHydra(t *testing.T) {
	h := Scan("import hydra\n@hydra.main(version_base=None, config_path='conf', config_name=\"train.yaml\")\ndef main(cfg): pass\n").Hydra
	if h == nil || *h != (Hydra{Path: "conf", Name: "train.yaml"}) {
		t.Errorf("%+v", h)
	}
	if Scan("import hydra\nhydra.utils.call(x)\n").Hydra != nil {
		t.Error("a program that only uses its helpers")
	}
}

func FuzzRows(f *testing.F) {
	for _, s := range []string{`pd.read_csv("a)b", x)`, `load_dataset(a, split="b")`, `x = [json.loads(l) for l in f]`, "'''\nx = f.readlines()", `pd.read_csv(a, "\")`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(s, "\n")
		for _, r := range rows(s) {
			if r.Line < 1 || r.Line > len(lines) || lines[r.Line-1] != r.Before || r.After == r.Before || strings.Contains(r.After, "\n") {
				t.Errorf("%+v", r)
			}
		}
	})
}
