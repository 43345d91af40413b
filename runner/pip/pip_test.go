package pip_test

import (
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

func TestParse(t *testing.T) {
	for spec1, want := range map[string]string{
		"numpy==1.26":            "numpy==1.26",
		" -r requirements.txt":   "-r|requirements.txt",
		"-e .":                   "-e|.",
		"-e ./lib[dev]":          "-e|./lib[dev]",
		"-e  sub dir":            "-e|sub dir",
		".":                      ".",
		"a @ https://x/y.whl":    "a @ https://x/y.whl",
		"-e git+ssh://host/repo": "-e|git+ssh://host/repo",
		"-r ../x.txt":            "!leaves the checkout",
		"-r /etc/x.txt":          "!leaves the checkout",
		"-r --index-url=x":       "!leaves the checkout",
		"--index-url http://x":   "!not allowed",
		"-i http://x":            "!not allowed",
		"-f environment.yml":     "conda environment.yml",
		"-f ../environment.yml":  "!leaves the checkout",
		"numpy\n-i http://x":     "!not allowed",
		"-r":                     "!not allowed",
		"":                       "!not allowed",
	} {
		got, why := pip.Parse([]spec.Requirement{{Spec: spec1}})
		args := got.Args
		if got.Conda != "" {
			args = []string{"conda " + got.Conda}
		}
		if bad, ok := strings.CutPrefix(want, "!"); ok {
			if !strings.Contains(why, bad) {
				t.Errorf("%q: %v %q, want a refusal with %q", spec1, args, why, bad)
			}
		} else if strings.Join(args, "|") != want || why != "" {
			t.Errorf("%q: %v %q, want %s", spec1, args, why, want)
		}
	}
}
