package python

import (
	"strings"
	"testing"
)

func TestWithheld(t *testing.T) {
	evaluator := `        try:
            with swallow_io():
                with time_limit(timeout):
# WARNING
# This program exists to execute untrusted code. See the paper (section 2):
# uncomment the following line and proceed at your own risk:
#                     exec(check_program, exec_globals)
            result.append("passed")
`
	tests := map[string]struct{ src, want string }{
		"an evaluator":       {evaluator, "                      exec(check_program, exec_globals)"},
		"the end of a file":  {"if x:\n    # run(x)\n", "      run(x)"},
		"the block has code": {"if x:\n    # run(x)\n    pass\n", ""},
		"code comes first":   {"if x:\n    pass\n    # run(x)\ny = 1\n", ""},
		"words alone":        {"for x in y:\n    # nothing to do here\nz = 1\n", ""},
		"two statements":     {"if x:\n    # run(x)\n    # walk(x)\ny = 1\n", ""},
		"a text":             {"\"\"\"\nif x:\n    # run(x)\n\"\"\"\ny = 1\n", ""},
		"an assignment":      {"def f():\n    # a, b = g(1)\nprint(1)\n", "      a, b = g(1)"},
		"a condition":        {"if x:\n    # a == b\nprint(1)\n", ""},
		"one line":           {"if x: run()\n# run(x)\ny = 1\n", ""},
		"tabs":               {"if x:\n    # run(x)\n\ty = 1\n", ""},
	}
	for name, tc := range tests {
		got := ""
		for _, w := range Scan(tc.src).Withheld {
			if lines := strings.Split(tc.src, "\n"); lines[w.Line-1] != w.Before || !headRE.MatchString(lines[w.Head-1]) {
				t.Errorf("%s: %+v", name, w)
			}
			got += w.After
		}
		if got != tc.want {
			t.Errorf("%s:\n got %q\nwant %q", name, got, tc.want)
		}
	}
}

func FuzzWithheld(f *testing.F) {
	for _, s := range []string{"if x:\n    # run(x)\n", "with a:\n#   exec(b)\nc", "'''\nif x:\n    # f()\n", "def f():\n\n# g()\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lines := strings.Split(s, "\n")
		for _, w := range withheld(s) {
			if w.Line <= w.Head || w.Line > len(lines) || lines[w.Line-1] != w.Before || len(w.After) != len(w.Before) {
				t.Errorf("%+v", w)
			}
		}
	})
}
