package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want []string
		code int
	}{
		"pass and skip": {
			in: `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:3: needs a kernel with landlock\n"}
{"Action":"output","Package":"p","Test":"A","Output":"--- SKIP: A (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Test":"B"}
{"Action":"pass","Package":"p","Elapsed":1.5}`,
			want: []string{"ok    p", "p A: a_test.go:3: needs a kernel with landlock", "1 passed, 0 failed, 1 skipped"},
		},
		"failure shows its output": {
			in: `{"Action":"output","Package":"p","Test":"A","Output":"boom\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`,
			want: []string{"boom", "FAIL  p"}, code: 1,
		},
		"build failure": {
			in: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: no\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}`,
			want: []string{"x.go:1: no", "FAIL  p"}, code: 1,
		},
		"nothing ran": {in: ``, want: []string{"0 passed"}, code: 1},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			if code := report(strings.NewReader(tc.in), &out); code != tc.code {
				t.Errorf("code %d, want %d", code, tc.code)
			}
			for _, w := range tc.want {
				if !strings.Contains(out.String(), w) {
					t.Errorf("no %q in:\n%s", w, out.String())
				}
			}
		})
	}
}
