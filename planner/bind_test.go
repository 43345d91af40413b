package planner

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/planner/spec"
)

// needy is a plan whose minimal run lacks several things.
func needy() *spec.Plan {
	p := &spec.Plan{
		Target: spec.Target{Kind: "git"}, Source: spec.Source{Repo: "https://example.org/x"}, Environment: spec.Environment{Manager: "pip"},
		Claims: []spec.Claim{},
		Runs: []spec.Run{{
			ID: "minimal", Kind: "minimal", Route: "eval_checkpoint", Cwd: "sub", Status: "manual_data", Quoted: true,
			Command:      "python main.py --data_path ${IMAGENET_DIR}/val --resume r50.pth --model N --task [mnli/qqp] input.csv",
			Argv:         []string{"python", "main.py", "--data_path", "$IMAGENET_DIR/val", "--resume", "r50.pth", "--model", "N", "--task", "[mnli/qqp]", "input.csv"},
			Env:          map[string]string{"ROOT": "${IMAGENET_DIR}"},
			Placeholders: []string{"${IMAGENET_DIR}", "N", "[mnli/qqp]"},
			Assets:       []spec.Asset{{Kind: "checkpoint", Name: "r50.pth", Access: "missing"}},
		}},
	}
	r := &p.Runs[0]
	for _, ph := range r.Placeholders {
		need(r, "placeholder", ph, "manual_data", "unbound placeholder "+ph)
	}
	need(r, "file", "input.csv", "manual_data", "input.csv is not in the repository, and no step makes it")
	need(r, "file", "splits/test.json", "manual_data", "splits/test.json is not in the repository, and no step makes it")
	need(r, "checkpoint", "r50.pth", "manual_data", "r50.pth is not in the repository, and no step fetches it")
	p.Warnings = []spec.Warning{{Code: "nothing_selected"}}
	Flags(p)
	p.Seal()
	return p
}

func data(name, path string) spec.Binding {
	return spec.Binding{Kind: "data", Name: name, Path: path, SHA256: strings.Repeat("a", 64), Files: 2, Bytes: 3}
}

