package runner_test

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/sandbox"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
)

// wheel is the smallest wheel there is (PEP 427), of a module with one value.
func wheel(t *testing.T, name, version, module string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	info := name + "-" + version + ".dist-info/"
	for file, body := range map[string]string{
		name + ".py":              module,
		info + "METADATA":         "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n",
		info + "entry_points.txt": "[console_scripts]\ntinycmd = " + name + ":main\n",
		info + "WHEEL":            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":           name + ".py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n",
	} {
		w, err := z.Create(file)
		must(t, err)
		_, err = w.Write([]byte(body))
		must(t, err)
	}
	must(t, z.Close())
	return buf.Bytes()
}

// index is a package index as PEP 503 has it, with the package tinypkg 1.0.
func index(t *testing.T) *httptest.Server {
	t.Helper()
	const file = "tinypkg-1.0-py3-none-any.whl"
	body := wheel(t, "tinypkg", "1.0", "value = 0.9\ndef main():\n    print('acc=%g' % value)\n")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/tinypkg/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><html><body><a href="/files/%s">%s</a></body></html>`, file, file)
	})
	mux.HandleFunc("GET /files/"+file, func(w http.ResponseWriter, _ *http.Request) { w.Write(body) })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// TestInstall installs from an index through the sandbox's proxy, runs what
// was installed without a network, and reports what cannot be installed.
func TestInstall(t *testing.T) {
	if err := exec.Command("python3", "-I", "-c", "import venv, ensurepip").Run(); err != nil {
		t.Skip("this machine has no python3 with venv and ensurepip:", err)
	}
	srv := index(t)
	const main = `import socket, tinypkg
try:
    socket.create_connection(("127.0.0.1", %s), 1)
    print("the network is open")
except OSError:
    print("acc=%%g" %% tinypkg.value)
`
	for name, c := range map[string]struct {
		reqs    []string
		argv    []string
		want    verdict.Verdict
		metrics int
		reason  string
		lock    string
	}{
		"a package":           {[]string{"tinypkg==1.0"}, []string{"python", "main.py"}, verdict.Aligned, 1, "", ""},
		"another lock":        {[]string{"tinypkg"}, nil, verdict.Inconclusive, 0, "conflicting dependencies", "tinypkg==0.7\n"},
		"a file":              {[]string{"-r requirements.txt"}, []string{"tinycmd"}, verdict.Aligned, 1, "", ""},
		"no such version":     {[]string{"tinypkg==2.0"}, nil, verdict.Inconclusive, 0, "tinypkg==2.0", ""},
		"an option":           {[]string{"--index-url http://x"}, nil, verdict.Inconclusive, 0, "an option that is not allowed", ""},
		"outside":             {[]string{"-r ../../etc/passwd"}, nil, verdict.Inconclusive, 0, "leaves the checkout", ""},
		"an index of its own": {[]string{"-r elsewhere.txt"}, nil, verdict.Inconclusive, 0, "installation failed", ""},
		"a pin that moves":    {[]string{"-r pinned.txt"}, []string{"python", "main.py"}, verdict.Aligned, 1, "", ""},
		// The patch changes the module that the editable install points at.
		"the checkout itself": {[]string{"-e ."}, []string{"python", "-c", "import own; print('acc=%g' % own.value)"}, verdict.Aligned, 1, "", ""},
	} {
		if testing.Short() && name != "a package" && name != "an option" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := layOut(t, "")
			port := srv.URL[strings.LastIndex(srv.URL, ":")+1:]
			for f, body := range map[string]string{
				"main.py": fmt.Sprintf(main, port), "requirements.txt": "tinypkg\n",
				"pinned.txt":     "tinypkg==0.1 ; python_version > '3.0'\n",
				"elsewhere.txt":  "--index-url http://127.0.0.1:1/simple\ntinypkg\n",
				"pyproject.toml": "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n",
				"backend.py":     backend, "lib/own.py": "value = 0.1\n",
			} {
				must(t, os.MkdirAll(filepath.Join(dir, "src", filepath.Dir(f)), 0o755))
				must(t, os.WriteFile(filepath.Join(dir, "src", f), []byte(body), 0o644))
			}
			out := install(t, dir, srv.URL+"/simple", c.reqs, c.argv, c.lock)
			if moved := slices.ContainsFunc(out.Deviations, func(d spec.Deviation) bool { return d.What == "tinypkg" && d.Used == "1.0" }); moved != (name == "a pin that moves") {
				t.Errorf("deviations %+v", out.Deviations)
			}
			if out.Verdict != c.want || len(out.Claims) != 1 || out.Verdict == verdict.Aligned != (c.metrics > 0) || !strings.Contains(out.Claims[0].Reason, c.reason) {
				t.Errorf("%s: %s; %s", out.Verdict, out.Claims[0].Reason, out.InstallFailed)
			}
			if strings.Contains(out.Packages(), "tinypkg==1.0\n") != (c.metrics > 0 && name != "the checkout itself") {
				t.Errorf("installed %q", out.Packages())
			}
			noTrace(t, dir)
		})
	}
}

// backend builds an editable wheel of the folder lib (PEP 660).
const backend = `import os, zipfile
def get_requires_for_build_editable(config_settings=None): return []
def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "own-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as z:
        z.writestr("own.pth", os.path.join(os.getcwd(), "lib") + "\n")
        z.writestr("own-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
        z.writestr("own-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr("own-1.0.dist-info/RECORD", "")
    return name
`

func install(t *testing.T, dir, url string, reqs, argv []string, lock string) runner.Outcome {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	s, err := store.Open(t.Context(), filepath.Join(dir, "state", "store.db"), store.Config{})
	must(t, err)
	defer s.Close()
	ex, err := local.New(local.Config{
		Dir: filepath.Join(dir, "state", "attempts"), Self: []string{exe, "__worker"},
		Sandbox:      sandbox.Config{Init: []string{exe, "__sandbox-init"}},
		AllowPrivate: []string{strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/simple")},
	})
	must(t, err)
	data, err := dataset.Open(filepath.Join(dir, "results"), dataset.Config{})
	must(t, err)
	r, err := runner.New(runner.Config{
		Store: s, Executors: map[string]runner.Executor{"local": ex}, Source: checkout(filepath.Join(dir, "src")),
		Results: runner.InDataset(data), Dir: filepath.Join(dir, "state"), Rand: rand.Reader, Indexes: []string{url},
		LookPath: func(name string) (string, error) {
			if name == "uv" { // pip is what every machine has
				return "", exec.ErrNotFound
			}
			return exec.LookPath(name)
		},
	})
	must(t, err)
	p := killPlan()
	v := 0.9
	p.Claims[0].Value = &v
	if argv == nil {
		argv = []string{"python", "main.py"}
	}
	p.Runs[0].Argv, p.Runs[0].Seeds = argv, nil
	if reqs[0] == "-e ." {
		p.Runs[0].Patches = []spec.Patch{{Kind: "source", File: "lib/own.py", Line: 1, Before: "value = 0.1", After: "value = 0.9"}}
		p.Runs[0].Expects = &spec.Expectation{Metric: "acc", Value: 0.9}
		smoke := p.Runs[0]
		smoke.ID, smoke.Kind, smoke.Patches = "unpatched", "smoke", nil // so that the patch is not shared
		p.Runs = append(p.Runs, smoke)
		p.Runs[1].ClaimIDs = nil
	}
	if reqs[0] == "-r pinned.txt" {
		p.Environment.SKU = "b200"
		p.Environment.SKUs = map[string]spec.SKUFit{"b200": {Status: "needs_bump", Deviations: []spec.Deviation{{What: "tinypkg", Declared: "0.1", Used: "1.0", Reason: "older ones have no kernels"}}}}
	}
	p.Runs[0].Collect = []spec.Collect{{Metric: "acc", Kind: "stdout_regex", Pattern: `acc=(\S+)`}}
	for _, q := range reqs {
		p.Environment.Requirements = append(p.Environment.Requirements, spec.Requirement{Spec: q})
	}
	p.Seal()
	run, _, err := r.Create(t.Context(), runner.Request{Plan: p, Yes: true, Lock: lock, NoSandbox: ex.Capabilities().Layer == sandbox.None})
	must(t, err)
	out, err := r.Drive(t.Context(), run.ID)
	must(t, err)
	return out
}
