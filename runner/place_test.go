package runner

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestPlaces: a run whose attempts run elsewhere has its folders and its Python
// there, and finds no program of this machine.
func TestPlaces(t *testing.T) {
	r := &Runner{cfg: Config{Dir: "/state", GPUs: 1, LookPath: exec.LookPath, Places: map[string]Place{
		"kueue": {Dir: "/volume", GPUs: 8, Python: Interpreter{Path: "/usr/bin/python3", Version: "3.11", Prefix: "/usr"}},
	}}}
	here, there := r.at("local"), r.at("kueue")
	if here != r || there.runDir("x") != filepath.Join("/volume", "runs", "x") || there.cfg.GPUs != 8 || r.cfg.GPUs != 1 {
		t.Fatalf("here %+v, there %+v", here.cfg, there.cfg)
	}
	if path, err := there.cfg.LookPath("go"); err == nil {
		t.Errorf("a program of this machine was found: %s", path)
	}
	for want, misfits := range map[string]bool{"": false, ">=3.9": false, "3.11": false, "3.11.4": false, "~=3.10": true, ">=3.12": true, "3.8": true, "2.7": true} {
		d := &drive{Runner: there}
		py, devs, err := d.findPython(t.Context(), want)
		if err != nil || py.Path != "/usr/bin/python3" || (len(devs) > 0) != misfits {
			t.Errorf("%q: %+v, %+v, %v; want a deviation: %v", want, py, devs, err, misfits)
		}
	}
}
