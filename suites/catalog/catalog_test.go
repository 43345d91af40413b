package catalog_test

import (
	"regexp"
	"testing"

	"github.com/repromill/repromill/suites/catalog"
)

// TestDefinitions holds every suite to what a plan needs of it.
func TestDefinitions(t *testing.T) {
	commit := regexp.MustCompile(`^[0-9a-f]{40}$`)
	all := catalog.All()
	reg, err := all.Graders()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, d := range all {
		if seen[d.Suite] || d.Suite == "" || d.Doc == "" || d.Questions < 1 || d.Repeats < 1 || !(d.Within > 0 && d.Within <= 0.25) {
			t.Errorf("%s: facts are missing or it stands twice: %+v", d.Suite, d.Facts)
		}
		seen[d.Suite] = true
		if (d.Open == nil) != (d.Later != "") {
			t.Errorf("%s: it either opens or says why not", d.Suite)
		}
		for _, f := range d.Data {
			if !commit.MatchString(f.Commit) {
				t.Errorf("%s: %s is not pinned", d.Suite, f)
			}
		}
		if d.Later != "" {
			continue
		}
		if len(d.Variants) == 0 || len(d.Graders) == 0 {
			t.Errorf("%s has no variant or no rule", d.Suite)
			continue
		}
		for _, v := range d.Variants {
			if _, err := reg.Grader(d.Graders[0].Rule().Suite, v.Rule); err != nil || v.Source == "" || v.Doc == "" {
				t.Errorf("%s, variant %s: rule %q: %v", d.Suite, v.Name, v.Rule, err)
			}
		}
	}
}
