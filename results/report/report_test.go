package report

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/rivo/uniseg"
	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

var update = flag.Bool("update", false, "rewrite golden files")

func f(v float64) *float64 { return &v }
func n(v int64) *int64     { return &v }
func e(v int) *int         { return &v }

// demo is a report as the example run makes it.
func demo() *Report {
	root := "/home/ada/.local/share/repromill"
	return &Report{
		Schema: SchemaV1, RunID: "01JD7Q3V6Y8T2R4W5X9Z0A1B2C", PlanHash: "9f2c1e", Created: time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC), Finished: time.Date(2026, 11, 21, 20, 0, 19, 0, time.UTC),
		Notices: []string{"The code is an independent re-implementation, linked by the mirror's overlay and not by the paper; its numbers are simulated."},
		Target:  Target{Input: "https://autoarxiv.org/abs/2604.08075", Kind: "arxiv", ID: "2604.08075", Version: "v1", URL: "https://arxiv.org/abs/2604.08075v1"},
		Paper:   &Paper{ID: "2604.08075", Version: "v1", Title: "Dual-Pool Token-Budget Routing for Cost-Efficient and Reliable LLM Serving"},
		Source:  &Source{Repo: "https://github.com/repromill/dual-pool-sim", Commit: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d", StatedBy: "mirror", Simulated: true},
		Verdict: PartiallyAligned, Reason: "Preemptions fall by less than stated; the other two results agree.",
		Claims: []Claim{
			{ID: "c1", Metric: "gpu_time_saved", Unit: "%", Relation: "difference", Baseline: "one shared pool", Direction: "lower", Reported: &Quantity{Lo: f(31), Hi: f(42)},
				Measured:  &Quantity{Value: f(36.5213), Lo: f(35.1204), Hi: f(37.9107), Level: f(0.95), N: n(20), Method: "mean over seeds", Simulated: true},
				Tolerance: &Tolerance{Value: 0.5, Kind: "absolute", Source: "rounding"}, Verdict: Aligned, Stated: Place{Paper: "abstract"}, Read: Place{File: "results.json", Line: 12, Quote: `"gpu_time_saved_pct": 36.5213,`}, Reason: "Inside the stated range."},
			{ID: "c2", Metric: "preemption_reduction", Unit: "x", Relation: "ratio", Baseline: "one shared pool", Direction: "lower", Reported: &Quantity{Value: f(5.4)},
				Measured:  &Quantity{Value: f(3.18274), Simulated: true},
				Tolerance: &Tolerance{Value: 0.05, Kind: "relative", Source: "default"}, Verdict: Inconclusive, Stated: Place{Paper: "abstract"}, Read: Place{File: "results.json", Line: 14, Quote: `"preemption_ratio": 3.18274`}, Reason: "3.18× lies outside 5.4× ± 5 %; a simulation of a smaller load cannot refute it."},
			{ID: "c3", Metric: "p99_ttft_gain", Unit: "%", Relation: "difference", Direction: "lower", Reported: &Quantity{Value: f(6)}, Verdict: NotAttempted, Stated: Place{File: "README.md", Line: 40}, Reason: "The run printed no such number."},
		},
		Runs: []Run{{ID: "minimal", Kind: "minimal", Command: "python simulate.py --seeds 20 --out results.json", Cwd: ".", Status: "succeeded", Exit: e(0), WallS: f(17.84), CPUS: f(17.5), Executor: "local", SKU: "cpu",
			Sandbox: []string{"userns", "netns", "pidns", "landlock", "rlimit"}, Missing: []string{"memory is not limited: no writable cgroup"}}},
		Cost:       Cost{SKU: "cpu", USD: Amount{P10: f(0), P50: f(0), P90: f(0), Measured: f(0)}, WallS: Amount{P10: f(10), P50: f(20), P90: f(60), Measured: f(19.02)}, CPUS: Amount{Measured: f(17.5)}},
		Deviations: []Deviation{{What: "python", Declared: "3.9", Used: "3.13.1", Reason: "3.9 is not installed here"}},
		Warnings:   []Warning{{Code: "no_lockfile", Message: "The repository pins no dependency."}},
		Results:    Results{Root: root, Manifest: root + "/_runs/01JD7Q3V6Y8T2R4W5X9Z0A1B2C/manifest.json", Tables: []TableCount{{"runs", 1}, {"claims", 3}, {"metrics", 42}, {"events", 12032}}},
		Look:       []Hint{{Shows: "every number of this run", Command: DuckDB(root, "v1", "metrics", "01JD7Q3V6Y8T2R4W5X9Z0A1B2C", "metric, value, unit, ci_lo, ci_hi")}},
		Rerun:      "repromill run --mirror examples/mirror https://autoarxiv.org/abs/2604.08075 --yes",
	}
}

