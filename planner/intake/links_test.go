package intake

import (
	"strings"
	"testing"
)

// TestClassify weighs one sentence at a time, as authors write them. The link
// is always to github.com/a/b.
func TestClassify(t *testing.T) {
	const own, top, bare, others = "own", "top", "bare", "others"
	cases := []struct {
		zone zone
		text string
		want string
	}{
		{zoneAbstract, "Our code is available at https://github.com/a/b.", own},
		{zoneAbstract, "Code is available at https://github.com/a/b", own},
		{zoneAbstract, "The source code and models are publicly available at: https://github.com/a/b .", own},
		{zoneAbstract, "Code will be released at https://github.com/a/b", own},
		{zoneAbstract, "We release our code at \\url{https://github.com/a/b}.", own},
		{zoneAbstract, "We open-source everything: code, data and models (https://github.com/a/b).", own},
		{zoneAbstract, "Code: https://github.com/a/b", own},
		{zoneAbstract, "https://github.com/a/b", top},
		{zoneAbstract, "The implementation can be found at github.com/a/b.", own},
		{zoneAbstract, "Our PyTorch implementation is at http://www.github.com/a/b/", own},
		{zoneAbstract, "The project is open-sourced at https://github.com/a/b.", own},
		{zoneAbstract, "All experiments can be reproduced with the scripts provided at https://github.com/a/b.", own},
		{zoneAbstract, "We make the library available under https://github.com/a/b.", own},
		{zoneComment, "Accepted at NeurIPS 2025. Code at https://github.com/a/b", own},
		{zoneComment, "12 pages, https://github.com/a/b", top},
		{zoneComment, "Code available: https://github.com/a/b; 9 pages", own},
		{zoneComment, "GitHub: https://github.com/a/b", own},
		{zoneBody, "We release our code, which builds on vLLM, at https://github.com/a/b.", own},
		{zoneBody, "Code and data to reproduce all results are available in our repository (https://github.com/a/b).", own},
		{zoneIntro, "Our simulator is available at https://github.com/a/b.", own},
		{zoneBody, "We use the official implementation of X (https://github.com/a/b).", others},
		{zoneBody, "We follow the public code released by the authors at https://github.com/a/b.", others},
		{zoneBody, "Baselines are taken from their repository, available at https://github.com/a/b.", others},
		{zoneBody, "Training is based on nanoGPT, https://github.com/a/b.", others},
		{zoneBody, "We evaluate with the harness https://github.com/a/b, using default settings.", others},
		{zoneBody, "Their code is available at https://github.com/a/b.", others},
		{zoneBody, "A tool called X, https://github.com/a/b, counts tokens.", bare},
		{zoneBody, "The dataset is at https://github.com/a/b.", bare},
		{zoneReferences, "Our code is available at https://github.com/a/b.", "references"},
	}
	for _, c := range cases {
		var s linkSet
		s.text(plainTeX(c.text), place{where: "x", zone: c.zone})
		if len(s.list) != 1 || s.list[0].repo != "github.com/a/b" {
			t.Errorf("%q: links %+v", c.text, s.list)
			continue
		}
		got := "own"
		switch score := s.list[0].score; {
		case score == scoreReferences:
			got = "references"
		case score == scoreOfOthers:
			got = others
		case score == scoreBareTop:
			got = top
		case score < scoreStated:
			got = bare
		}
		if got != c.want {
			t.Errorf("%q in zone %d is %s (score %d, %s), want %s", c.text, c.zone, got, s.list[0].score, s.list[0].reason, c.want)
		}
	}
}

func TestPromise(t *testing.T) {
	var s linkSet
	s.text("Code will be made publicly available at https://github.com/a/b upon acceptance.", place{where: "the abstract", zone: zoneAbstract})
	if !strings.Contains(s.list[0].reason, "promise") {
		t.Errorf("reason %q", s.list[0].reason)
	}
}

// TestFootnoteContext holds that a bare link in a footnote is read with the
// sentence that its mark stands in.
func TestFootnoteContext(t *testing.T) {
	for context, stated := range map[string]bool{
		"We open-source our simulator and all scripts.":    true,
		"The code is available online.":                    true,
		"We use vLLM":                                      false,
		"All models run on the original code of the paper": false,
	} {
		var s linkSet
		s.text("https://github.com/a/b", place{where: "footnote 1", zone: zoneIntro, context: context})
		if got := s.list[0].score >= scoreStated; got != stated {
			t.Errorf("%q: stated %v (%s)", context, got, s.list[0].reason)
		}
	}
}

