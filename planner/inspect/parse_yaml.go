package inspect

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/repromill/repromill/planner/spec"
)

// condaSpecRE reads a conda match specification: channel::name, then a version
// after "=", "==" or a comparison, then an optional build after a second "=".
var condaSpecRE = regexp.MustCompile(`^(?:[\w\-./]+::)?([A-Za-z0-9_][\w.\-]*)\s*(.*)$`)

// parseConda reads an environment file of conda; nil when it is another kind
// of YAML with such a name.
func parseConda(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: Conda, Manager: "conda"}
	root := parseYAML(src)
	if root == nil {
		if !strings.Contains(src, "dependencies") {
			return nil
		}
		d.Broken = "not valid YAML"
		return d
	}
	deps := member(root, "dependencies")
	if deps == nil || deps.Kind != yaml.SequenceNode {
		return nil
	}
	if ch := member(root, "channels"); ch != nil {
		for _, c := range ch.Content {
			d.Indexes = append(d.Indexes, Entry{Spec: "--channel " + c.Value, Line: c.Line, Quote: c.Value})
		}
	}
	for _, n := range deps.Content {
		switch n.Kind {
		case yaml.ScalarNode:
			d.condaEntry(n.Value, n.Line)
		case yaml.MappingNode:
			if pip := member(n, "pip"); pip != nil {
				for _, c := range pip.Content {
					d.requirementLine(strings.TrimSpace(c.Value), c.Line)
				}
			}
		}
	}
	return d
}

func (d *Dependency) condaEntry(s string, at int) {
	m := condaSpecRE.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return
	}
	e := Entry{Name: NormalName(m[1]), Line: at, Conda: true, Quote: s}
	rest := strings.ReplaceAll(m[2], " ", "")
	version, build := rest, ""
	if strings.HasPrefix(rest, "=") {
		version, build, _ = strings.Cut(strings.TrimLeft(rest, "="), "=")
		e.Pinned = version != "" && !strings.Contains(version, "*")
		version = "=" + version
	} else if i := strings.LastIndex(rest, "="); i > 0 && strings.IndexByte("<>=!", rest[i-1]) < 0 {
		version, build = rest[:i], rest[i+1:]
	}
	e.Spec = m[1] + rest
	ev := e.Evidence(d.Path)
	bare := strings.TrimRight(strings.TrimLeft(version, "="), ".*") // "10.*" is any 10
	switch e.Name {
	case "python":
		d.Python = Version{Spec: bare, Kind: spec.Published, At: ev}
	case "cudatoolkit", "cuda-toolkit", "pytorch-cuda", "cuda-version", "cuda", "cuda-runtime":
		d.CUDA = Version{Spec: bare, Kind: spec.Published, At: ev}
	default:
		if mm := cudaBuildRE.FindStringSubmatch(build); mm != nil && d.CUDA.Spec == "" {
			d.CUDA = Version{Spec: mm[1], Kind: spec.Published, At: ev}
		}
	}
	d.Entries = append(d.Entries, e)
}

// parseCog reads the build section of cog.yaml.
func parseCog(p, src string) *Dependency {
	d := &Dependency{Path: p, Kind: Cog, Manager: "pip"}
	build := member(parseYAML(src), "build")
	if build == nil {
		d.Broken = "no build section"
		return d
	}
	at := func(n *yaml.Node) spec.Evidence {
		return spec.Evidence{File: p, Line: n.Line, Quote: n.Value}
	}
	if n := member(build, "python_version"); n != nil {
		d.Python = Version{Spec: n.Value, Kind: spec.Published, At: at(n)}
	}
	if n := member(build, "cuda"); n != nil {
		d.CUDA = Version{Spec: n.Value, Kind: spec.Published, At: at(n)}
	}
	if n := member(build, "python_packages"); n != nil {
		for _, c := range n.Content {
			d.requirementLine(strings.TrimSpace(c.Value), c.Line)
		}
	}
	if n := member(build, "python_requirements"); n != nil {
		d.Includes = append(d.Includes, Include{Path: join(p, n.Value), Line: n.Line})
	}
	if n := member(build, "system_packages"); n != nil {
		for _, c := range n.Content {
			d.System = append(d.System, Entry{Spec: c.Value, Name: c.Value, Line: c.Line, Quote: c.Value})
		}
	}
	if n := member(build, "run"); n != nil {
		for _, c := range n.Content {
			d.Runs = append(d.Runs, Entry{Spec: c.Value, Line: c.Line, Quote: clip(c.Value)})
		}
	}
	return d
}