const evil = "\x1b]0;owned\x07\x1b[2J\x1b[31mRED</script><script>alert(1)</script> [click](https://evil.example/x) ![i](http://evil.example) `code` | cell | **bold** <img src=x onerror=alert(1)> @everyone www.evil.example https://evil.example a@b.example \u202egnp.exe\u202c \x00\x7f\u200b\u0085 $(rm -rf ~) ``` end\n\n# Heading\n- item\n<!-- "

// hostile is a report in which every text is an attack.
func hostile() *Report {
	r := demo()
	r.Notices = []string{evil}
	r.Target = Target{Input: evil, Kind: "git", ID: evil, Version: evil}
	r.Paper.Title = evil + strings.Repeat("𝔘𝔫𝔦", 400)
	r.Source = &Source{Repo: evil, Commit: evil, StatedBy: evil, Subdir: evil}
	r.Reason, r.Verdict, r.RunID = evil, evil, evil
	for i := range 25 {
		r.Claims = append(r.Claims, Claim{ID: evil, Metric: evil, Unit: evil, Relation: evil, Baseline: evil, Direction: evil, Reported: &Quantity{Value: f(float64(i))}, Measured: &Quantity{Value: f(1e300), Method: evil},
			Tolerance: &Tolerance{Value: 1, Kind: evil, Source: evil}, Verdict: evil, Reason: evil, Stated: Place{Paper: evil, File: evil, Line: 3}, Read: Place{File: evil, Line: 1, Quote: evil}})
	}
	r.Claims[0] = r.Claims[4]
	for range 9 {
		r.Runs = append(r.Runs, Run{ID: evil, Command: evil, Cwd: evil, Status: evil, Reason: evil, Executor: evil, SKU: evil, Sandbox: []string{evil}, Missing: []string{evil}})
		r.Deviations = append(r.Deviations, Deviation{What: evil, Declared: evil, Used: evil, Reason: evil})
		r.Warnings = append(r.Warnings, Warning{Message: evil})
	}
	r.Cost.SKU, r.Results.Root = evil, evil
	r.Look = []Hint{{Shows: evil, Command: evil}}
	r.Rerun = evil
	return r
}

// noCode is a paper without code.
func noCode() *Report {
	return &Report{
		RunID: "01JD7Q", Target: Target{Input: "2401.00001", Kind: "arxiv", ID: "2401.00001"}, Paper: &Paper{ID: "2401.00001", Version: "v2", Title: "一篇沒有程式碼的論文:關於某些事情的研究"},
		Verdict: NotCheckable, Reason: "No code was found: the paper links none and no hub page claims any.", Claims: []Claim{},
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got); run with -update when that is meant:\n%s", path, d)
	}
}

