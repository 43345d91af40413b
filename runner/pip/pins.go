package pip

import (
	"regexp"
	"strings"
)

var lockedRE = regexp.MustCompile(`^([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)(?:\s|;|\\|$)`)

// maxPins bounds what is taken from one lock.
const maxPins = maxLines

// Pins are the exact versions in a lock as uv and pip write one, each as
// "name==version" with the name normalised; hashes, comments, URLs and whatever
// else a lock may hold are left out. A lock may come from a stranger: what is
// returned is safe to stand in a constraints file.
func Pins(lock string) []string {
	var out []string
	seen := map[string]bool{}
	for line := range strings.Lines(lock) {
		m := lockedRE.FindStringSubmatch(line)
		if m == nil || len(line) > 2000 {
			continue
		}
		if name := Normalise(m[1]); !seen[name] && len(out) < maxPins {
			seen[name] = true
			out = append(out, name+"=="+m[2])
		}
	}
	return out
}
