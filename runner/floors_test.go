package runner

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
)

func bumped() spec.Environment {
	when := time.Date(2022, 5, 1, 0, 0, 0, 0, time.UTC)
	return spec.Environment{
		SKU: "b200", ExcludeNewer: &when, Framework: spec.FrameworkFact{Name: "pytorch", VersionFact: spec.VersionFact{Version: "1.10.1+cu113"}},
		SKUs: map[string]spec.SKUFit{"b200": {Status: "needs_bump", Deviations: []spec.Deviation{
			{What: "torch", Declared: "1.10.1", Used: "2.7.1+cu128", Reason: "sm_100"}, {What: "Python", Declared: "3.7", Used: "3.10"},
			{What: "flash_attn", Declared: "0.2", Used: "2.8.0"}, {What: "jax", Declared: "jax[cuda]", Used: "jax[cuda12]"},
		}}},
		Indexes: []spec.Index{
			{URL: "https://download.pytorch.org/whl/cu113", Kind: "index"}, {URL: "https://wheels.example/links.html", Kind: "find_links"},
			{URL: "http://plain.example/simple", Kind: "index"}, {URL: "https://more.example/simple", Kind: "index"}, {URL: "conda-forge", Kind: "channel"},
			{URL: "https://u:secret@private.example/simple", Kind: "index"},
		},
	}
}

func TestMoved(t *testing.T) {
	e := bumped()
	m := moved(&e)
	if m.python != "3.10" || m.pins["torch"] != "==2.7.1" || m.pins["flash-attn"] != "==2.8.0" || m.index != "https://download.pytorch.org/whl/cu128" || !m.newer || len(m.pins) != 2 {
		t.Errorf("%+v", m)
	}
	if len(m.devs) != 3 {
		t.Errorf("what nothing can be installed by counts as applied: %+v", m.devs)
	}
	e.SKU = ""
	if m := moved(&e); len(m.pins) != 0 || m.index != "" || m.python != "" {
		t.Errorf("without a GPU model: %+v", m)
	}
	e.SKU, e.SKUs["b200"] = "b200", spec.SKUFit{Deviations: []spec.Deviation{{What: "CUDA", Declared: "11.3", Used: "11.8"}}}
	if m := moved(&e); m.index != "https://download.pytorch.org/whl/cu118" || m.pins["torch"] != "==1.10.1" || m.newer {
		t.Errorf("another build of the same version: %+v", m)
	}
	e.SKUs["b200"] = spec.SKUFit{Deviations: []spec.Deviation{{What: "torch", Declared: "none newer than 2022-05-01", Used: "2.11.0"}}}
	e.Framework.Version = ""
	if m := moved(&e); len(m.pins) != 0 || !m.newer {
		t.Errorf("the newest release: %+v", m)
	}
	e.SKUs["b200"] = spec.SKUFit{Deviations: []spec.Deviation{{What: "tensorflow", Declared: "1.15", Used: "none", Reason: "r"}}}
	if m := moved(&e); !strings.Contains(m.none, "no release of tensorflow") {
		t.Errorf("no release: %+v", m)
	}
}

func TestMoveRequirement(t *testing.T) {
	m := moves{pins: map[string]string{"torch": "==2.7.1", "flash-attn": "==2.8.0"}}
	for in, want := range map[string]string{
		"torch==1.10.1+cu113":                 "torch==2.7.1",
		"torch>=1.8,<2":                       "torch==2.7.1",
		"  torch == 1.8.0  # old":             "torch==2.7.1",
		"torch[extra]~=1.0 ; os_name=='nt' #": "torch[extra]==2.7.1 ; os_name=='nt'",
		"Flash_Attn==0.2":                     "Flash_Attn==2.8.0",
		"torchvision==0.9":                    "torchvision==0.9",
		"# torch==1":                          "# torch==1",
		"torch @ https://x/y.whl":             "torch @ https://x/y.whl",
		"-r torch":                            "-r torch",
		"":                                    "",
	} {
		if got, _ := m.requirement(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestMoveFiles(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755))
	for name, body := range map[string]string{
		"r.txt": "numpy\ntorch==1.10.1\n-r sub/more.txt\r\n-r none.txt\n", "sub/more.txt": "flash-attn==0.2\n-r ../r.txt\n", "other.txt": "torch==1.0\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o644))
	}
	m := moves{pins: map[string]string{"torch": "==2.7.1", "flash-attn": "==2.8.0"}}
	for range 2 { // an interrupted installation comes here again
		args, err := m.apply(dir, []string{"-r", "r.txt", "torch>=1", "-e", "."})
		if err != nil || !slices.Equal(args, []string{"-r", "r.txt", "torch==2.7.1", "-e", "."}) {
			t.Fatalf("%q, %v", args, err)
		}
		for name, want := range map[string]string{
			"r.txt": "numpy\ntorch==2.7.1\n-r sub/more.txt\r\n-r none.txt\n", "sub/more.txt": "flash-attn==2.8.0\n-r ../r.txt\n", "other.txt": "torch==1.0\n",
		} {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
				t.Errorf("%s is %q, want %q (%v)", name, got, want, err)
			}
		}
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "l.txt")))
	if _, err := m.apply(dir, []string{"-r", "l.txt"}); err == nil {
		t.Error("a link out of the tree is followed")
	}
}

