package runner

import (
	"fmt"
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

// pythons makes interpreters that answer the probe; "broken" ones fail it.
func pythons(t *testing.T, versions map[string]string) func(string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, v := range versions {
		body := fmt.Sprintf("#!/bin/sh\necho %s\necho %s\necho /opt/py\n", filepath.Join(dir, name), v)
		if v == "broken" {
			body = "#!/bin/sh\necho no version set >&2\nexit 127\n"
		}
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(body), 0o755))
	}
	return func(name string) (string, error) {
		if _, ok := versions[name]; !ok {
			return "", exec.ErrNotFound
		}
		return filepath.Join(dir, name), nil
	}
}

func TestFindPython(t *testing.T) {
	all := map[string]string{"python3": "3.11", "python3.11": "3.11", "python3.9": "3.9", "python3.13": "3.13", "python3.8": "broken"}
	for _, c := range []struct {
		have      map[string]string
		want, got string
		deviates  bool
	}{
		{all, "", "3.11", false},
		{all, "3.9", "3.9", false},
		{all, "3.9.7", "3.9", false},
		{all, "==3.9.*", "3.9", false},
		{all, ">=3.9", "3.9", false},
		{all, ">=3.10", "3.13", false},
		{all, ">= 3.10,<3.12", "3.13", false},
		{all, ">=3.14", "3.13", true},
		{all, "3.7", "3.13", true},
		{all, "3.8", "3.13", true},
		{all, "2.7", "3.13", true},
		{all, "nonsense", "3.11", false},
		{map[string]string{"python": "3.10"}, "3.8", "3.10", true},
		{map[string]string{"python3": "3.12"}, "3.12", "3.12", false},
		{map[string]string{"python3": "broken"}, "", "", false},
		{nil, "3.9", "", false},
	} {
		d := &drive{Runner: &Runner{cfg: Config{LookPath: pythons(t, c.have)}}}
		py, devs, err := d.findPython(t.Context(), c.want)
		if err != nil || py.Version != c.got || (len(devs) > 0) != c.deviates {
			t.Errorf("findPython(%q) = %+v, %+v, %v; want %s, deviation %v", c.want, py, devs, err, c.got, c.deviates)
		}
	}
}

func TestInstallSteps(t *testing.T) {
	env := map[string]string{
		"PIP_INDEX_URL": "https://user:secret@index.example/simple", "PIP_EXTRA_INDEX_URL": "http://other.example:8080/s ftp://x",
		"HF_TOKEN": "secret", "PIP_CERT": "/dev/null", "AWS_SECRET_ACCESS_KEY": "secret",
	}
	when := time.Date(2024, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, uv := range []bool{true, false} {
		d := &drive{Runner: &Runner{cfg: Config{
			Getenv: func(k string) string { return env[k] }, LookPath: func(string) (string, error) {
				if uv {
					return "/bin/sh", nil
				}
				return "", exec.ErrNotFound
			},
		}}, dir: "/state/runs/R", run: store.Run{ID: "R"}, plan: &spec.Plan{Environment: spec.Environment{ExcludeNewer: &when}}}
		steps, devs, err := d.installSteps(Interpreter{Path: "/opt/py/bin/python3.9", Version: "3.9", Prefix: "/opt/py"}, []string{"-r", "r.txt", "x"}, &moves{})
		must(t, err)
		if len(steps) != 2 || len(steps[0].Network.Hosts) != 0 {
			t.Fatalf("steps = %+v", steps)
		}
		in := steps[1]
		if !slices.Equal(in.Network.Hosts, []string{"index.example:443", "other.example:8080"}) {
			t.Errorf("hosts = %v", in.Network.Hosts)
		}
		line := strings.Join(in.Argv, " ")
		if !strings.HasSuffix(line, "-r r.txt x") || strings.Contains(line, "--exclude-newer 2024-05-01T00:00:00Z") != uv {
			t.Errorf("uv %v: %s", uv, line)
		}
		for k, v := range in.Env {
			if strings.Contains(v, "secret") || k == "HF_TOKEN" {
				t.Errorf("%s=%s reaches the installer", k, v)
			}
		}
		if in.Env["PIP_INDEX_URL"] != "https://index.example/simple" || in.Env["PIP_CERT"] != "/dev/null" || !slices.Contains(in.ReadOnly, "/dev/null") {
			t.Errorf("env = %v, read only %v", in.Env, in.ReadOnly)
		}
		// The credentials and the ftp URL, and the date for pip.
		if want := map[bool]int{true: 2, false: 3}[uv]; len(devs) != want {
			t.Errorf("uv %v: deviations %+v", uv, devs)
		}
	}
}

func TestDefaultIndex(t *testing.T) {
	d := &drive{Runner: &Runner{cfg: Config{Getenv: func(string) string { return "" }, LookPath: exec.LookPath}}, dir: "/x", plan: &spec.Plan{}}
	steps, _, err := d.installSteps(Interpreter{Path: "/usr/bin/python3"}, nil, &moves{})
	must(t, err)
	if got := steps[1].Network.Hosts; !slices.Equal(got, []string{"pypi.org:443", "files.pythonhosted.org:443"}) {
		t.Errorf("hosts = %v", got)
	}
}

func TestFailures(t *testing.T) {
	dir := t.TempDir()
	stderr := func(body string) string {
		p := filepath.Join(dir, "stderr")
		must(t, os.WriteFile(p, []byte(body), 0o644))
		return p
	}
	for _, c := range []struct {
		st       Status
		body     string
		run, ins string
	}{
		{Status{Phase: Succeeded}, "", "", ""},
		{Status{Phase: Failed, Reason: ReasonExit, ExitCode: 3}, "a\n\x1b[31mValueError: bad\x1b[0m\n\n", "the command ended with code 3: ValueError: bad", ""},
		{Status{Phase: Failed, Reason: ReasonTimeout, Message: "after 1h"}, "x", "the command was stopped by its time limit: after 1h", ""},
		{Status{Phase: Failed, Reason: ReasonExit, ExitCode: 1}, "Collecting x\nERROR: No matching distribution found for x==9\nhint\n",
			"the command ended with code 1: hint", "the command ended with code 1: ERROR: No matching distribution found for x==9 hint"},
		{Status{Phase: Failed, Reason: ReasonExit, ExitCode: 1}, "  × No solution found\n  ╰─▶ Because there is no\n      version of x==9\n and more\n",
			"the command ended with code 1: and more", "the command ended with code 1: × No solution found ╰─▶ Because there is no version of x==9"},
	} {
		c.st.Stderr = stderr(c.body)
		if got := failure(c.st); got != c.run {
			t.Errorf("failure = %q, want %q", got, c.run)
		}
		if got := installFailure(c.st); c.ins != "" && got != c.ins {
			t.Errorf("installFailure = %q, want %q", got, c.ins)
		}
	}
	if got := tail(filepath.Join(dir, "none"), 10); got != nil {
		t.Errorf("tail of a missing file = %q", got)
	}
	if got := string(tail(stderr("0123456789"), 4)); got != "6789" {
		t.Errorf("tail = %q", got)
	}
}
