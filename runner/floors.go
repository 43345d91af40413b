package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/pip"
)

// torchIndex is where the builds of PyTorch for one CUDA version lie
// (pytorch.org/get-started).
const torchIndex = "https://download.pytorch.org/whl/"

// moves is what has to move in the environment for the GPU model that the plan
// names.
type moves struct {
	python string            // version to use instead of the declared one
	pins   map[string]string // distribution by normalised name to requirement
	newer  bool              // something newer than the commit is needed
	index  string            // with the builds for a CUDA version
	devs   []spec.Deviation
	none   string // why nothing can be installed
}

var (
	releaseRE = regexp.MustCompile(`^\d+(?:\.\d+)+(?:\+cu\d+)?$`)
	distRE    = regexp.MustCompile(`^\s*([A-Za-z0-9][A-Za-z0-9._-]*)(\[[^\]]*\])?`)
)

// moved reads what environment.sku asks for.
func moved(e *spec.Environment) moves {
	m := moves{pins: map[string]string{}}
	if e.SKU == "" {
		return m
	}
	cuda := ""
	for _, d := range e.SKUs[e.SKU].Deviations {
		switch {
		case d.Used == "none":
			m.none = fmt.Sprintf("no release of %s is known to work on %s: %s", d.What, e.SKU, d.Reason)
		case d.What == "CUDA":
			cuda = "cu" + strings.ReplaceAll(d.Used, ".", "")
		case d.What == "Python":
			m.python = d.Used
		case releaseRE.MatchString(d.Used) && strings.HasPrefix(d.Declared, "none newer"):
			m.newer = true // the newest that the other bounds allow
		case releaseRE.MatchString(d.Used):
			version, build, _ := strings.Cut(d.Used, "+")
			m.pins[pip.Normalise(d.What)], m.newer = "=="+version, true
			if build != "" {
				cuda = build
			}
		default: // words for people, which nothing can be installed by
			continue
		}
		m.devs = append(m.devs, d)
	}
	if cuda != "" && e.Framework.Name == "pytorch" {
		m.index = torchIndex + cuda
		// A pin that names its own build leaves no other.
		if version, build, ok := strings.Cut(strings.TrimLeft(e.Framework.Version, "= "), "+cu"); ok && build != "" && m.pins["torch"] == "" {
			m.pins["torch"] = "==" + version
		}
	}
	return m
}

// requirement is one that the moves change, as it is now.
func (m *moves) requirement(line string) (string, bool) {
	g := distRE.FindStringSubmatch(line)
	if g == nil || strings.Contains(line, "://") {
		return line, false
	}
	pin, ok := m.pins[pip.Normalise(g[1])]
	if !ok {
		return line, false
	}
	out := g[1] + g[2] + pin
	line, _, _ = strings.Cut(line, "#")
	if _, marker, _ := strings.Cut(line, ";"); strings.TrimSpace(marker) != "" {
		out += " ; " + strings.TrimSpace(marker)
	}
	return out, true
}

// overrides are the lines of uv's file of overrides.
func (m *moves) overrides() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m.pins)) {
		b.WriteString(name + m.pins[name] + "\n")
	}
	return b.String()
}

// apply writes the moves into what is installed: the arguments, and the
// requirement files of the tree that they name. It is for installers that know
// no overrides; doing it twice changes nothing.
func (m *moves) apply(tree string, args []string) ([]string, error) {
	if len(m.pins) == 0 {
		return args, nil
	}
	root, err := os.OpenRoot(tree)
	if err != nil {
		return nil, fmt.Errorf("move pins: %w", err)
	}
	defer root.Close()
	out := slices.Clone(args)
	for i, a := range out {
		switch {
		case i > 0 && out[i-1] == "-r":
			if err := m.file(root, path.Clean(a), map[string]bool{}); err != nil {
				return nil, fmt.Errorf("move pins in %s: %w", a, err)
			}
		case i > 0 && out[i-1] == "-e" || strings.HasPrefix(a, "-"):
		default:
			out[i], _ = m.requirement(a)
		}
	}
	return out, nil
}

var includeRE = regexp.MustCompile(`^\s*(?:-r|--requirement)[ =]\s*(\S+)`)

// file moves the pins of one requirement file and of those it includes.
func (m *moves) file(root *os.Root, name string, seen map[string]bool) error {
	if seen[name] || len(seen) > 100 {
		return nil
	}
	seen[name] = true
	body, err := root.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the installer says so in its own words
	}
	if err != nil {
		return err
	}
	lines := strings.Split(string(body), "\n")
	for i, l := range lines {
		if g := includeRE.FindStringSubmatch(l); g != nil {
			if err := m.file(root, path.Join(path.Dir(name), g[1]), seen); err != nil {
				return err
			}
			continue
		}
		if now, ok := m.requirement(l); ok {
			lines[i] = now
		}
	}
	if now := []byte(strings.Join(lines, "\n")); !bytes.Equal(now, body) {
		return root.WriteFile(name, now, 0o644)
	}
	return nil
}

// stated are the places for packages that the repository names, beside the
// user's own index, and what of them cannot be used.
func stated(e *spec.Environment, m *moves) (index []*url.URL, find []string, devs []spec.Deviation) {
	list := slices.Clone(e.Indexes)
	if m.index != "" {
		list = slices.DeleteFunc(list, func(x spec.Index) bool { return strings.HasPrefix(x.URL, torchIndex) })
		list = append(list, spec.Index{URL: m.index, Kind: "index"})
	}
	for _, x := range list {
		u, err := url.Parse(x.URL)
		why := ""
		switch {
		case x.Kind == "channel":
			why = "it is a conda channel, and packages are installed by pip or uv"
		case err != nil || u.Hostname() == "" || u.Scheme != "https":
			why = "it is no https URL"
		case u.User != nil:
			why = "it holds credentials, which untrusted code is never given"
		}
		dev := spec.Deviation{What: "package index", Declared: "the user's own index alone", Used: x.URL + " beside it", Reason: "the repository names it"}
		switch {
		case why != "":
			dev.Declared, dev.Used, dev.Reason = x.URL, "none", why
		case x.Kind == "find_links":
			find = append(find, u.String())
		default:
			index = append(index, u)
		}
		if x.URL == m.index {
			dev.Reason = "the builds for " + e.SKU + " lie there"
		}
		devs = append(devs, dev)
	}
	return index, find, devs
}
