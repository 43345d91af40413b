package recipe

import (
	"testing"
	"time"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

func TestFit(t *testing.T) {
	old := time.Date(2021, 3, 1, 0, 0, 0, 0, time.UTC)
	type want struct{ h100, b200 string }
	cases := map[string]struct {
		framework, version, python, cuda string
		deps                             string // requirements.txt
		args                             []string
		gpus                             int
		want                             want
		used                             string // first deviation on b200
	}{
		"pinned and new":         {framework: "pytorch", version: "==2.9.1", want: want{"ok", "ok"}},
		"old pin":                {framework: "pytorch", version: "==1.10.1", want: want{"needs_bump", "needs_bump"}, used: "2.7.1+cu128"},
		"between the floors":     {framework: "pytorch", version: "==2.4.1", want: want{"ok", "needs_bump"}, used: "2.7.1+cu128"},
		"build for another CUDA": {framework: "pytorch", version: "==2.0.1", want: want{"other_cuda_build", "needs_bump"}, used: "2.7.1+cu128"},
		"index default too old":  {framework: "pytorch", version: "==2.7.0", want: want{"ok", "other_cuda_build"}, used: "12.8"},
		"local label":            {framework: "pytorch", version: "==2.7.0+cu118", want: want{"ok", "other_cuda_build"}, used: "12.8"},
		"lower bound":            {framework: "pytorch", version: ">=1.7", want: want{"ok", "ok"}, used: "2.11.0"},
		"upper bound":            {framework: "pytorch", version: ">=1.7,<2", want: want{"needs_bump", "needs_bump"}, used: "2.7.1+cu128"},
		"nothing stated":         {framework: "pytorch", want: want{"ok", "ok"}},
		"python too old":         {framework: "pytorch", python: "3.7", want: want{"needs_bump", "needs_bump"}},
		"python holds it back":   {framework: "pytorch", version: ">=2.1", python: "3.8", want: want{"ok", "needs_bump"}, used: "2.7.1+cu128"},
		"tf1 on the CPU":         {framework: "tensorflow", version: "==1.6.0", want: want{"cpu_ok", "cpu_ok"}},
		"tf1 that needs a GPU":   {framework: "tensorflow", version: "==1.15", gpus: 1, want: want{"needs_bump", "needs_bump"}, used: "none"},
		"tf of today":            {framework: "tensorflow", version: "==2.19.0", want: want{"ok", "unknown"}},
		"jax before the floor":   {framework: "jax", version: "==0.4.14", want: want{"unknown", "needs_bump"}, used: "0.6.2+cu128"},
		"extra that is gone":     {framework: "jax", version: ">=0.4.2", deps: "jax[cuda11_cudnn86]>=0.4.2\n", want: want{"needs_bump", "needs_bump"}, used: "0.8.0"},
		"own binaries":           {framework: "pytorch", deps: "bitsandbytes==0.40.0\n", want: want{"unknown", "needs_bump"}, used: "2.11.0"},
		"companion":              {framework: "pytorch", deps: "timm==0.3.2\n", want: want{"needs_bump", "needs_bump"}, used: "2.11.0"},
		"classic control":        {framework: "pytorch", version: "==2.4.1", args: []string{"--env-id", "CartPole-v1"}, want: want{"ok", "cpu_ok"}},
		"no framework":           {want: want{"cpu_ok", "cpu_ok"}},
		"another framework":      {framework: "mxnet", version: "1.9", want: want{"unknown", "unknown"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			env := &Environment{}
			env.Manager = "pip"
			env.Framework.Name, env.Framework.Version = c.framework, c.version
			env.Python.Version, env.CUDA.Version = c.python, c.cuda
			f := &inspect.Facts{}
			if c.deps != "" {
				f.Dependencies = append(f.Dependencies, *inspect.ParseDependency("requirements.txt", c.deps))
				env.DependencySources = []spec.DependencyFile{{Path: "requirements.txt", Role: "primary"}}
			}
			fits, err := Fit(f, env, &Command{Args: c.args}, &spec.Run{GPUs: spec.GPUNeed{Min: c.gpus}}, GPUs(), &old)
			if err != nil {
				t.Fatal(err)
			}
			if got := (want{fits["h100"].Status, fits["b200"].Status}); got != c.want {
				t.Errorf("got %+v, want %+v (%+v)", got, c.want, fits["b200"])
			}
			if fits["h100"].Status != fits["h200"].Status || fits["b200"].Status != fits["gb200"].Status {
				t.Error("GPUs of one generation differ")
			}
			used := ""
			if d := fits["b200"].Deviations; len(d) > 0 {
				used = d[0].Used
			}
			if c.used != "" && used != c.used {
				t.Errorf("used %q, want %q: %+v", used, c.used, fits["b200"])
			}
			for id, fit := range fits {
				for _, d := range fit.Deviations {
					if d.What == "" || d.Reason == "" || d.Used == "" {
						t.Errorf("%s: deviation %+v says too little", id, d)
					}
				}
			}
		})
	}
}

// TestFitTable holds the embedded data together: every list in order, every
// floor and replacement a build that exists, every part with its source.
func TestFitTable(t *testing.T) {
	tab, err := readFit()
	if err != nil {
		t.Fatal(err)
	}
	for name, fw := range map[string]*framework{"torch": tab.Torch, "tensorflow": tab.TensorFlow, "jax": tab.JAX} {
		if fw.Source == "" {
			t.Errorf("%s has no source", name)
		}
		prev := ""
		for _, b := range fw.Builds {
			for _, v := range b.Versions {
				if prev != "" && !less(prev, v) {
					t.Errorf("%s: %s stands after %s", name, v, prev)
				}
				prev = v
			}
			if len(b.CUDA) == 0 || b.atLeast(b.Default) != b.Default || less(b.Python[1], b.Python[0]) {
				t.Errorf("%s %v: builds %v, default %s, Python %v", name, b.Versions, b.CUDA, b.Default, b.Python)
			}
		}
		for _, fl := range fw.Floors {
			if fl.Source == "" || fl.Released == "" {
				t.Errorf("%s: the floor of %d has no source or date", name, fl.Capability)
			}
			if fl.Used != "" && (less(fl.Used, fl.Version) || fw.build(fl.Used) == nil) {
				t.Errorf("%s: %s cannot stand in for %s", name, fl.Used, fl.Version)
			}
		}
	}
	for _, c := range tab.Companions {
		if c.Source == "" || c.Reason == "" {
			t.Errorf("%s has no source", c.Package)
		}
	}
}

func TestAllows(t *testing.T) {
	cases := []struct {
		clauses, v string
		want       bool
	}{
		{"", "3.9", true}, {"3.9", "3.9", true}, {"3.9", "3.10", false}, {"==3.8.5", "3.8", true}, {">=3.8,<3.11", "3.10", true}, {">=3.8,<3.11", "3.11", false},
		{">=2.1", "2.1.0", true}, {"<2", "1.13.1", true}, {"<2", "2.0.0", false}, {"~=2.1", "2.5.0", true}, {"~=2.1", "3.0.0", false}, {"==2.4.*", "2.4.1", true},
		{"!=2.0.0", "2.0.0", false}, {">1.5", "1.5.1", true}, {"<=1.8.1", "1.9.0", false}, {"who knows", "1.0", true},
	}
	for _, c := range cases {
		if got := allows(c.clauses, c.v); got != c.want {
			t.Errorf("allows(%q, %q) = %v", c.clauses, c.v, got)
		}
	}
}
