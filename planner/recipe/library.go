package recipe

import (
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// libraryOutputs are lines that well-known libraries print by themselves when
// a program calls them.
var libraryOutputs = []struct {
	module, call, also, label, unit, pattern, source string // also is a second call without which nothing is printed
}{
	{"pycocotools", "summarize", "", "average precision", "fraction",
		`Average Precision\s+\(AP\) @\[ IoU=0\.50:0\.95 \| area=\s*all \| maxDets=\s*100 \] = `, "COCOeval.summarize of pycocotools"},
	{"keras", "evaluate", "compile", "accuracy", "fraction", `\baccuracy:\s*`, "the progress bar of Keras"},
	{"tensorflow", "evaluate", "compile", "accuracy", "fraction", `\baccuracy:\s*`, "the progress bar of Keras"},
}

// libraries adds what the libraries print that the entry leads to.
func (n *finder) libraries() {
	for _, p := range n.f.Reach(n.c.Entry) {
		m := n.f.Modules[p]
		if m == nil {
			continue
		}
		for _, im := range m.Imports {
			top, _, _ := strings.Cut(im.Name, ".")
			for _, l := range libraryOutputs {
				if top != l.module || im.Level > 0 || !calls(m.Calls, l.call) || l.also != "" && !calls(m.Calls, l.also) {
					continue
				}
				n.add(Number{Label: l.label, Unit: l.unit, At: spec.Evidence{File: p, Line: im.Line, Quote: "prints through " + l.source},
					Rule: spec.Collect{Kind: "stdout_regex", Pattern: l.pattern + numberPart}})
			}
		}
	}
}

func calls(all map[string]int, last string) bool {
	for c := range all {
		if c == last || strings.HasSuffix(c, "."+last) {
			return true
		}
	}
	return false
}
