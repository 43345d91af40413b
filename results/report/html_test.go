package report

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

func htmlOf(t testing.TB, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestHTML(t *testing.T) {
	page := htmlOf(t, demo())
	for _, part := range []string{"<!doctype html>", "<svg", "Content-Security-Policy", "style-src &#39;sha256-", `id="claim-`, "read_parquet", "prefers-color-scheme: dark"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	if m := regexp.MustCompile(`(?i)<(script|link|img|iframe)| on[a-z]+=| style="|@import|url\(`).FindString(page); m != "" {
		t.Errorf("the page holds %q, so it needs more than itself", m)
	}
	htmlOf(t, noCode())
}

func TestHTMLIsSafe(t *testing.T) {
	page := htmlOf(t, hostile())
	if strings.Contains(page, "\x1b") || strings.Contains(page, "\u202e") || regexp.MustCompile(`(?i)<(script|img|iframe)`).MatchString(page) || regexp.MustCompile(`href="(?:javascript|data):`).MatchString(page) {
		t.Error("a stranger's text became markup")
	}
}

func TestComparisonsAreDrawn(t *testing.T) {
	r := demo()
	r.Verdict, r.Claims = "", nil
	half, lo, hi, level := 0.004, -0.006, 0.008, 0.9
	c := Comparison{Candidate: "nvfp4", Baseline: "fp8", Verdict: "undecided", Margin: 0.01, Method: "wor_e", Diff: half, Lo: &lo, Hi: &hi, Level: &level, Used: 400}
	for n := 16; n <= 400; n += 16 {
		c.Curve = append(c.Curve, Look{N: n, Diff: half, Lo: &lo, Hi: &hi})
	}
	r.Suites = []Suite{{ID: "mmlu-pro", Questions: 12032, Comparisons: []Comparison{c}}}
	page := htmlOf(t, r)
	for _, part := range []string{"no significant difference shown, and none ruled out", "evidence over questions", "margin ±1 points", "+0.40 points"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
	names, figures := r.Figures()
	if len(names) != len(figures) || figures["evidence/mmlu-pro/nvfp4"] == nil || figures["differences"] == nil || figures["card"] == nil {
		t.Errorf("figures are %v", names)
	}
	if r.Headline() != "undecided" {
		t.Errorf("headline %s", r.Headline())
	}
}
