package collect

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/repromill/repromill/planner/spec"
)

// write lays out files: names to contents.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAll(t *testing.T) {
	rx := func(pattern string, sel ...string) spec.Collect {
		return spec.Collect{Kind: "stdout_regex", Pattern: pattern, Select: strings.Join(sel, "")}
	}
	file := func(kind, path, pointer string, sel ...string) spec.Collect {
		return spec.Collect{Kind: kind, Path: path, Pointer: pointer, Select: strings.Join(sel, "")}
	}
	const stdout = "acc: 0.10\nepoch 2\racc: 0.20\racc: 0.30\n\x1b[32macc: \x1b[1m0.25\x1b[0m\nloss = nan\nsaved 31.5 %\ntotal 1,234,567.5 tok\nbad 1,23\ninf=inf\nminus −4\n"
	files := map[string]string{
		"out/r.json":  `{"a":{"b":[1,2.5,"3"]},"nan":NaN,"s":"NaN said","neg":-Infinity,"x/y~z":7,"t":true,"o":{},"e":[],"dup":1,"dup":2,"pct":"12.5 %"}`,
		"log.jsonl":   "{\"step\":1,\"acc\":0.5}\n{\"step\":2,\"acc\":0.9}\n{\"step\":3,\"other\":1}\n{\"step\":4,\"acc\":0.7}\n{\"step\":5,\"ac",
		"nan.jsonl":   "{\"acc\":0.5}\n{\"acc\":NaN}\n",
		"t.csv":       "\ufeffname, acc ,note\n\"a,\"\"q\"\"\",0.5,x\nb,0.75,\n\nc,,\n",
		"semi.csv":    "name;acc\na;1,5\n",
		"twice.csv":   "acc,acc\n1,2\n",
		"tab.tsv":     "name\tacc\na\t0.25\n",
		"empty.csv":   "",
		"nb.ipynb":    `{"cells":[{"outputs":[{"text":["acc = 0.5\n","acc = 0.6\n"]},{"data":{"text/plain":["0.625"]}}]}],"metadata":{"score":3}}`,
		"broken.json": `{"a":1`,
		"runs/x.json": `{"v":1}`,
		"runs/y.json": `{"v":2}`,
		"one/z.json":  `{"v":3}`,
		"we[i]rd":     "x",
	}
	for _, c := range []struct {
		rule spec.Collect
		want float64
		not  string // part of the reason when nothing is to be found
		line int
		q    string // part of the quote
	}{
		{rule: rx(`acc: ([\d.]+)`), want: 0.25, line: 3, q: "acc: 0.25"},
		{rule: rx(`acc: ([\d.]+)`, "first"), want: 0.10, line: 1},
		{rule: rx(`acc: ([\d.]+)`, "max"), want: 0.30, line: 2, q: "acc: 0.30"},
		{rule: rx(`acc: ([\d.]+)`, "min"), want: 0.10},
		{rule: rx(`(a)cc: (?P<value>[\d.]+)`), want: 0.25},
		{rule: rx(`\d+\.\d+$`, "first"), want: 0.10},
		{rule: rx(`saved (.*)`), want: 31.5},
		{rule: rx(`total (\S+)`), want: 1234567.5},
		{rule: rx(`minus (\S+)`), want: -4},
		{rule: rx(`bad (\S+)`), not: `"1,23" is no number`},
		{rule: rx(`loss = (\S+)`), not: "stdout line 4: \"nan\" is not finite"},
		{rule: rx(`inf=(\S+)`), not: "not finite"},
		{rule: rx(`nowhere (\d)`), not: "no line of stdout matches"},
		{rule: rx(`(`), not: "does not compile"},
		{rule: rx(`total(x)?`), not: "no line"},

		{rule: file("json", "out/r.json", "/a/b/1"), want: 2.5, line: 1, q: `"b":[1,2.5`},
		{rule: file("json", "out/r.json", "/a/b"), want: 3},
		{rule: file("json", "out/r.json", "/a/b", "first"), want: 1},
		{rule: file("json", "out/r.json", "/x~1y~0z"), want: 7},
		{rule: file("json", "out/r.json", "/dup"), want: 2},
		{rule: file("json", "out/r.json", "/pct"), want: 12.5},
		{rule: file("json", "out/r.json", "/nan"), not: "not finite"},
		{rule: file("json", "out/r.json", "/neg"), not: "not finite"},
		{rule: file("json", "out/r.json", "/t"), not: `"true" is no number`},
		{rule: file("json", "out/r.json", "/o"), not: "is no number"},
		{rule: file("json", "out/r.json", "/e"), not: "is empty"},
		{rule: file("json", "out/r.json", "/a/zzz"), not: "nothing at /a/zzz"},
		{rule: file("json", "out/r.json", "a"), not: "does not begin with /"},
		{rule: file("json", "broken.json", "/a"), not: "not valid JSON"},
		{rule: file("json", "none.json", "/a"), not: "does not exist"},
		{rule: file("json", "out", "/a"), not: "no regular file"},
		{rule: file("json", "out/r.json/x", "/a"), not: "cannot be opened"},
		{rule: file("json", "link.json", "/v"), not: "link.json"},
		{rule: file("json", "../outside.json", "/v"), not: "cannot be opened"},
		{rule: file("json", "pipe", "/v"), not: "no regular file"},
		{rule: file("json", "runs/*.json", "/v"), not: "2 files match"},
		{rule: file("json", "one/*.json", "/v"), want: 3},
		{rule: file("json", "no/*.json", "/v"), not: "no file matches"},

		{rule: file("jsonl", "log.jsonl", "/acc"), want: 0.7, line: 4, q: `"step":4`},
		{rule: file("jsonl", "log.jsonl", "/acc", "max"), want: 0.9, line: 2},
		{rule: file("jsonl", "log.jsonl", "/zip"), not: "5 lines, 1 of them no JSON"},
		{rule: file("jsonl", "nan.jsonl", "/acc"), not: "not finite"},
		{rule: file("jsonl", "nan.jsonl", "/acc", "max"), not: "not finite"},
		{rule: file("jsonl", "nan.jsonl", "/acc", "first"), want: 0.5},

		{rule: file("csv", "t.csv", "acc"), want: 0.75, line: 3, q: "b,0.75"},
		{rule: file("csv", "t.csv", "acc", "min"), want: 0.5, q: `"a,""q""",0.5,x`},
		{rule: file("csv", "t.csv", "zip"), not: `no column "zip", only`},
		{rule: file("csv", "semi.csv", "acc"), not: "no number"},
		{rule: file("csv", "twice.csv", "acc"), not: "twice"},
		{rule: file("csv", "tab.tsv", "acc"), want: 0.25},
		{rule: file("csv", "empty.csv", "acc"), not: "no header"},

		{rule: spec.Collect{Kind: "notebook", Path: "nb.ipynb", Pattern: `acc = (\S+)`}, want: 0.6, q: "acc = 0.6"},
		{rule: spec.Collect{Kind: "notebook", Path: "nb.ipynb", Pattern: `^0\.\d+`}, want: 0.625},
		{rule: spec.Collect{Kind: "notebook", Path: "nb.ipynb", Pattern: `acc = (\S+)`, Pointer: "/cells/0/outputs/0/text"}, want: 0.6},
		{rule: file("notebook", "nb.ipynb", "/metadata/score"), want: 3},
		{rule: spec.Collect{Kind: "notebook", Path: "broken.json", Pattern: "x"}, not: "no notebook"},

		{rule: file("file_exists", "we[i]rd", ""), want: 1, q: "we[i]rd, 1 bytes"},
		{rule: file("file_exists", "none", ""), not: "does not exist"},
		{rule: spec.Collect{Kind: "json", Path: "one/z.json", Pointer: "/v", Scale: 100, Unit: "%"}, want: 300},
		{rule: spec.Collect{Kind: "json", Path: "one/z.json", Pointer: "/v", Scale: 1e308}, not: "not finite after scaling"},
		{rule: spec.Collect{Kind: "magic", Path: "one/z.json"}, not: "no kind of rule"},
	} {
		t.Run(fmt.Sprintf("%s %s%s %s", c.rule.Kind, c.rule.Path, c.rule.Pointer, c.rule.Pattern), func(t *testing.T) {
			dir := write(t, files)
			out := filepath.Join(t.TempDir(), "stdout")
			if err := os.WriteFile(out, []byte(stdout), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "outside.json"), []byte(`{"v":1}`), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(filepath.Dir(dir), "outside.json"), filepath.Join(dir, "link.json")); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
				t.Fatal(err)
			}
			c.rule.Metric = "m"
			res, err := All(t.Context(), Source{Dir: dir, Stdout: out}, []spec.Collect{c.rule})
			if err != nil || len(res) != 1 {
				t.Fatalf("All = %v, %v", res, err)
			}
			r := res[0]
			switch {
			case c.not != "":
				if r.Value != nil || !strings.Contains(r.NotFound, c.not) {
					t.Errorf("got %+v %q, want nothing because of %q", r.Value, r.NotFound, c.not)
				}
			case r.Value == nil:
				t.Errorf("not found: %s", r.NotFound)
			case r.Value.Value != c.want || (c.line > 0 && r.Value.Line != c.line) || !strings.Contains(r.Value.Quote, c.q):
				t.Errorf("got %+v, want %g on line %d with %q", *r.Value, c.want, c.line, c.q)
			}
		})
	}
}