func TestRanking(t *testing.T) {
	var s linkSet
	s.text("Code available at https://github.com/r/in-references.", place{zone: zoneReferences})
	s.text("We use https://github.com/o/of-others here.", place{zone: zoneBody})
	s.add("https://github.com/m/mirror", link{statedBy: "mirror", score: scoreMirror, simulated: true, note: "a note"})
	s.add("https://github.com/g/aggregator", link{statedBy: "aggregator", score: scoreAggregator})
	s.add("https://github.com/h/curated", link{statedBy: "hub_curated", score: scoreCurated})
	s.add("https://github.com/h/claimed", link{statedBy: "hub_claimed", score: scoreClaimed})
	s.text("Our code is available at https://github.com/b/body.", place{zone: zoneBody})
	s.text("Our code is available at https://github.com/a/abstract/tree/main/sub.", place{zone: zoneAbstract})
	s.add("git@github.com:A/Abstract.git", link{statedBy: "mirror", score: scoreMirror})
	s.add("https://github.com/not-a-repository", link{statedBy: "aggregator", score: scoreAggregator})
	links, mentions := s.ranked(func(l *link) { l.dead = l.repo == "github.com/b/body" })
	want := "author:github.com/a/abstract/tree/main/sub hub_curated:github.com/h/curated hub_claimed:github.com/h/claimed " +
		"aggregator:github.com/g/aggregator mirror:github.com/m/mirror author:github.com/b/body"
	if got := urls(links); got != want {
		t.Errorf("links\n%s\nwant\n%s", got, want)
	}
	if got := urls(mentions); got != "author:github.com/o/of-others author:github.com/r/in-references" {
		t.Errorf("mentions %s", got)
	}
	for i, c := range append(links, mentions...) {
		if c.Rank != i+1 {
			t.Errorf("%s has rank %d, want %d", c.URL, c.Rank, i+1)
		}
	}
	if !links[4].Simulated || links[4].Note != "a note" {
		t.Errorf("%+v", links[4])
	}
}

func TestNamed(t *testing.T) {
	var s linkSet
	s.text("The tool https://github.com/x/Flash-Thing and https://github.com/x/other run on CPUs.", place{where: "section 3 ¶1", zone: zoneBody})
	s.named("FlashThing: Faster Things")
	links, mentions := s.ranked(func(*link) {})
	if urls(links) != "author:github.com/x/Flash-Thing" || urls(mentions) != "author:github.com/x/other" {
		t.Errorf("links %s, mentions %s", urls(links), urls(mentions))
	}
}

func TestTrimURL(t *testing.T) {
	for in, want := range map[string]string{
		"https://github.com/a/b.":          "https://github.com/a/b",
		"https://github.com/a/b),":         "https://github.com/a/b",
		"https://github.com/a/b_(x)":       "https://github.com/a/b_(x)",
		"https://github.com/a/b].":         "https://github.com/a/b",
		`https://github.com/a/b\_c`:        "https://github.com/a/b_c",
		"https://github.com/a/b…":          "https://github.com/a/b",
		"https://github.com/a/b.git":       "https://github.com/a/b.git",
		"https://example.com/x?y=(1)&z=2)": "https://example.com/x?y=(1)&z=2",
	} {
		if got := trimURL(in); got != want {
			t.Errorf("trimURL(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPlainTeX(t *testing.T) {
	for in, want := range map[string]string{
		`reduces waiting by $31$--$42\%$ and`:         "reduces waiting by 31–42% and",
		`$5.4\times$ fewer preemptions`:               "5.4× fewer preemptions",
		`$5.4 \times$ fewer`:                          "5.4 × fewer",
		`accuracy of 83.67$\pm$2.28`:                  "accuracy of 83.67±2.28",
		`about ~30% less, see Fig.~2`:                 "about ~30% less, see Fig. 2",
		`$\sim$30\% of $10^{-3}$`:                     "~30% of 10^-3",
		`\textbf{12.5} \emph{and \textit{more}}`:      "12.5 and more",
		`1{,}000 requests, $\mathcal{O}(n \log n)$`:   "1,000 requests, O(n log n)",
		`costs \$100 to \$200`:                        "costs $100 to $200",
		`costs $100 to $200 per hour`:                 "costs $100 to $200 per hour",
		`at \url{https://github.com/a/b~c--d}.`:       "at https://github.com/a/b~c--d.",
		`see \href{https://github.com/a/b}{the code}`: "see the code (https://github.com/a/b)",
		`$\frac{1}{2}$ of $\alpha \leq 0.05$`:         "1/2 of α≤0.05",
		"``quoted'' --- and plain":                    "“quoted” — and plain",
		"plain  text\nover lines":                     "plain text over lines",
		`\(x=3\) stays`:                               "x=3 stays",
		`unknown \foo{bar}`:                           "unknown foo bar",
		`a \\ b`:                                      "a b",
		`$`:                                           "$",
		`\`:                                           "",
	} {
		if got := plainTeX(in); got != want {
			t.Errorf("plainTeX(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestShorten(t *testing.T) {
	if got := shorten("größe", 5); got != "g…" && got != "gr…" || len(got) > 5 {
		t.Errorf("%q", got)
	}
	if got := shorten("abc", 3); got != "abc" {
		t.Errorf("%q", got)
	}
}