func TestFlags(t *testing.T) {
	var got []string
	for _, n := range needy().Runs[0].Needs {
		got = append(got, n.Flag)
	}
	want := []string{"--data IMAGENET_DIR=DIR", "--set N=VALUE", "--set task=VALUE", "--data input.csv=FILE", "--data test.json=FILE", "--checkpoint r50.pth=PATH"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestBindAll: what the plan asks for, given, makes the run ready.
func TestBindAll(t *testing.T) {
	p := needy()
	ckpt := data("r50.pth", "/ck/other.pth")
	ckpt.Kind = "checkpoint"
	err := Bind(p, []spec.Binding{
		data("IMAGENET_DIR", "/data/imagenet"), {Kind: "set", Name: "N", Value: "vit_b"}, {Kind: "set", Name: "task", Value: "mnli"},
		data("input.csv", "/d/in.csv"), data("splits/test.json", "/d/t.json"), ckpt,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := p.Runs[0]
	want := []string{"python", "main.py", "--data_path", "{bind:IMAGENET_DIR}/val", "--resume", "{bind:r50.pth}", "--model", "vit_b", "--task", "mnli", "{bind:input.csv}"}
	if d := cmp.Diff(want, r.Argv); d != "" {
		t.Error(d)
	}
	if r.Env["ROOT"] != "{bind:IMAGENET_DIR}" {
		t.Errorf("environment %v", r.Env)
	}
	if r.Status != "auto" || !r.Selected || len(r.Placeholders)+len(r.Needs)+len(r.Reasons) > 0 || r.Quoted || r.Assets[0].Access != "bound" {
		t.Errorf("the run is %+v", r)
	}
	if shown := p.Shown(r.Command); !strings.Contains(shown, "/data/imagenet/val") || !strings.Contains(shown, "--resume /ck/other.pth") && !strings.Contains(shown, "'/ck/other.pth'") {
		t.Errorf("shown as %s", shown)
	}
	if i := slices.IndexFunc(p.Bindings, func(b spec.Binding) bool { return b.For == "splits/test.json" }); i < 0 || p.Bindings[i].Place != "sub/splits/test.json" {
		t.Errorf("bindings %+v", p.Bindings)
	}
	if len(p.Warnings) != 1 || p.Warnings[0].Code != "nothing_to_collect" {
		t.Errorf("warnings %+v", p.Warnings)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
	if p.Hash != p.ComputeHash() {
		t.Error("the plan is not sealed")
	}
}

// TestBindHash: where data lies leaves the plan what it is; what it holds does
// not.
func TestBindHash(t *testing.T) {
	bind := func(path, sum string) string {
		p, b := needy(), data("IMAGENET_DIR", path)
		b.SHA256 = sum
		if err := Bind(p, []spec.Binding{b}); err != nil {
			t.Fatal(err)
		}
		p.Runs[0].Selected = true
		return p.ComputeHash()
	}
	a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
	if bind("/x", a) != bind("/y", a) {
		t.Error("the place of the data changes the hash")
	}
	if bind("/x", a) == bind("/x", b) {
		t.Error("the content of the data does not change the hash")
	}
}

func TestBindPartly(t *testing.T) {
	p := needy()
	if err := Bind(p, []spec.Binding{data("IMAGENET_DIR", "/data")}); err != nil {
		t.Fatal(err)
	}
	r := p.Runs[0]
	if r.Status != "manual_data" || r.Selected || len(r.Needs) != 5 || slices.Contains(r.Placeholders, "${IMAGENET_DIR}") {
		t.Errorf("the run is %+v", r)
	}
	// Bound again, on another machine.
	again := data("IMAGENET_DIR", "/other")
	again.SHA256 = strings.Repeat("c", 64)
	if err := Bind(p, []spec.Binding{again}); err != nil || len(p.Bindings) != 1 || p.Bindings[0].Path != "/other" || p.Bindings[0].SHA256 != again.SHA256 {
		t.Errorf("bound again: %v, %+v", err, p.Bindings)
	}
}

// TestBindFetched: what is given is not fetched any more.
func TestBindFetched(t *testing.T) {
	p := needy()
	r := &p.Runs[0]
	r.Needs, r.Placeholders, r.Reasons = nil, nil, []string{"needs the network: w.pth", "a step before it needs the network: wget -O w.pth https://x.example/w.pth"}
	r.Argv = []string{"python", "main.py", "--resume", "w.pth"}
	r.Assets = []spec.Asset{{Kind: "checkpoint", Name: "w.pth", URL: "https://x.example/w.pth", Access: "auto"}}
	r.Setup = []spec.Step{{Argv: []string{"python", "prepare.py"}}, {Argv: []string{"wget", "-O", "w.pth", "https://x.example/w.pth"}, Network: true}}
	r.Status = "auto"
	b := data("w.pth", "/d/w.pth")
	b.Kind = "checkpoint"
	if err := Bind(p, []spec.Binding{b}); err != nil {
		t.Fatal(err)
	}
	if len(r.Setup) != 1 || r.Argv[3] != "{bind:w.pth}" || len(r.Reasons) != 0 || r.Assets[0].Access != "bound" {
		t.Errorf("%+v", r)
	}
	// An address in the command itself is replaced as well.
	q := needy()
	r = &q.Runs[0]
	r.Argv = []string{"python", "main.py", "--resume=https://x.example/w.pth"}
	r.Assets = []spec.Asset{{Kind: "checkpoint", Name: "w.pth", URL: "https://x.example/w.pth", Access: "auto"}}
	r.Needs, r.Placeholders = nil, nil
	if err := Bind(q, []spec.Binding{b}); err != nil || r.Argv[2] != "--resume={bind:w.pth}" {
		t.Errorf("%v, %q", err, r.Argv)
	}
}

func TestBindPlace(t *testing.T) {
	p := needy()
	if err := Bind(p, []spec.Binding{data("./data/train", "/d")}); err != nil {
		t.Fatal(err)
	}
	b := p.Bindings[0]
	if b.Place != "data/train" || b.Name != "train" || len(b.Runs) != 1 || p.Runs[0].Argv[3] != "$IMAGENET_DIR/val" {
		t.Errorf("%+v", b)
	}
}

func TestBindRefuses(t *testing.T) {
	script := needy()
	script.Runs[0].Script, script.Runs[0].Argv = &spec.Script{Interpreter: "bash", Text: "x ${IMAGENET_DIR} N"}, nil
	for name, c := range map[string]struct {
		plan *spec.Plan
		give spec.Binding
		want string
	}{
		"unknown set":     {needy(), spec.Binding{Kind: "set", Name: "M", Value: "1"}, "the plan knows: --data IMAGENET_DIR=DIR, --set N=VALUE, --set task=VALUE"},
		"unknown data":    {needy(), data("coco", "/x"), "--checkpoint r50.pth=PATH"},
		"file by set":     {needy(), spec.Binding{Kind: "set", Name: "input.csv", Value: "1"}, "--data input.csv=FILE"},
		"outside":         {needy(), data("./../x", "/x"), "leaves the checkout"},
		"root":            {needy(), data("./", "/x"), "leaves the checkout"},
		"nothing to bind": {&spec.Plan{}, spec.Binding{Kind: "set", Name: "M"}, "holds no placeholder"},
		"shell":           {script, data("IMAGENET_DIR", "/a b;rm"), "shell script"},
		"shell value":     {script, spec.Binding{Kind: "set", Name: "N", Value: "$(id)"}, "shell script"},
	} {
		err := Bind(c.plan, []spec.Binding{c.give})
		var user *InputError
		if !errors.As(err, &user) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	p := needy()
	if err := Bind(p, []spec.Binding{{Kind: "set", Name: "N", Value: "1"}, {Kind: "set", Name: "N", Value: "2"}}); err == nil {
		t.Error("one placeholder is set twice")
	}
}

func TestReplace(t *testing.T) {
	for _, c := range []struct{ word, ph, with, want string }{
		{"--n=N", "N", "4", "--n=4"},
		{"--N", "N", "4", "--N"},
		{"N", "N", "4", "4"},
		{"NN", "N", "4", "NN"},
		{"a/N/b", "N", "N", "a/N/b"},
		{"x/TODO/y", "TODO", "v", "x/v/y"},
		{"/path/to/x.pth", "/path/to/x.pth", "/y", "/y"},
		{"${A}/x$A$AB", "${A}", "/d", "/d/x/d$AB"},
		{"python x N N\nrun N", "N", "3", "python x 3 3\nrun 3"},
		{"<data dir>/a", "<data dir>", "d", "d/a"},
	} {
		if got, in := replace(c.word, c.ph, c.with); got != c.want || in != (c.word != c.want || c.ph == c.with) {
			t.Errorf("replace(%q, %q) = %q, %v, want %q", c.word, c.ph, got, in, c.want)
		}
	}
}

func TestShortName(t *testing.T) {
	for in, want := range map[string]string{
		"/path/to/imagenet": "imagenet", "<YOUR_IMAGENET_PATH>": "IMAGENET_PATH", "${IMAGENET_DIR}": "IMAGENET_DIR", "path/to/": "opt", "<path>": "opt",
		"<data dir>": "data_dir", "data/splits/test.json": "test.json", "path_to_coco": "coco", "...": "opt", "{DATA}": "DATA", "ü/ÿ": "value", "[a/b]": "opt",
	} {
		if got := shortName(in, "opt"); got != want {
			t.Errorf("shortName(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzBind: whatever a document calls a placeholder, binding it leaves a
// document that can be run or an error.
func FuzzBind(f *testing.F) {
	f.Add("${A}", "x $A ${A}", "v")
	f.Add("N", "--n=N", "N")
	f.Add("[a/b]", "[a/b]", "\x00")
	f.Add("<x y>", "'<x y>'", "{bind:x}")
	f.Fuzz(func(t *testing.T, ph, word, value string) {
		p := needy()
		r := &p.Runs[0]
		r.Placeholders, r.Argv = append(r.Placeholders, ph), append(r.Argv, word)
		p.Seal()
		if p.Validate() != nil {
			return
		}
		list := targets(p)
		seen := map[string]bool{}
		for _, x := range list {
			if seen[x.name] {
				t.Fatalf("two targets are called %s", x.name)
			}
			seen[x.name] = true
		}
		b := data(ph, "/d")
		if Bind(p, []spec.Binding{b}) == nil {
			if err := p.Validate(); err != nil {
				t.Fatalf("binding %q breaks the plan: %v", ph, err)
			}
		}
	})
}