// TestInstallMoved: overrides for uv, rewritten arguments for pip, and the
// places that the repository names.
func TestInstallMoved(t *testing.T) {
	for _, uv := range []bool{true, false} {
		dir := t.TempDir()
		d := &drive{Runner: &Runner{cfg: Config{
			Getenv: func(string) string { return "" }, LookPath: func(string) (string, error) {
				if uv {
					return "/bin/sh", nil
				}
				return "", exec.ErrNotFound
			},
		}}, dir: dir, run: store.Run{ID: "R"}, plan: &spec.Plan{Environment: bumped()}}
		must(t, os.MkdirAll(d.cache(), 0o755))
		must(t, os.MkdirAll(d.work(), 0o755))
		m := moved(&d.plan.Environment)
		steps, devs, err := d.installSteps(Interpreter{Path: "/usr/bin/python3"}, []string{"torch==1.10.1"}, &m)
		must(t, err)
		in := steps[1]
		line := strings.Join(in.Argv, " ")
		if strings.Contains(line, "--exclude-newer") || !strings.Contains(line, "--find-links https://wheels.example/links.html") {
			t.Errorf("uv %v: %s", uv, line)
		}
		if uv {
			b, err := os.ReadFile(filepath.Join(d.cache(), "overrides.txt"))
			if err != nil || string(b) != "flash-attn==2.8.0\ntorch==2.7.1\n" || !strings.Contains(line, "--override "+d.cache()) {
				t.Errorf("overrides %q, %v; %s", b, err, line)
			}
		} else if !strings.HasSuffix(line, " torch==2.7.1") {
			t.Errorf("pip: %s", line)
		}
		for _, h := range []string{"download.pytorch.org:443", "download-r2.pytorch.org:443", "more.example:443", "wheels.example:443"} {
			if !slices.Contains(in.Network.Hosts, h) {
				t.Errorf("%s is not reached: %v", h, in.Network.Hosts)
			}
		}
		for _, h := range in.Network.Hosts {
			if strings.Contains(h, "plain") || strings.Contains(h, "private") {
				t.Errorf("%s is reached", h)
			}
		}
		if got := in.Env["PIP_EXTRA_INDEX_URL"]; got != "https://more.example/simple https://download.pytorch.org/whl/cu128" || in.Env["UV_INDEX"] != got || in.Env["UV_INDEX_STRATEGY"] == "" {
			t.Errorf("extra indexes %q, %v", got, in.Env)
		}
		if n := len(devs); n != 7 { // three places that are used, three that cannot be, and the date
			t.Errorf("%d deviations: %+v", n, devs)
		}
	}
}

// FuzzMoveRequirement: a line that is changed names the same distribution with
// the pin, and is changed to itself the next time.
func FuzzMoveRequirement(f *testing.F) {
	for _, s := range []string{"torch==1", "torch[a,b]>=1 ; python_version<'3'", "Torch", "torch;", "torch @ x", "torch\x00", " torch#"} {
		f.Add(s)
	}
	m := moves{pins: map[string]string{"torch": "==2.7.1"}}
	f.Fuzz(func(t *testing.T, line string) {
		now, changed := m.requirement(line)
		if !changed {
			if now != line {
				t.Fatalf("%q becomes %q without being changed", line, now)
			}
			return
		}
		again, _ := m.requirement(now)
		if again != now || !strings.Contains(now, "==2.7.1") || strings.Count(now, "\n") > strings.Count(line, "\n") {
			t.Fatalf("%q becomes %q, and then %q", line, now, again)
		}
	})
}
