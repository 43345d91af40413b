package pip

import (
	"encoding/json"
	"path"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/repromill/repromill/planner/spec"
)

// lock reads the lock file that the plan takes its dependencies from.
func (r *reader) lock(sources []spec.DependencyFile) error {
	for _, s := range sources {
		base := path.Base(s.Path)
		known := slices.Contains([]string{"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock"}, base) || strings.HasPrefix(base, "pylock.") && strings.HasSuffix(base, ".toml")
		if s.Role != "primary" || !known {
			continue
		}
		b, err := r.bytes(s.Path)
		if err != nil {
			return err
		}
		r.in.LockFile = s.Path
		if r.in.Locked, err = ParseLock(s.Path, b); err != nil {
			return &UnreadableError{s.Path, err.Error()}
		}
	}
	return nil
}

// lockedPackage is an entry of uv.lock, poetry.lock, pdm.lock and pylock.toml
// (PEP 751), as far as they agree.
type lockedPackage struct {
	Name              string   `toml:"name"`
	Version           string   `toml:"version"`
	Marker            string   `toml:"marker"`             // PEP 751
	ResolutionMarkers []string `toml:"resolution-markers"` // uv: one of them holds
	// Source is where it comes from; uv and poetry name another place than an
	// index here.
	Source map[string]any `toml:"source"`
}

// ParseLock lists the versions that a lock file fixes, each as "name==version"
// with the markers under which it holds. Packages that come from elsewhere
// than an index are left to the project that declares them. A name with
// several versions and no markers to tell them apart is left out.
func ParseLock(name string, b []byte) ([]Line, error) {
	var list []lockedPackage
	if strings.HasSuffix(name, "Pipfile.lock") {
		var doc struct {
			Default map[string]struct{ Version, Markers string }
		}
		if err := json.Unmarshal(b, &doc); err != nil {
			return nil, err
		}
		for n, p := range doc.Default {
			list = append(list, lockedPackage{Name: n, Version: strings.TrimPrefix(p.Version, "=="), Marker: p.Markers})
		}
	} else {
		var doc struct {
			Package  []lockedPackage `toml:"package"`
			Packages []lockedPackage `toml:"packages"`
		}
		if err := toml.Unmarshal(b, &doc); err != nil {
			return nil, err
		}
		list = append(doc.Package, doc.Packages...)
	}
	versions := map[string]int{}
	for _, p := range list {
		versions[Normalise(p.Name)]++
	}
	at := lines(b)
	var out []Line
	for _, p := range list {
		marker := p.marker()
		n := Normalise(p.Name)
		if p.Version == "" || n == "" || p.elsewhere() || versions[n] > 1 && marker == "" || strings.ContainsAny(p.Version+n, " \n;") {
			continue
		}
		text := n + "==" + p.Version
		if marker != "" && !strings.Contains(marker, "\n") {
			text += " ; " + marker
		}
		out = append(out, Line{Text: text, Name: n, File: name, At: at[n]})
	}
	slices.SortStableFunc(out, func(a, b Line) int { return strings.Compare(a.Text, b.Text) })
	return out, nil
}

func (p *lockedPackage) marker() string {
	if len(p.ResolutionMarkers) == 0 {
		return p.Marker
	}
	return "(" + strings.Join(p.ResolutionMarkers, ") or (") + ")"
}

// elsewhere says that a package does not come from an index.
func (p *lockedPackage) elsewhere() bool {
	for _, k := range []string{"git", "url", "path", "directory", "editable", "virtual"} {
		if _, ok := p.Source[k]; ok {
			return true
		}
	}
	kind, _ := p.Source["type"].(string) // poetry
	return kind != "" && kind != "legacy"
}

// lines finds the line on which a lock file begins to speak of a package.
func lines(b []byte) map[string]int {
	out := map[string]int{}
	n := 0
	for s := range strings.Lines(string(b)) {
		n++
		s = strings.TrimSpace(s)
		var name string
		if rest, ok := strings.CutPrefix(s, `name = "`); ok {
			name, _, _ = strings.Cut(rest, `"`)
		} else if rest, ok := strings.CutSuffix(s, `": {`); ok {
			name = strings.TrimPrefix(rest, `"`)
		}
		if name = Normalise(name); name != "" && out[name] == 0 {
			out[name] = n
		}
	}
	return out
}