func terminal(t testing.TB, r *Report, s Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Terminal(&b, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func markdownOf(t testing.TB, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for name, r := range map[string]*Report{"demo": demo(), "hostile": hostile(), "nocode": noCode()} {
		t.Run(name, func(t *testing.T) {
			golden(t, name+".80.txt", terminal(t, r, Style{}))
			golden(t, name+".md", markdownOf(t, r))
			var b bytes.Buffer
			if err := r.JSON(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".json", b.String())
			back, err := Parse(b.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			var again bytes.Buffer
			if err := back.JSON(&again); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(b.String(), again.String()); d != "" {
				t.Errorf("JSON does not round-trip:\n%s", d)
			}
		})
	}
	golden(t, "demo.40.txt", terminal(t, demo(), Style{Width: 40}))
	golden(t, "demo.120.color.txt", terminal(t, demo(), Style{Width: 120, Color: true}))
}

func TestOnePage(t *testing.T) {
	if got := strings.Count(terminal(t, demo(), Style{Width: 100}), "\n"); got > 60 {
		t.Errorf("the report of three claims has %d lines", got)
	}
	if got := strings.Count(terminal(t, hostile(), Style{Width: 100}), "\n"); got > 320 {
		t.Errorf("the longest report, every text an attack, has %d lines", got)
	}
}

func TestTerminalIsSafeAndFits(t *testing.T) {
	for _, width := range []int{1, 40, 80, 133} {
		out := terminal(t, hostile(), Style{Width: width})
		for i, line := range strings.Split(out, "\n") {
			for _, r := range line {
				if unicode.IsControl(r) || hidden(r) {
					t.Fatalf("width %d, line %d holds %U: %q", width, i, r, line)
				}
			}
			// Commands stay on one line to be copied.
			if w := uniseg.StringWidth(line); w > max(width, 40) && !strings.HasPrefix(line, "  ␛]0;owned") {
				t.Errorf("width %d, line %d has %d columns: %q", width, i, w, line)
			}
		}
	}
}

func TestColorOnlyAdds(t *testing.T) {
	colored := terminal(t, demo(), Style{Color: true})
	if !strings.Contains(colored, "\x1b[32maligned\x1b[0m") {
		t.Error("an aligned claim is not green")
	}
	plain := colored
	for _, c := range []string{"0", bold, dim, red, green, yellow} {
		plain = strings.ReplaceAll(plain, "\x1b["+c+"m", "")
	}
	if d := cmp.Diff(terminal(t, demo(), Style{}), plain); d != "" {
		t.Errorf("colour changes the text:\n%s", d)
	}
}

// TestMarkdownIsSafe parses the rendering as GitHub does and looks for anything
// that a stranger's text could have made.
func TestMarkdownIsSafe(t *testing.T) {
	src := []byte(markdownOf(t, hostile()))
	doc := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(src))
	headings := 0
	err := ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		switch n.Kind() {
		case ast.KindLink, ast.KindImage, ast.KindAutoLink, ast.KindRawHTML, ast.KindHTMLBlock, ast.KindCodeBlock:
			t.Errorf("a stranger's text became a %s", n.Kind())
		case ast.KindHeading:
			headings++
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if headings != 7 {
		t.Errorf("%d headings, want the title and 6 sections", headings)
	}
	for _, r := range string(src) {
		if r != '\n' && (unicode.IsControl(r) || hidden(r)) {
			t.Errorf("holds %U", r)
		}
	}
	for i, line := range strings.Split(string(src), "\n") {
		if strings.HasPrefix(line, "| **") && strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") != 6 {
			t.Errorf("line %d: a stranger's text made a table cell: %s", i+1, line)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Number(36.5213, 4), "36.52"}, {Number(5, 4), "5"}, {Number(12032, 15), "12,032"}, {Number(1234, 4), "1234"}, {Number(-1234567.8, 9), "−1,234,567.8"}, {Number(0, 3), "0"},
		{Number(0.000012, 3), "1.2e−05"}, {Number(1e300, 4), "1e+300"}, {Number(0.1+0.2, 4), "0.3"}, {Number(99999, 3), "99,999"}, {Number(-0.00004, 2), "−4e−05"},
		{Exact(5.4), "5.4"}, {Exact(31), "31"}, {Exact(0.061), "0.061"},
		{WithUnit("31–42", "%"), "31–42 %"}, {WithUnit("5.4", "x"), "5.4×"}, {WithUnit("0.42", "USD"), "$0.42"}, {WithUnit("−3", "usd"), "−$3"}, {WithUnit("7", ""), "7"}, {WithUnit("12", "ms"), "12 ms"},
		{Seconds(0), "0 s"}, {Seconds(0.0000005), "0.5 µs"}, {Seconds(0.0123), "12.3 ms"}, {Seconds(8.43), "8.4 s"}, {Seconds(17.84), "17.8 s"}, {Seconds(200), "3 min 20 s"}, {Seconds(3599.9), "60 min"},
		{Seconds(18600), "5 h 10 min"}, {Seconds(4 * 86400), "4 d"}, {Seconds(-90), "−90 s"}, {Seconds(-200), "−3 min 20 s"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestClaimValues(t *testing.T) {
	for name, c := range map[string]struct {
		claim                    Claim
		reported, measured, toll string
	}{
		"range":       {Claim{Unit: "%", Reported: &Quantity{Lo: f(31), Hi: f(42)}, Measured: &Quantity{Value: f(36.5213), Lo: f(35.12), Hi: f(37.91)}, Tolerance: &Tolerance{Value: 0.5, Kind: "absolute", Source: "rounding"}}, "31–42 %", "36.5 % [35.1, 37.9]", "±0.5 % (rounding)"},
		"factor":      {Claim{Unit: "x", Reported: &Quantity{Value: f(5.4)}, Measured: &Quantity{Value: f(3.18274)}, Tolerance: &Tolerance{Value: 0.05, Kind: "relative"}}, "5.4×", "3.183×", "±5 % of it"},
		"lower bound": {Claim{Unit: "GB", Reported: &Quantity{Lo: f(10)}}, "at least 10 GB", "–", "–"},
		"nothing":     {Claim{}, "–", "–", "–"},
		"tight":       {Claim{Reported: &Quantity{Value: f(0.061)}, Measured: &Quantity{Value: f(0.0605), Lo: f(0.0601), Hi: f(0.0609)}}, "0.061", "0.0605 [0.0601, 0.0609]", "–"},
		"degenerate":  {Claim{Measured: &Quantity{Value: f(2), Lo: f(2), Hi: f(2)}}, "–", "2 [2, 2]", "–"},
	} {
		if got := c.claim.reported(); got != c.reported {
			t.Errorf("%s: reported %q, want %q", name, got, c.reported)
		}
		if got := c.claim.measured(); got != c.measured {
			t.Errorf("%s: measured %q, want %q", name, got, c.measured)
		}
		if got := c.claim.tolerance(); got != c.toll {
			t.Errorf("%s: tolerance %q, want %q", name, got, c.toll)
		}
	}
}

func TestNumbersThatAreNone(t *testing.T) {
	r := demo()
	r.Claims[0].Measured = &Quantity{Value: f(math.NaN()), Lo: f(math.Inf(-1)), Hi: f(math.Inf(1))}
	r.Claims[1].Tolerance.Value = 0
	r.Cost.WallS.Measured = f(math.Inf(1))
	var b bytes.Buffer
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := Parse(b.Bytes())
	if err != nil || back.Claims[0].Measured.Value != nil || back.Cost.WallS.Measured != nil {
		t.Errorf("read back %+v, %v; want no value", back.Claims[0].Measured, err)
	}
	if !math.IsNaN(*r.Claims[0].Measured.Value) {
		t.Error("JSON changed the report")
	}
	if out := terminal(t, r, Style{}); !strings.Contains(out, "n/a % [−∞, ∞]") {
		t.Errorf("terminal:\n%s", out)
	}
}

func TestTally(t *testing.T) {
	if got, want := demo().Tally(), "1 of 3 claims aligned, 1 inconclusive, 1 not attempted"; got != want {
		t.Errorf("tally %q, want %q", got, want)
	}
	if got, want := noCode().Tally(), "no claim to check"; got != want {
		t.Errorf("tally %q, want %q", got, want)
	}
}

func TestDuckDBQuoting(t *testing.T) {
	got := DuckDB(`/data/it's "$HOME"`, "v1", "runs", "r", "*")
	want := `duckdb -c "SELECT * FROM read_parquet('/data/it''s \"\$HOME\"/runs/v1/**/*.parquet', hive_partitioning=true, union_by_name=true) WHERE run_id='r'"`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", evil, "e\u0301\u0302\u0303\u0304\u0305\u0306", "👩‍👩‍👧‍👦 family", "漢字漢字漢字漢字漢字", "\xff\xfe", " lead", "a\u00adb", "``x``", "\\", strings.Repeat("x", 300)} {
		f.Add(s, 20)
	}
	f.Fuzz(func(t *testing.T, s string, width int) {
		width = max(2, width%200)
		c := clean(s)
		if !utf8.ValidString(c) {
			t.Fatalf("clean gave invalid UTF-8: %q", c)
		}
		for _, r := range c {
			if unicode.IsControl(r) || hidden(r) {
				t.Fatalf("clean left %U in %q", r, c)
			}
		}
		if clean(c) != c {
			t.Fatalf("clean is not idempotent: %q then %q", c, clean(c))
		}
		if w := uniseg.StringWidth(truncate(c, width)); w > width {
			t.Fatalf("truncate to %d gave %d columns", width, w)
		}
		for _, line := range wrap(c, width) {
			if w := uniseg.StringWidth(line); w > max(width, 8) {
				t.Fatalf("wrap to %d gave %d columns: %q", width, w, line)
			}
		}
		src := []byte("x " + markdown(s) + " " + code(s) + "\n")
		doc := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(src))
		err := ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
			switch n.Kind() {
			case ast.KindLink, ast.KindImage, ast.KindAutoLink, ast.KindRawHTML, ast.KindHTMLBlock, ast.KindHeading, ast.KindEmphasis:
				return ast.WalkStop, fmt.Errorf("%q became a %s", s, n.Kind())
			}
			return ast.WalkContinue, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkTerminal(b *testing.B) {
	r := demo()
	var buf bytes.Buffer
	for b.Loop() {
		buf.Reset()
		if err := r.Terminal(&buf, Style{Width: 100, Color: true}); err != nil {
			b.Fatal(err)
		}
	}
}