func TestAlternativesForOneMetric(t *testing.T) {
	dir := write(t, map[string]string{"b.json": `{"v":2}`})
	rules := []spec.Collect{
		{Metric: "m", Kind: "json", Path: "a.json", Pointer: "/v"},
		{Metric: "m", Kind: "json", Path: "b.json", Pointer: "/v"},
		{Metric: "m", Kind: "json", Path: "c.json", Pointer: "/v"},
		{Metric: "n", Kind: "json", Path: "a.json", Pointer: "/v"},
		{Metric: "n", Kind: "json", Path: "b.json", Pointer: "/w"},
	}
	res, err := All(t.Context(), Source{Dir: dir}, rules)
	if err != nil || len(res) != 2 || res[0].Value == nil || res[0].Value.Value != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	if want := "a.json does not exist; b.json: nothing at /w"; res[1].NotFound != want {
		t.Errorf("reason = %q, want %q", res[1].NotFound, want)
	}
}

func TestBounds(t *testing.T) {
	dir := write(t, map[string]string{"big.json": `{"v":1, "pad":"` + strings.Repeat("x", 1000) + `"}`})
	out := filepath.Join(dir, "stdout")
	if err := os.WriteFile(out, []byte("v=1\n"+strings.Repeat("y", 3*maxLine)+" v=2\nv=3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rules := []spec.Collect{
		{Metric: "big", Kind: "json", Path: "big.json", Pointer: "/v"},
		{Metric: "cut", Kind: "stdout_regex", Pattern: `v=(\d)`},
	}
	res, err := All(t.Context(), Source{Dir: dir, Stdout: out, MaxBytes: 500}, rules)
	if err != nil || !strings.Contains(res[0].NotFound, "larger than 500 bytes") || res[1].Value.Value != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	res, err = All(t.Context(), Source{Dir: dir, Stdout: out}, rules[1:])
	if err != nil || res[0].Value.Value != 3 || res[0].Value.Line != 3 {
		t.Errorf("%+v, %v", res[0], err)
	}
	if _, err := All(t.Context(), Source{Dir: dir + "/none"}, nil); err == nil {
		t.Error("a missing folder is no error")
	}
}

func FuzzFiles(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,2,{"b":NaN}]}`, "a,b\n1,2\n", "{\"a\":1}\n{\"a\":", "\x1b[0ma: 5\r\n", `{"cells":[{"outputs":[{"text":"a: 1"}]}]}`,
		"\xef\xbb\xbfa;b\n\"x\n\";2", `{"a":-Infinity,"a":"1e999"}`, strings.Repeat("[", 20000),
	} {
		f.Add([]byte(s), "/a", `a: (\S+)`)
	}
	f.Add([]byte(`{"":{"~":1}}`), "//~0", `(?P<value>x*)`)
	f.Fuzz(func(t *testing.T, body []byte, pointer, pattern string) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), body, 0o644); err != nil {
			t.Fatal(err)
		}
		var rules []spec.Collect
		for i, kind := range []string{"stdout_regex", "json", "jsonl", "csv", "notebook", "file_exists"} {
			for j, sel := range []string{"first", "last", "min", "max"} {
				rules = append(rules, spec.Collect{Metric: fmt.Sprint(i, j), Kind: kind, Path: "f", Pointer: pointer, Pattern: pattern, Select: sel})
			}
		}
		rules = append(rules, spec.Collect{Metric: "p", Kind: "json", Path: pattern, Pointer: pointer})
		res, err := All(t.Context(), Source{Dir: dir, Stdout: filepath.Join(dir, "f")}, rules)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range res {
			if (r.Value == nil) == (r.NotFound == "") {
				t.Errorf("%s: neither or both of a value and a reason", r.Metric)
			}
			if r.Value != nil && (math.IsNaN(r.Value.Value) || strings.ContainsAny(r.Value.Quote, "\x1b\n\r\x00") || len(r.Value.Quote) > maxQuote+4) {
				t.Errorf("%s: bad value %+v", r.Metric, *r.Value)
			}
		}
	})
}

func FuzzNumber(f *testing.F) {
	for _, s := range []string{"1", "-1.5e3", "1,234.5", "12 %", "nan", "0x1p4", "1_0", "−3", "+.5", ",", "1,,2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := number(s)
		if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("number(%q) = %v", s, v)
		}
	})
}

func benchmark(b *testing.B, line string, rule spec.Collect) {
	const size = 8 << 20
	body := strings.Repeat(line, size/len(line))
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(body), 0o644); err != nil {
		b.Fatal(err)
	}
	rule.Metric, rule.Path = "m", "f"
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		res, err := All(b.Context(), Source{Dir: dir, Stdout: filepath.Join(dir, "f")}, []spec.Collect{rule})
		if err != nil || res[0].Value == nil {
			b.Fatal(res, err)
		}
	}
}

func BenchmarkStdoutRegex(b *testing.B) {
	benchmark(b, "step 100 of 1000, loss 0.25, acc 0.75\n", spec.Collect{Kind: "stdout_regex", Pattern: `acc ([\d.]+)`})
}

func BenchmarkJSONLines(b *testing.B) {
	benchmark(b, `{"step":100,"loss":0.25,"acc":0.75}`+"\n", spec.Collect{Kind: "jsonl", Pointer: "/acc", Select: "max"})
}
